# SPDX-License-Identifier: Apache-2.0
"""``POST /os-server-groups/{id}/snapshot-check``"""

from nova.api import validation
from nova.api.openstack import wsgi

from hotsnap_nova.api import authorization, coordinator, faults, groups, schemas, views
from hotsnap_nova.policies import snapshots as rules


class ChecksController(wsgi.Controller):
    """Says whether a group can be snapshotted; touches nothing."""

    _view_builder_class = views.ViewBuilder

    @wsgi.expected_errors(faults.EXPECTED)
    @validation.schema(schemas.CHECK)
    @faults.translated
    def create(self, req, id, body):    # noqa: A002  Nova's routes call it so
        context = req.environ['nova.context']
        group = groups.find(context, id)
        authorization.require(context, rules.CHECK, group.project_id)
        wanted = body['snapshot_check'] or {}
        verdict = coordinator.of(context).check(
            group.uuid, wanted.get('gate', 'auto'), wanted.get('disk', 'backup'))
        hosts = authorization.may(context, rules.SHOW_HOST, group.project_id)
        return {'snapshot_check': self._view_builder.verdict(verdict, hosts)}
