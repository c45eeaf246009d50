# SPDX-License-Identifier: Apache-2.0
"""What is shown of a snapshot; `conductor.rpcapi` tells what there is."""

from nova.api.openstack import common

from hotsnap_nova.api import words
from hotsnap_nova.conductor import rpcapi

COLLECTION = 'os-server-group-snapshots'

_BRIEF = ('id', 'name', 'status', 'phase', 'created_at')
_DETAIL = ('id', 'name', 'description', 'properties', 'project_id', 'user_id', 'status', 'phase',
           'gate', 'disk', 'epoch', 'skew_ms', 'created_at', 'updated_at', 'request_id')
_MEASURED = ('name', 'pause_ms', 'wait_ms', 'hold_ms', 'size_bytes', 'done_bytes', 'total_bytes')
_ACTION = ('name', 'status', 'started_at', 'finished_at', 'request_id', 'result')


class ViewBuilder(common.ViewBuilder):
    """Builds answers; ``hosts`` says whether the caller may see which host is which."""

    def brief(self, request, snapshot: dict) -> dict:
        return self._of_group(snapshot) | {key: snapshot[key] for key in _BRIEF} | {
            'links': self._get_links(request, snapshot['id'], COLLECTION)}

    def detail(self, request, snapshot: dict, hosts: bool) -> dict:
        shown = self._of_group(snapshot) | {key: snapshot[key] for key in _DETAIL}
        hidden = () if hosts else {each['host'] for each in snapshot['members']}
        shown['error'] = _error(snapshot['error'], hosts, hidden)
        shown['last_action'] = _action(snapshot['last_action'], hosts, hidden)
        shown['members'] = [_member(each, hosts) for each in snapshot['members']]
        shown['links'] = self._get_links(request, snapshot['id'], COLLECTION)
        return shown

    def page(self, request, snapshots: list[dict], suffix: str = '') -> dict:
        """With a link to the next page where there may be one."""
        page = {'server_group_snapshots': snapshots}
        links = self._get_collection_links(request, snapshots, COLLECTION + suffix, 'id')
        if links:
            page['server_group_snapshots_links'] = links
        return page

    def verdict(self, verdict: dict, hosts: bool) -> dict:
        return {key: verdict[key] for key in ('possible', 'restorable', 'gates')} | {
            'findings': [_finding(each, hosts) for each in verdict['findings']]}

    def _of_group(self, snapshot):
        return {'server_group_id': snapshot['group_id'],
                'server_group_name': snapshot['group_name']}


def _with_host(shown, each, hosts):
    return shown | {'host': each['host']} if hosts else shown


def _error(error, hosts, hidden):
    if not error:
        return None
    message = error['message'] if hosts else words.for_users(
        error['message'], {error['host'], *hidden})
    return _with_host({'code': error['code'], 'message': message,
                       'server_id': error['member']}, error, hosts)


def _action(action, hosts, hidden):
    if not action:
        return None
    if not hosts:    # members may have been on others by then
        hidden = {*hidden, *action.get('hosts', ())}
    return {key: action[key] for key in _ACTION} | {
        'error': _error(action['error'], hosts, hidden),
        'result': _result(action['result'], hosts, hidden)}


def _result(result, hosts, hidden):
    if not result or 'warnings' not in result:
        return result
    return {**result, 'warnings': [
        _with_host(_told(each, hosts, {each['host'], *hidden}), each, hosts)
        for each in result['warnings']]}


def _member(member, hosts):
    return _with_host({'server_id': member['id']} | {key: member[key] for key in _MEASURED},
                      member, hosts)


def _finding(each, hosts):
    shown = _told(each, hosts, [each['host']]) | {
        'rules_out': each['rules_out'],
        'refuses': 'snapshot' in each['rules_out'],
        'gates': [name for name in each['rules_out'] if name in rpcapi.GATES]}
    return _with_host(shown, each, hosts)


def _told(each, hosts, hidden):
    """What a finding, or a warning of a restore, says of whom."""
    cause = each['cause'] if hosts else words.for_users(each['cause'], hidden)
    return {'server_id': each['member'], 'server_name': each['name'], 'device': each['device'],
            'cause': cause, 'remedy': each['remedy']}
