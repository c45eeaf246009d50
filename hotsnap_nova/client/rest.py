# SPDX-License-Identifier: Apache-2.0
"""The routes, and waiting for what they begin."""

import time
import uuid
from collections.abc import Callable, Iterator
from urllib import parse

from keystoneauth1.exceptions import RetriableConnectionFailure
from openstack import exceptions

from hotsnap_nova.client import records
from hotsnap_nova.client.records import Snapshot, Verdict

_ALL = '/os-server-group-snapshots'
_CODE_HEADER = 'X-Server-Group-Snapshot-Error'
#: A service that restarts is no reason to stop waiting for what it does.
_PATIENCE = 30
_PASSING = frozenset({502, 503, 504})
#: Is shown the snapshot at each look.
Watch = Callable[[Snapshot], None]


def error_code(error: Exception) -> str | None:
    """The stable code of our error behind an exception, where there is one."""
    response = getattr(error, 'response', None)
    return None if response is None else response.headers.get(_CODE_HEADER)


class Client:
    """The routes, one method each.

    :param compute: ``connection.compute``, or a keystoneauth adapter for the compute service
    :param poll_s: seconds between looks while waiting
    """

    def __init__(self, compute, poll_s: float = 1.0):
        self._compute = compute
        self._poll_s = poll_s

    def create(self, server_group_id: str, **wanted) -> Snapshot:
        """The snapshot that is now being made.

        :param wanted: of name, description, properties, gate, disk
        """
        body = {'server_group_id': server_group_id} | _given(wanted)
        return _snapshot(self._send('POST', _ALL, {'server_group_snapshot': body}))

    def get(self, snapshot_id: str) -> Snapshot:
        return _snapshot(self._send('GET', _one(snapshot_id)))

    def find(self, name_or_id: str) -> Snapshot:
        """The snapshot of this id, or the only one of this name.

        :raises NotFoundException, DuplicateResource:
        """
        if is_id(name_or_id):
            try:
                return self.get(name_or_id)
            except exceptions.NotFoundException:
                pass    # a name may look like an id
        found = list(self.list(name=name_or_id))
        if not found:
            raise exceptions.NotFoundException(f'No snapshot found for {name_or_id}')
        if len(found) > 1:
            raise exceptions.DuplicateResource(
                f'More than one snapshot is named {name_or_id}, use an ID: '
                + ', '.join(each.id for each in found))
        return self.get(found[0].id)

    def list(self, *, detailed: bool = False, max_items: int | None = None,
             **query) -> Iterator[Snapshot]:
        """Snapshots, newest first, fetched page by page.

        :param query: of server_group_id, status, name, all_projects, marker, limit (a page)
        """
        path = _ALL + ('/detail' if detailed else '')
        query = _given(query)
        if max_items is not None:
            query.setdefault('limit', max_items)
        count = 0
        while query is not None:
            page = self._send('GET', path, params=query)
            for plain in page['server_group_snapshots']:
                if count == max_items:
                    return
                yield records.snapshot(plain)
                count += 1
            query = _next(page)

    def update(self, snapshot_id: str, **values) -> Snapshot:
        """The snapshot, changed.

        :param values: of name, description, properties; these as a whole
        """
        return _snapshot(self._send(
            'PUT', _one(snapshot_id), {'server_group_snapshot': _given(values)}))

    def delete(self, snapshot_id: str, force: bool = False) -> None:
        """Begin to delete."""
        self._send('DELETE', _one(snapshot_id), params={'force': 'true'} if force else {})

    def restore(self, snapshot_id: str, ignore_new_members: bool = False,
                drop_internal_snapshots: bool = False,
                keep_present: str | None = None) -> None:
        """Begin to bring all members back to the cut.

        A service of before 1.2 refuses what it does not know of these.

        :param drop_internal_snapshots: those in the disks of today, and checkpoints, may go with
            them
        :param keep_present: name of a snapshot of the members as they are, made first
        """
        wanted = {'ignore_new_members': ignore_new_members}
        if drop_internal_snapshots:    # which services of before 1.2 do not know
            wanted['drop_internal_snapshots'] = True
        self._act(snapshot_id, restore=wanted | _given({'keep_present': keep_present}))

    def verify(self, snapshot_id: str) -> None:
        """Begin to compare what is kept with what was written."""
        self._act(snapshot_id, verify=None)

    def abort(self, snapshot_id: str) -> None:
        """Give up a snapshot that is being made."""
        self._act(snapshot_id, abort=None)

    def reset_status(self, snapshot_id: str, status: str) -> None:
        self._act(snapshot_id, reset_status={'status': status})

    def check(self, server_group_id: str, **wanted) -> Verdict:
        """Whether a snapshot is possible; nothing is touched.

        :param wanted: of gate, disk
        """
        path = f'/os-server-groups/{parse.quote(server_group_id, safe="")}/snapshot-check'
        answer = self._send('POST', path, {'snapshot_check': _given(wanted)})
        return records.verdict(answer['snapshot_check'])

    # -- waiting: each look goes to ``watch``; a ``timeout_s`` of None waits for ever -----------

    def wait_while(self, is_busy: Callable[[Snapshot], bool], snapshot_id: str,
                   timeout_s: float | None = None, watch: Watch | None = None) -> Snapshot | None:
        """The snapshot when it is busy no more; None: it is gone.

        :raises ResourceTimeout: it is still busy
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        failures = 0
        while True:
            try:
                found = self.get(snapshot_id)
            except exceptions.NotFoundException:
                return None
            except (exceptions.HttpException, RetriableConnectionFailure) as exc:
                failures += 1
                if failures > _PATIENCE or getattr(exc, 'status_code', 503) not in _PASSING:
                    raise
            else:
                failures = 0
                if watch:
                    watch(found)
                if not is_busy(found):
                    return found
            if ends is not None and time.monotonic() >= ends:
                raise exceptions.ResourceTimeout(
                    f'Snapshot {snapshot_id} is still busy after {timeout_s} s')
            time.sleep(self._poll_s)

    def wait_until_made(self, snapshot_id: str, timeout_s: float | None = None,
                        watch: Watch | None = None) -> Snapshot:
        """The snapshot, available.

        :raises ResourceFailure: it failed; says why
        """
        found = self.wait_while(lambda each: each.status == 'creating', snapshot_id, timeout_s,
                                watch)
        return _sound(found, snapshot_id)

    def wait_until_acted(self, snapshot_id: str, timeout_s: float | None = None,
                         watch: Watch | None = None) -> Snapshot:
        """The snapshot when its restore or verification has succeeded.

        :raises ResourceFailure: it failed; says why
        """
        found = _sound(self.wait_while(_acts, snapshot_id, timeout_s, watch), snapshot_id)
        action = found.last_action
        if action and action.status == 'failed':
            raise _failure(f'The {action.name} of snapshot {found.name} failed', action.error)
        return found

    def wait_until_deleted(self, snapshot_id: str, timeout_s: float | None = None,
                           watch: Watch | None = None) -> None:
        """Nothing, when it is gone.

        :raises ResourceFailure: it could not be deleted; says why
        """
        found = self.wait_while(lambda each: each.status == 'deleting', snapshot_id, timeout_s,
                                watch)
        if found:
            raise _failure(f'Snapshot {found.name} was not deleted', found.error)

    # -- inside --------------------------------------------------------------------------------

    def _act(self, snapshot_id, **action):
        self._send('POST', _one(snapshot_id) + '/action', action)

    def _send(self, method, path, body=None, params=None):
        more = {} if body is None else {'json': body}
        answer = self._compute.request(
            path, method, params=params or {}, raise_exc=False,
            headers={'Accept': 'application/json'}, **more)
        if answer.status_code == 404 and _CODE_HEADER not in answer.headers:
            raise exceptions.EndpointNotFound(
                'This cloud has no snapshots of server groups: its compute service does not know '
                f'{_ALL}')
        exceptions.raise_from_response(answer)
        return answer.json() if answer.content else None


def is_id(name_or_id: str) -> bool:
    """Whether it may be the id of a snapshot or group."""
    try:
        uuid.UUID(name_or_id)
    except ValueError:
        return False
    return True


def _one(snapshot_id):
    return f'{_ALL}/{parse.quote(snapshot_id, safe="")}'


def _given(values):
    return {key: value for key, value in values.items() if value is not None}


def _next(page):
    """The query of the next page; None where there is none."""
    for link in page.get('server_group_snapshots_links', ()):
        if link['rel'] == 'next':
            return dict(parse.parse_qsl(parse.urlsplit(link['href']).query))
    return None


def _snapshot(answer):
    return records.snapshot(answer['server_group_snapshot'])


def _acts(snapshot):
    action = snapshot.last_action
    return snapshot.status == 'restoring' or (
        snapshot.status != 'error' and bool(action) and action.status == 'running')


def _sound(found, snapshot_id):
    if found is None:
        raise exceptions.ResourceFailure(f'Snapshot {snapshot_id} was deleted')
    if found.status == 'error':
        raise _failure(f'Snapshot {found.name} failed', found.error)
    return found


def _failure(what, error):
    return exceptions.ResourceFailure(
        f'{what}: {error.message} ({error.code})' if error else what)
