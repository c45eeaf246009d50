# SPDX-License-Identifier: Apache-2.0
"""Which request goes to which method of which controller."""

import webob.dec
from nova.api import openstack
from nova.api import wsgi as base_wsgi
from nova.api.openstack import wsgi

from hotsnap_nova.api import checks, snapshots, versions

_ALL = '/os-server-group-snapshots'
_ONE = _ALL + '/{id}'


class Router(base_wsgi.Router):
    """Our routes; what matches none is Nova's to answer."""

    def __init__(self, application):
        mapper = openstack.ProjectMapper()
        snapshot = wsgi.Resource(snapshots.SnapshotsController())
        version = wsgi.Resource(versions.VersionController())
        check = wsgi.Resource(checks.ChecksController())
        for path, method, controller, action in (
                (_ALL, 'GET', snapshot, 'index'),
                (_ALL, 'POST', snapshot, 'create'),
                (_ALL + '/detail', 'GET', snapshot, 'detail'),
                (_ALL + '/version', 'GET', version, 'show'),
                (_ONE, 'GET', snapshot, 'show'),
                (_ONE, 'PUT', snapshot, 'update'),
                (_ONE, 'DELETE', snapshot, 'delete'),
                (_ONE + '/action', 'POST', snapshot, 'action'),
                ('/os-server-groups/{id}/snapshot-check', 'POST', check, 'create')):
            mapper.create_route(path, method, controller, action)
        super().__init__(mapper)
        self._application = application

    @webob.dec.wsgify(RequestClass=wsgi.Request)
    def __call__(self, request):
        if self.map.match(request.path_info, request.environ) is None:
            return self._application
        return self._router
