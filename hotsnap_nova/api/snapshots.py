# SPDX-License-Identifier: Apache-2.0
"""``/os-server-group-snapshots``: authorise, validate, ask the coordinator."""

from nova.api import validation
from nova.api.openstack import common, wsgi
from oslo_utils import strutils, uuidutils

from hotsnap_nova import exception
from hotsnap_nova.api import authorization, coordinator, faults, groups, schemas, views
from hotsnap_nova.conductor import rpcapi
from hotsnap_nova.policies import snapshots as rules

_FILTERS = {'server_group_id': 'group_id', 'status': 'status', 'name': 'name'}

# `id` is what Nova's routes call it.
# ruff: noqa: A002


class SnapshotsController(wsgi.Controller):
    """Snapshots of server groups."""

    _view_builder_class = views.ViewBuilder

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @validation.schema(schemas.CREATE)
    @faults.translated
    def create(self, req, body):
        context, wanted = req.environ['nova.context'], body['server_group_snapshot']
        group = groups.find(context, wanted['server_group_id'])
        authorization.require(context, rules.CREATE, group.project_id)
        snapshot = coordinator.of(context).create(
            group.uuid, name=wanted.get('name'), description=wanted.get('description') or '',
            properties=wanted.get('properties', {}), gate=wanted.get('gate', 'auto'),
            disk=wanted.get('disk', 'backup'))
        return self._shown(req, snapshot)

    @wsgi.expected_errors(faults.EXPECTED)
    @validation.query_schema(schemas.INDEX_QUERY)
    @faults.translated
    def index(self, req):
        found = self._list(req, detail=False)
        return self._view_builder.page(
            req, [self._view_builder.brief(req, each) for each in found])

    @wsgi.expected_errors(faults.EXPECTED)
    @validation.query_schema(schemas.INDEX_QUERY)
    @faults.translated
    def detail(self, req):
        found = self._list(req, detail=True)
        context = req.environ['nova.context']
        hosts = {project: authorization.may(context, rules.SHOW_HOST, project)
                 for project in {each['project_id'] for each in found}}
        return self._view_builder.page(
            req, [self._view_builder.detail(req, each, hosts[each['project_id']])
                  for each in found], '/detail')

    @wsgi.expected_errors(faults.EXPECTED)
    @validation.query_schema(schemas.SHOW_QUERY)
    @faults.translated
    def show(self, req, id):
        _, snapshot = self._open(req, id, rules.SHOW)
        return self._shown(req, snapshot)

    @wsgi.expected_errors(faults.EXPECTED)
    @validation.schema(schemas.UPDATE)
    @faults.translated
    def update(self, req, id, body):
        conductor, _ = self._open(req, id, rules.UPDATE)
        values = dict(body['server_group_snapshot'])
        if 'description' in values:
            values['description'] = values['description'] or ''
        return self._shown(req, conductor.update(id, values))

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @validation.query_schema(schemas.DELETE_QUERY)
    @faults.translated
    def delete(self, req, id):
        force = _is_true(req, 'force')
        conductor, _ = self._open(req, id, rules.FORCE_DELETE if force else rules.DELETE)
        conductor.delete(id, force)

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @wsgi.action('restore')
    @validation.schema(schemas.RESTORE)
    @faults.translated
    def _restore(self, req, id, body):
        _, snapshot = self._open(req, id, rules.RESTORE)
        context = req.environ['nova.context']
        conductor = coordinator.of(context, **{
            rpcapi.MAY_UNLOCK: authorization.may_unlock(context, snapshot['project_id'])})
        wanted = body['restore'] or {}
        if 'keep_present' in wanted:
            authorization.require(context, rules.CREATE, snapshot['project_id'])
        conductor.restore(id, wanted.get('ignore_new_members', False),
                          wanted.get('drop_internal_snapshots', False),
                          wanted.get('keep_present'))

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @wsgi.action('verify')
    @validation.schema(schemas.VERIFY)
    @faults.translated
    def _verify(self, req, id, body):    # noqa: ARG002  Nova's action routes pass it
        conductor, _ = self._open(req, id, rules.VERIFY)
        conductor.verify(id)

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @wsgi.action('abort')
    @validation.schema(schemas.ABORT)
    @faults.translated
    def _abort(self, req, id, body):    # noqa: ARG002  Nova's action routes pass it
        conductor, _ = self._open(req, id, rules.ABORT)
        conductor.abort(id)

    @wsgi.response(202)
    @wsgi.expected_errors(faults.EXPECTED)
    @wsgi.action('reset_status')
    @validation.schema(schemas.RESET_STATUS)
    @faults.translated
    def _reset_status(self, req, id, body):
        conductor, _ = self._open(req, id, rules.RESET_STATUS)
        conductor.reset_status(id, body['reset_status']['status'])

    # -- inside --------------------------------------------------------------------------------

    def _open(self, req, snapshot_id, rule):
        """The coordinator and the snapshot, where the caller may do this to it."""
        context = req.environ['nova.context']
        if not uuidutils.is_uuid_like(snapshot_id):
            raise exception.SnapshotNotFound(snapshot=snapshot_id)
        conductor = coordinator.of(context)
        snapshot = conductor.get(snapshot_id)
        authorization.require_on(context, rule, snapshot)
        return conductor, snapshot

    def _list(self, req, detail):
        context = req.environ['nova.context']
        authorization.require(context, rules.INDEX, context.project_id)
        filters = {ours: req.GET[theirs] for theirs, ours in _FILTERS.items()
                   if theirs in req.GET}
        if _is_true(req, 'all_projects'):
            authorization.require(context, rules.ALL_PROJECTS, context.project_id)
        else:
            filters['project_id'] = context.project_id
        limit, marker = common.get_limit_and_marker(req)
        try:
            return coordinator.of(context).list(
                filters=filters, limit=limit, marker=marker, detail=detail)
        except exception.SnapshotNotFound as exc:
            raise exception.InvalidValue(
                name='marker', reason=f'there is no snapshot {marker}') from exc

    def _shown(self, req, snapshot):
        hosts = authorization.may(
            req.environ['nova.context'], rules.SHOW_HOST, snapshot['project_id'])
        return {'server_group_snapshot': self._view_builder.detail(req, snapshot, hosts)}


def _is_true(req, name):
    return strutils.bool_from_string(req.GET.get(name, 'false'))
