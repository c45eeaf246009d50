# SPDX-License-Identifier: Apache-2.0
"""Each unfinished state of abc6900, as its code comes to it; run by `make`, in that code.

A state's function returns where the process is to be killed. A state that is made from another
begins with a restart, or where ``starts`` is false with nothing that runs.
"""

import json
import os
import signal
import sys

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, restore
from tests.unit.upgrade.scene import Scene, until

_STATES: dict[str, tuple] = {}


def state(on: str = 'new', starts: bool = True, **options):
    """A state, named as the function, made from state ``on``; options are the scene's."""
    def register(function):
        _STATES[function.__name__.replace('_', '-')] = function, on, starts, options
        return function
    return register


@state(on='')
def new(scene):
    """Nothing was ever asked for."""


# -- a snapshot that is being made ---------------------------------------------------------------


@state()
def snapshot_created(scene):
    """No host has heard of it."""
    point = scene.before(drive.Drive, 'start')
    scene.create()
    point.wait()


@state()
def snapshot_prepare(scene):
    """h2 is prepared, h1 is about to."""
    point = scene.before(scene.h1.engine, 'prepare')
    scene.create()
    point.wait()
    scene.phase(scene.h2, 'prepared')


def _record(scene, create):
    point = scene.before(scene.h2.engine, '_begin', lambda method, _: method == 'record_member')
    create()
    point.wait()
    scene.phase(scene.h1, 'recorded')


@state()
def snapshot_record(scene):
    """h1 has recorded, h2 is at it: all gates are closed."""
    _record(scene, scene.create)


@state()
def snapshot_record_barrier(scene):
    """The same; all guests are suspended."""
    _record(scene, lambda: scene.create(gate='barrier'))


@state(max_hold_ms=200)
def snapshot_spoiled(scene):
    """A gate of h2 was closed for too long, and h2 has cleaned up; nobody knows yet."""
    point = scene.before(scene.h1.engine, 'record')
    scene.create()
    point.wait()
    scene.phase(scene.h2, 'spoiled')


@state()
def snapshot_release(scene):
    """All have recorded, release is decided, and no host has heard of it."""
    point = scene.after_write(decision='release')
    scene.create()
    point.wait()


@state()
def snapshot_release_halfway(scene):
    """h1 has opened its gates, h2 is about to."""
    point = scene.before(scene.h2.engine, 'release')
    scene.create()
    point.wait()
    scene.phase(scene.h1, 'released')


@state()
def snapshot_save(scene):
    scene.save(scene.h1, scene.h2)


@state(on='snapshot-save', starts=False)
def snapshot_save_set_error(scene):
    """An operator has set the status."""
    scene.database.set_status(scene.row.id, 'error')


@state(on='snapshot-save', starts=False)
def snapshot_save_abort(scene):
    """Its user has asked another coordinator to give it up, and its own does not know yet."""
    scene.database.request_abort(scene.row.id, 'aborted by its user')


@state()
def snapshot_save_halfway(scene):
    """h2 has saved, h1 is at it."""
    scene.save(scene.h1)


@state()
def snapshot_saved(scene):
    """All have saved, and nothing is decided."""
    point = scene.before_write(decision='finish')
    scene.save()
    point.wait()


@state(on='snapshot-saved', starts=False)
def snapshot_finish(scene):
    """It is decided that it is available, and no host has heard of it."""
    point = scene.after_write(decision='finish')
    scene.start()
    point.wait()


@state(on='snapshot-finish', starts=False)
def snapshot_finish_halfway(scene):
    """h1 has published for both, h2 is about to."""
    point = scene.before(scene.h2.engine, 'finish')
    scene.start()
    point.wait()
    until(lambda: not scene.h1.phases())


@state(apart=True)
def snapshot_finish_halfway_apart(scene):
    """Each host has a store of its own: h1 has published its part, h2 is about to."""
    point = scene.before(scene.h2.engine, 'finish')
    scene.cells.groups['g'].remove('b')
    scene.create()
    point.wait()
    until(lambda: not scene.h1.phases())


def _add_rival(scene, *hosts):
    """These are about to publish, and a newer one of the group is refused and discarded."""
    points = [scene.before(host.engine, 'finish') for host in hosts]
    scene.start()
    for point in points:
        point.wait()
    scene.create()
    until(lambda: scene.row.closed and not scene.row.lease_owner and not scene.trash())


@state(on='snapshot-finish', starts=False)
def snapshot_finish_rival(scene):
    _add_rival(scene, scene.h1, scene.h2)


@state(on='snapshot-finish-halfway', starts=False)
def snapshot_finish_halfway_rival(scene):
    _add_rival(scene, scene.h2)


@state(on='snapshot-finish', starts=False)
def snapshot_finish_open(scene):
    """All have published; the row does not say so."""
    point = scene.before_write(decision='finish', closed=True)
    scene.start()
    point.wait()


@state(on='snapshot-finish-open')
def available(scene):
    until(lambda: scene.row.status == 'available' and not scene.row.lease_owner)


@state(on='snapshot-finish-halfway-apart', apart=True)
def available_apart(scene):
    until(lambda: scene.row.status == 'available' and not scene.row.lease_owner)


@state()
def snapshot_discard(scene):
    """h2 failed to record, discard is decided, and h1 has not heard of it."""
    scene.h2.engine.faults['record_member'] = exception.TargetFailed(
        member='c', device='vda', reason='is full')
    point = scene.after_write(decision='discard')
    scene.create()
    point.wait()


@state()
def snapshot_discard_halfway(scene):
    """Its user gave it up: h1 has discarded it, h2 is about to."""
    point = scene.before(scene.h2.engine, 'discard')
    scene.save(scene.h1, scene.h2)
    scene.api.abort(scene.row.id)
    point.wait()
    until(lambda: not scene.h1.phases())


@state(on='snapshot-discard-halfway', starts=False)
def snapshot_discard_halfway_shown(scene):
    """The same, after a time: it is shown as failed although h2 has not answered."""
    assert scene.database.show_discarded(scene.row.id)


@state()
def snapshot_discard_open(scene):
    """All have discarded it; the row does not say so."""
    point = scene.before_write(decision='discard', closed=True)
    scene.save(scene.h1, scene.h2)
    scene.api.abort(scene.row.id)
    point.wait()


# -- a snapshot that is being restored -----------------------------------------------------------


def _halfway(scene, step, begin=None):
    """h1 has done a step, and h2 is about to, which it is when the point goes on."""
    done, point = scene.did(scene.h1, f'restore_{step}'), scene.before(
        scene.h2.engine, f'restore_{step}')
    (begin or scene.restore)()
    done.wait()
    point.wait()
    if step in ('undo', 'finish'):
        until(lambda: not scene.h1.left())
    return point


@state(on='available')
def restore_begun(scene):
    """No host has heard of it."""
    point = scene.before(restore.Restore, 'carry_out')
    scene.restore()
    point.wait()


@state(on='available')
def restore_prepare(scene):
    _halfway(scene, 'prepare')


@state(on='available')
def restore_stop(scene):
    _halfway(scene, 'stop')


@state(on='restore-stop', starts=False)
def restore_stop_set_available(scene):
    """An operator has set the status."""
    scene.database.set_status(scene.row.id, 'available')


@state(on='available')
def restore_start(scene):
    _halfway(scene, 'start')


@state(on='available')
def restore_start_moved(scene):
    """Since the cut b and c have changed places."""
    scene.cells.changes |= {'b': {'host': 'h2'}, 'c': {'host': 'h1'}}
    _halfway(scene, 'start')


@state(on='available')
def restore_started(scene):
    """All stand at the cut, and nothing is decided."""
    point = scene.before(restore.Restore, '_write', _is_decided)
    scene.restore()
    point.wait()


@state(on='available')
def restore_decided(scene):
    """All stand at the cut, and no host has heard of the decision."""
    point = scene.after(restore.Restore, '_write', _is_decided)
    scene.restore()
    point.wait()


@state(on='available')
def restore_resume(scene):
    _halfway(scene, 'resume')


@state(on='available')
def restore_resume_moved(scene):
    scene.cells.changes |= {'b': {'host': 'h2'}, 'c': {'host': 'h1'}}
    _halfway(scene, 'resume')


@state(on='available')
def restore_resumed(scene):
    """All run."""
    point = scene.before(restore.Restore, '_do',
                         lambda _self, step, *_, **_more: step == 'finish')
    scene.restore()
    point.wait()


@state(on='available')
def restore_finish(scene):
    _halfway(scene, 'finish')


@state(on='available')
def restore_finished(scene):
    """All hosts have ended it; the row does not say so."""
    point = scene.before(restore.Restore, '_end')
    scene.restore()
    point.wait()


def _fail_to_start(scene):
    scene.h2.engine.faults['restore_start'] = exception.HypervisorError(
        member='c', reason='no memory')


@state(on='available')
def restore_undo(scene):
    """h2 failed to start its member: h1 has undone its part, h2 is about to."""
    _fail_to_start(scene)
    _halfway(scene, 'undo')


@state(on='available')
def restore_undone(scene):
    """All have undone their part; the row does not say so."""
    _fail_to_start(scene)
    point = scene.before(restore.Restore, '_end')
    scene.restore()
    point.wait()


@state(on='available')
def verify(scene):
    point = scene.before(scene.h2.store, 'verify')
    scene.begin(scene.api.verify, scene.row.id)
    point.wait()


def _is_decided(restoring, **_columns):
    return restoring._plan['step'] == 'decided'


# -- the command hotsnap -------------------------------------------------------------------------


@state()
def hotsnap_record(scene):
    _record(scene, lambda: scene.begin(scene.cluster.snapshots.create, scene.cluster.request()))


def _by_command(scene, paused):
    return lambda: scene.begin(scene.cluster.snapshots.restore, scene.row.id, paused)


@state(on='available')
def hotsnap_restore_start(scene):
    _halfway(scene, 'start', _by_command(scene, False))


@state(on='available')
def hotsnap_restore_paused_start(scene):
    """Members are to stand at the cut when it is over."""
    _halfway(scene, 'start', _by_command(scene, True))


@state(on='available')
def hotsnap_restore_paused_decided(scene):
    point = scene.after(restore.Restore, '_write', _is_decided)
    _by_command(scene, True)()
    point.wait()


@state(on='available')
def hotsnap_restore_paused_finish(scene):
    _halfway(scene, 'finish', _by_command(scene, True))


# -- a deletion ----------------------------------------------------------------------------------


@state(on='available-apart', apart=True)
def delete(scene):
    """h1 has deleted its part, h2 is about to."""
    point = scene.before(scene.h2.store, 'delete')
    scene.api.delete(scene.row.id, False)
    point.wait()
    until(lambda: not scene.h1.store.list() and not scene.trash())


@state(on='available-apart', apart=True)
def delete_failed(scene):
    """h2 did not answer: its user is to ask again."""
    scene.h2.silence()
    scene.api.delete(scene.row.id, False)
    until(lambda: scene.row.status == 'error_deleting')


@state(on='available')
def delete_failed_restore(scene):
    """By force, in the middle of a restore that h2 failed to undo."""
    point = _halfway(scene, 'start')
    scene.h2.engine.faults['restore_undo'] = exception.HypervisorError(
        member='c', reason='it hangs')
    scene.api.delete(scene.row.id, True)
    point.goes_on.set()
    until(lambda: scene.row.status == 'error_deleting' and not scene.h1.left())


@state()
def delete_failed_save(scene):
    """By force, while it was saved: the store of h2 failed when all had discarded it."""
    def fail(_snapshot):
        raise exception.StoreUnavailable(store='store', reason='it hangs')
    scene.h2.store.delete = fail
    scene.save(scene.h1, scene.h2)
    scene.api.delete(scene.row.id, True)
    until(lambda: scene.row.status == 'error_deleting')


def _force_delete(name, on, **options):
    def begin(scene):
        """By another coordinator; no host has heard of it."""
        scene.cluster.snapshots.deleting(scene.row, force=True).begin()
    begin.__name__ = name
    state(on, starts=False, **options)(begin)


for _name, _on in (('', 'available'), ('_record', 'snapshot-record-barrier'),
                   ('_save', 'snapshot-save'), ('_discard', 'snapshot-discard-halfway'),
                   ('_restore', 'restore-start'), ('_restore_decided', 'restore-resume')):
    _force_delete(f'force_delete{_name}', _on)
_force_delete('force_delete_finish', 'snapshot-finish-halfway-apart', apart=True)


# -- what a host owes that is away ---------------------------------------------------------------


def _lose_h2(scene, *kinds):
    """h2 is away from now on; what is called returns when it owes these."""
    scene.h2.silence()
    return lambda: until(lambda: {each.kind for each in scene.database.errands('h2')} == {
        *kinds} and not any(each.lease_owner for each in scene.database.list()))


@state(on='available')
def errand_undo(scene):
    """h2 went away as it was to start its member."""
    _halfway(scene, 'start')
    _lose_h2(scene, 'restore')()


@state(on='available')
def errand_undo_moved(scene):
    scene.cells.changes |= {'b': {'host': 'h2'}, 'c': {'host': 'h1'}}
    _halfway(scene, 'start')
    _lose_h2(scene, 'restore')()


@state(on='available')
def errand_resume(scene):
    """h2 went away as it was to resume its member."""
    _halfway(scene, 'resume')
    _lose_h2(scene, 'restore')()


@state(on='available')
def errand_finish_paused(scene):
    """Members were to stand at the cut."""
    restoring = scene.service.snapshots.restoring(scene.row)
    _halfway(scene, 'finish', lambda: scene.begin(restoring.run, True))
    _lose_h2(scene, 'restore')()


@state()
def errand_discard(scene):
    """Deleted by force while it was saved."""
    scene.save(scene.h1, scene.h2)
    ended = _lose_h2(scene, 'message', 'delete')
    scene.api.delete(scene.row.id, True)
    ended()


def _owe_publishing(scene):
    ended = _lose_h2(scene, 'message', 'delete')
    scene.h1.start()
    scene.service.start()
    scene.api.delete(scene.row.id, True)
    ended()


@state(on='snapshot-finish-halfway', starts=False)
def errand_publish(scene):
    """Deleted by force when h1 had published for both, of which h2 has not heard."""
    _owe_publishing(scene)


@state(on='snapshot-finish-halfway-apart', starts=False, apart=True)
def errand_publish_apart(scene):
    """Deleted by force when h1 had published its part, and h2 had not."""
    _owe_publishing(scene)


@state(on='available-apart', apart=True)
def errand_delete(scene):
    ended = _lose_h2(scene, 'delete')
    scene.api.delete(scene.row.id, True)
    ended()


@state(on='available')
def errand_undo_delete(scene):
    """Deleted by force as h2, which is away, was to start its member."""
    _halfway(scene, 'start')
    ended = _lose_h2(scene, 'restore', 'delete')
    scene.api.delete(scene.row.id, True)
    ended()


@state(on='available')
def errand_resume_delete(scene):
    """Deleted by force as h2, which is away, was to resume its member."""
    _halfway(scene, 'resume')
    ended = _lose_h2(scene, 'restore', 'delete')
    scene.api.delete(scene.row.id, True)
    ended()


def _depth(on):
    """How many states it is made from, one from the other."""
    return 1 + _depth(_STATES[on][1]) if on else 0


def main():
    if len(sys.argv) == 1:
        print(json.dumps({name: on for name, (_, on, *_) in _STATES.items()}))
        return
    name, folder = sys.argv[1:]
    function, on, starts, options = _STATES[name]
    scene = Scene(folder, _depth(on), **options)
    if starts:
        scene.start()
    function(scene)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    main()
