# SPDX-License-Identifier: Apache-2.0
"""The fake engine's guests for the restore suite."""

from hotsnap_nova import exception
from hotsnap_nova.virt import records
from tests.fakes import engine, restorer

_SNAPSHOT = 's1'


class Rig:
    """Guests ``a`` and ``b``.

    :ivar engine: anew whenever it is asked for, as after a restart of the service
    """

    def __init__(self, path):
        self._world = engine.World(path)
        self._without_memory: set[str] = set()
        for name in 'ab':
            self._world.add(name)

    @property
    def engine(self) -> engine.Engine:
        made = engine.Engine(self._world)
        made.faults['load'] = self._read_memory
        return made

    def _read_memory(self, name):
        if name in self._without_memory:
            raise exception.HypervisorError(member=name, reason='restore: no such file')

    def work(self, *names: str, restore_id: str = 'r1', **more) -> records.RestoreWork:
        """Of these guests, by their names."""
        return records.RestoreWork(_SNAPSHOT, restore_id, tuple(
            records.RestoreMember(self._world.spec(name), '', {}) for name in names), **more)

    def id(self, name: str) -> str:
        return str(engine.uuid.uuid5(engine.NAMESPACE, name))

    # -- what there is -------------------------------------------------------------------------

    def state(self, name: str) -> str:
        return self._world.guest(name)['state']

    def disk(self, name: str) -> str:
        """Whose disk is in its place: ``own`` or ``cut``."""
        return self._whose(name, self._world.guest(name)['files']['disk'])

    def opened(self, name: str) -> str:
        """Whose disk its QEMU has open: ``own`` or ``cut``; '' without one."""
        number = self._world.guest(name)['open']
        return self._whose(name, number) if number else ''

    def file(self, name: str, what: str = '') -> str:
        """How a member's disk is called, or what restore ``r1`` has put beside it."""
        return f'{what}-r1' if what else 'disk'

    def beside(self, name: str) -> dict[str, str]:
        """What a restore has put beside it, without its id, and whose disk it is or ''."""
        guest = self._world.guest(name)
        found = {what.split('-')[0]: self._whose(name, number)
                 for what, number in guest['files'].items() if '-' in what}
        return found | {what: '' for what in ('stopped', 'loading', 'resumed') if guest[what]}

    def starts(self, name: str) -> int:
        """How often its QEMU was started."""
        return self._world.guest(name)['starts']

    def _whose(self, name, number):
        content = self._world.guest(name)['inodes'][str(number)]['of']
        return 'cut' if content == _SNAPSHOT else content

    # -- what its owner and fate do ------------------------------------------------------------

    def boot(self, name: str) -> None:
        """Its owner starts it from its disk, and it writes."""
        self._world.boot(name)

    def pause(self, name: str) -> None:
        self._set(name, state='paused')

    def go_on(self, name: str) -> None:
        self._set(name, state='running')

    def stop(self, name: str) -> None:
        self._set(name, state='shut off', off_reason='destroyed')

    def kill(self, name: str) -> None:
        """Its QEMU dies, as when memory is short."""
        assert self.state(name) in restorer.ACTIVE
        self._world.kill(name)

    def delete(self, name: str) -> None:
        """Its owner deletes it, and its files."""
        with self._world.open() as guests:
            del guests[name]

    def undefine(self, name: str) -> None:
        """It is ended and libvirt forgets it; its files stay."""
        self._set(name, defined=False, state='shut off', off_reason='destroyed')

    def evacuate(self, name: str) -> None:
        """It is gone here, and another host runs it from its disk, which both hosts see."""
        self.undefine(name)
        self.boot(name)

    def replace(self, name: str) -> None:
        """There is another file in the place of its disk; it is off."""
        self._add_file(name, 'disk')

    def redefine(self, name: str) -> None:
        """Its definition names another disk; it is off."""
        self._add_file(name, 'other')
        self._set(name, named='other')

    def lose_memory(self, name: str) -> None:
        """The snapshot's memory of it is gone."""
        self._without_memory.add(name)

    def _add_file(self, name, path):
        with self._world.open() as guests:
            guests[name]['files'][path] = restorer.make_inode(guests[name], 'other')

    def _set(self, name, **values):
        with self._world.open() as guests:
            guests[name].update(values)
