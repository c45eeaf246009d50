# SPDX-License-Identifier: Apache-2.0
"""The version of these routes; Nova's microversions are Nova's.

Version history; the first number grows when a client of the old one breaks:

* 1.0  all routes
* 1.1  a check says what each finding ``rules_out``, and whether a snapshot would be ``restorable``
* 1.2  a restore takes ``drop_internal_snapshots``, and ``keep_present``: its ``result`` has the
       snapshot's id under ``kept_present``
* 1.3  a restore's ``result`` has ``warnings``, where there are any
"""

from nova.api.openstack import common, wsgi

MIN_VERSION = '1.0'
VERSION = '1.3'


class VersionController(wsgi.Controller):
    """Says what a client may rely on."""

    _view_builder_class = common.ViewBuilder

    @wsgi.expected_errors(())
    def show(self, req):
        links = self._view_builder._get_links(req, 'version', 'os-server-group-snapshots')
        return {'version': {'id': f'v{VERSION}', 'status': 'CURRENT', 'version': VERSION,
                            'min_version': MIN_VERSION, 'links': links[:1]}}
