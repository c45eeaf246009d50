# SPDX-License-Identifier: Apache-2.0
"""The participant as a part of nova-compute: comes and goes with it, and never takes it down.

It answers on topics of its own with threads of its own: a message that comes while
gates are closed must not queue behind what nova-compute is at.
"""

import os
import threading

from nova import exception as nova_exception
from nova import rpc as nova_rpc
from nova.compute import task_states
from oslo_log import log as logging

from hotsnap_nova import exception

LOG = logging.getLogger(__name__)

#: How long until Nova's conductor, or libvirt, is asked again.
_RECOVER_EVERY_S = 5.0
#: What is on record may not be readable for a moment: so many times, after so long, again.
_READ_AGAIN = 3
_READ_AGAIN_S = 1.0
#: nova-compute waits so long for ours to clean up before it goes on; a QEMU may hang.
_START_S = 60.0
#: What is being answered has so long to end when nova-compute does; a QEMU or a store may hang.
_END_S = 30.0


class Participation:
    """Ours in one nova-compute."""

    def __init__(self):
        self._manager = None
        self._server = None
        self._ended = threading.Event()
        self._state_path = None
        self._mutex = threading.Lock()

    @property
    def answers(self) -> bool:
        """Whether this host takes part in snapshots."""
        return self._server is not None

    def start(self, conf, host: str, uri: str, instances, definitions) -> None:
        """Clean up what a dead predecessor left, then answer; where it cannot, log why.

        :param conf: group ``[hotsnap]``
        :param instances: the owner of this host's guests
        :param definitions: what restored ones are started with
        """
        self._state_path = os.path.abspath(conf.state_path)
        starting = threading.Thread(
            target=self._start, args=(conf, host, uri, instances, definitions), daemon=True,
            name='hotsnap-start')
        starting.start()
        starting.join(_START_S)
        if starting.is_alive():
            LOG.error('Cleaning up for snapshots of server groups takes long; this host answers '
                      'them when it is done')

    def stop(self) -> None:
        """Give up what is under way, and end."""
        with self._mutex:
            self._ended.set()
            server, manager = self._server, self._manager
            self._server = self._manager = None
        if not manager:
            return
        if not server:    # what is starting it still ends it
            _give_up(manager)
            return
        # Guests may stand still, or have their gates closed: they do not wait for what hangs.
        ended = []
        closing = threading.Thread(target=lambda: ended.append(server.close(_END_S)),
                                   daemon=True, name='hotsnap-close')
        closing.start()
        _give_up(manager)
        closing.join()
        _give_up(manager)    # what came in between
        if ended == [True]:
            manager.stop()
        else:    # it may still work on guests, whose locks go when the process does
            LOG.warning('Work on snapshots of server groups hangs; it ends with the process')

    def withdraw(self, instance, why: str) -> None:
        """Nova needs the guest: a snapshot under way is given up first. Never raises."""
        if self._manager:
            try:
                self._manager.withdraw(instance.uuid, why)
            except Exception:
                LOG.exception('A snapshot of its group does not let go of it', instance=instance)

    def refuse_while_busy(self, instance, method: str) -> None:
        """Nothing, where no snapshot or restore holds the guest.

        :raises InstanceInvalidState: one does
        """
        if self._manager and self._manager.holds(instance.uuid):
            raise nova_exception.InstanceInvalidState(
                instance_uuid=instance.uuid, attr='group snapshot', state='in progress',
                method=method)

    def restores(self, instance) -> bool:
        """Whether a restore has this guest, be it one that a dead predecessor began."""
        try:
            under_way = self._under_way().values()
            if any(instance.uuid in members for members in under_way if members is not None):
                return True
            if None not in under_way:
                return False
        except Exception:
            LOG.exception('Which restore has it cannot be known', instance=instance)
        return instance.task_state == task_states.RESTORING

    def _under_way(self):
        if self._state_path is None:
            return {}
        from hotsnap_nova.compute import locks, orders
        return orders.Orders(
            self._state_path, locks.Locks(f'{self._state_path}/locks')).under_way()

    def _under_way_after_a_while(self):
        """What cannot be read then is for the participant, which comes next, to deal with."""
        for _ in range(_READ_AGAIN):
            under_way = self._under_way()
            if None not in under_way.values():
                return under_way
            self._ended.wait(_READ_AGAIN_S)
        return self._under_way()

    def _recover(self, instances):
        while not self._ended.is_set():
            try:
                instances.recover(self._under_way_after_a_while())
                return
            except exception.Unavailable as exc:
                LOG.warning('Instances that a restore held are looked for again in %(wait_s)d s: '
                            '%(error)s', {'wait_s': _RECOVER_EVERY_S, 'error': exc})
                self._ended.wait(_RECOVER_EVERY_S)

    def _start(self, conf, host, uri, instances, definitions):
        try:
            self._recover(instances)
        except Exception:
            LOG.exception('Instances may be left with a task of a restore that was interrupted')
        try:
            # Here, not above: what is not installed must not keep nova-compute from its work.
            from hotsnap_nova.compute import endpoint, service
            from hotsnap_nova.compute import server as servers
            from hotsnap_nova.nova import files
            manager = service.open_manager(conf, host=host, uri=uri, guests_owner=instances,
                                           definitions=definitions, files=files.Files())
            with self._mutex:
                # Before it works on guests: Nova may not have waited for that to end.
                self._manager = manager
            manager.start()
            server = servers.Server(nova_rpc.TRANSPORT, host, endpoint.Endpoint(manager),
                                    conf.compute_threads)
            with self._mutex:
                if self._ended.is_set():
                    self._manager = None
                    manager.stop()
                    return
                server.start()
                self._server = server
        except Exception as exc:
            LOG.error('This host takes no part in snapshots of server groups until nova-compute '
                      'is started again: %s', exc, exc_info=True)


def _give_up(manager):
    try:
        manager.withdraw_all('nova-compute is stopped')
    except Exception:
        LOG.exception('Not every snapshot under way could be given up; the next nova-compute '
                      'will clean up')
