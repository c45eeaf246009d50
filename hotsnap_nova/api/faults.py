# SPDX-License-Identifier: Apache-2.0
"""Our errors as Nova's faults."""

import functools
import logging

from webob import exc as webob_exc

from hotsnap_nova import exception
from hotsnap_nova.api import authorization, words
from hotsnap_nova.policies import snapshots as rules

LOG = logging.getLogger(__name__)

#: For ``expected_errors``: all that our own errors may become.
EXPECTED = (400, 403, 404, 409, 500, 503)

#: Carries an error's stable code, for which Nova's faults have no place.
CODE_HEADER = 'X-Server-Group-Snapshot-Error'


def translated(method):
    """Make what a controller's method raises of ours an answer with its status and code."""
    @functools.wraps(method)
    def call(self, req, *args, **kwargs):
        try:
            return method(self, req, *args, **kwargs)
        except exception.HotsnapError as exc:
            if exc.http_status == 500:
                LOG.exception('Unexpected answer of the coordinator')
            answer = webob_exc.status_map.get(exc.http_status, webob_exc.HTTPInternalServerError)
            raise answer(explanation=_told(exc, req.environ['nova.context']),
                         headers={CODE_HEADER: exc.code}) from exc
    return call


def _told(error, context):
    if authorization.may(context, rules.SHOW_HOST, context.project_id):
        return str(error)
    return words.for_users(str(error), [error.kwargs.get('host')])
