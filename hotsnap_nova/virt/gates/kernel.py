# SPDX-License-Identifier: Apache-2.0
"""A gate in the host kernel: :file:`gate.bpf.c` at the network devices of guests.

It belongs to the holder's process; others have its :class:`word.Word`.
"""

import contextlib
import pathlib
import socket

from hotsnap_nova.virt.gates import bpf, holder, hooks, marks, way

#: Made from the source beside it when the wheel is built.
OBJECT = pathlib.Path(__file__).with_name('gate.bpf.o')
_ZERO = bytes(4)


class KernelGate(way.Way):
    """One gate, for one or more NICs, armed: everything passes until its word is changed.

    Itself it is the way outward.

    :ivar inward_way: the other, of a gate that marks; its word goes from armed to closed when a
        mark comes
    :param tag: by which a later process knows whose it was
    :param nics: names of guests' network devices on the host, taps or macvtaps
    :param marker: marks what goes straight to members; without one all is held
    :raises bpf.GateUnavailable: nothing of it is left
    """

    def __init__(self, tag: str, nics: tuple[str, ...], *, marker: marks.Marker | None = None,
                 packets: int = holder.LIMIT_PACKETS, size: int = holder.LIMIT_BYTES):
        with contextlib.ExitStack() as undo:
            loaded = bpf.Loaded(object_path())
            undo.callback(loaded.close)
            super().__init__(loaded, tag, (packets, size))
            undo.callback(super().close)
            self.inward_way = None
            if marker:
                self.inward_way = way.Way(loaded, tag, (packets, size), inward=True)
                undo.callback(self.inward_way.close)
                for key in marker.members():
                    bpf.update(loaded.map('members'), key, bytes(4))
                bpf.update(loaded.map('markers'), _ZERO, marker.packed())
            for name in nics:
                nic = _nic(name)
                # Before anything is at the device, so that nothing of it stays there.
                undo.callback(remove, name, tag)
                self.add(nic)
                if self.inward_way:
                    self.inward_way.add(nic)
            self._all = undo.pop_all()

    @property
    def map_fd(self) -> int:
        """By which another process has the words too; ours, not to close."""
        return self._loaded.map('gates')

    def marked(self) -> marks.Marked:
        """What a gate that marks has done so far."""
        return marks.counted(bpf.lookup(self._loaded.map('markers'), _ZERO, marks.SIZE))

    def bypassed(self) -> tuple[str, ...]:
        """NICs at which somebody took a program of ours out since, or came before it.

        :raises bpf.GateUnavailable: nobody can say
        """
        places = self.places + (self.inward_way.places if self.inward_way else ())
        found = dict.fromkeys(hooks.displaced(places, self.tag))
        return tuple(self._nics[ifindex].name for ifindex in found)

    def close(self) -> None:
        """Take it all out; what is still held is gone. Repeatable."""
        self._all.close()


def _nic(name):
    try:
        ifindex = socket.if_nametoindex(name)
    except OSError as exc:
        raise bpf.GateUnavailable(reason=f'there is no device {name}') from exc
    return way.Nic(ifindex, name, hooks.by_ingress(ifindex))


def object_path() -> str:
    """Where the programs are.

    :raises bpf.GateUnavailable: this package was built without
    """
    if not OBJECT.exists():
        raise bpf.GateUnavailable(
            reason=f'this package was built without {OBJECT.name}, where there was no clang')
    return str(OBJECT)


def leftovers(device: str) -> tuple[str, ...]:
    """Tags of gates at a device, whatever process put them there; none where it is gone."""
    return tuple({hook.name for hook in _hooks_at(device)})


def remove(device: str, tag: str | None = None) -> None:
    """Take out what any process left at a device; what others have there stays. Repeatable.

    :param tag: this gate's alone
    :raises bpf.GateUnavailable: something is still there
    """
    with contextlib.ExitStack() as steps:    # each, whatever another's failure
        # Last who brought the qdisc, which goes if nobody else is in it; steps go backwards.
        for hook in sorted(_hooks_at(device), key=lambda hook: not hook.brought_qdisc):
            if tag in (None, hook.name):
                steps.callback(hooks.detach, hook)


def _hooks_at(device):
    try:
        ifindex = socket.if_nametoindex(device)
    except OSError:
        return ()
    return hooks.leftovers(ifindex)
