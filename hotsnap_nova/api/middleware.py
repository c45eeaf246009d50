# SPDX-License-Identifier: Apache-2.0
"""The paste filter that puts our routes before Nova's.

In api-paste.ini, and at the end of both v2.1 pipelines' filters::

    [filter:hotsnap]
    paste.filter_factory = hotsnap_nova.api.middleware:factory

Nothing here may disturb Nova: the rest of us is imported at the first request
for one of our routes, and where that fails only those routes are unavailable.
"""

import json
import logging
import re
import threading

LOG = logging.getLogger(__name__)

#: As Nova's routes, with and without a project's id.
_OURS = re.compile(r'(/[0-9a-f-]+)?/(os-server-group-snapshots(/.*)?'
                   r'|os-server-groups/[^/]+/snapshot-check)')


class Middleware:
    """Answers what is ours, and hands everything else on untouched."""

    def __init__(self, application):
        self._application = application
        self._router = None
        self._mutex = threading.Lock()

    def __call__(self, environ, start_response):
        if not _OURS.fullmatch(environ.get('PATH_INFO', '')):
            return self._application(environ, start_response)
        try:
            router = self._open()
        except Exception:
            LOG.exception('Snapshots of server groups cannot be served')
            return _unavailable(start_response)
        return router(environ, start_response)

    def _open(self):
        """The router; tried again with each request until it can be imported."""
        with self._mutex:
            if self._router is None:
                from hotsnap_nova.api import router
                self._router = router.Router(self._application)
            return self._router


def factory(_global_conf, **_local_conf):
    """For paste: makes the filter."""
    return Middleware


def _unavailable(start_response):
    """Nova's form of a fault, without Nova's code: that may be what is missing."""
    body = json.dumps({'serviceUnavailable': {
        'code': 503, 'message': 'Snapshots of server groups are not available.'}}).encode()
    start_response('503 Service Unavailable', [('Content-Type', 'application/json'),
                                               ('Content-Length', str(len(body)))])
    return [body]
