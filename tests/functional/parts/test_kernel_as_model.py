# SPDX-License-Identifier: Apache-2.0
"""The gate in the host kernel does to packets what the model of the protocol says, step by step.

Two members of the model and two devices go through the same steps, drawn by lot; after each, what
the second one's guest has been given is compared: which packets, in which order, with which marks.
"""

import dataclasses
import random

import pytest

from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.messages import Gate
from hotsnap_nova.virt.gates import kernel, marks, word
from tests.functional import frames, wires

LONG_MS = 60_000
ROOM = 6
EPOCH = 5
#: What the packets of a few epochs carry.
CODES = {cut.mark_of(EPOCH): 11, cut.mark_of(EPOCH - 1): 27, 0: 0}
#: A guest's own, which bars a mark.
OWN = 46
MEMBERS = (marks.Address(wires.GUEST_MAC.hex(':'), frames.GUEST_IPS),
           marks.Address(wires.PEER_MAC.hex(':'), frames.PEER_IPS))


class Model:
    """What the protocol promises of a sender and a receiver; gives what the latter's guest got."""

    def __init__(self):
        self.sender, self.receiver = (
            cut.DataPath(name, epoch=EPOCH - 1, room=ROOM).arm(EPOCH, Gate.MARKER)[0]
            for name in 'ab')

    def send(self, number, markable):
        self.sender, effects = self.sender.send(cut.Packet('a', 'b', number, markable))
        return self._cross(effects)

    def cut_sender(self):
        for step in cut.record_steps(Gate.MARKER):
            self.sender, _ = getattr(self.sender, step)()
        return []

    def release_sender(self):
        self.sender, effects = self.sender.open()
        return self._cross(effects)

    def cut_receiver(self):
        given = []
        for step in cut.record_steps(Gate.MARKER):
            self.receiver, effects = getattr(self.receiver, step)()
            given += _given(effects)
        return given

    def stray(self, number, mark):
        return self._cross((cut.Emit(cut.Packet('a', 'b', number, mark=mark)),))

    def _cross(self, effects):
        given = []
        for effect in effects:
            self.receiver, more = self.receiver.arrive(effect.packet)
            given += _given(more)
        return given

    @property
    def keeps(self):
        return self.receiver.keeping

    @property
    def overflowed(self):
        return self.sender.overflowed or self.receiver.overflowed


def _given(effects):
    return [(effect.packet.number, OWN if not effect.packet.markable else
             CODES[effect.packet.mark]) for effect in effects if isinstance(effect, cut.Deliver)]


class Kernel:
    """The same of two devices."""

    def __init__(self, wire):
        self._wire = wire
        codes = tuple(code for code in CODES.values() if code)
        marker = marks.Marker(CODES[cut.mark_of(EPOCH)], codes, MEMBERS, LONG_MS)
        self.sender, self.receiver = (
            kernel.KernelGate('test', (name,), marker=marker, packets=ROOM)
            for name in (wires.GUEST, wires.PEER))

    def send(self, number, markable):
        return self._sent(frames.numbered(number, 0 if markable else OWN))

    def cut_sender(self):
        self.sender.word.close_gate(LONG_MS)
        return self._given()

    def release_sender(self):
        self.sender.word.release()
        self.sender.put_back()
        return self._given()

    def cut_receiver(self):
        self.receiver.inward_way.word.release()
        self.receiver.inward_way.put_back()
        return self._given()

    def stray(self, number, mark):
        return self._sent(frames.numbered(number, CODES[mark]))

    def _sent(self, frame):
        self._wire.send(frame)
        return self._given()

    def _given(self):
        return [(frames.number_of(frame), frames.dscp_of(frame))
                for frame in self._wire.receive()]

    @property
    def keeps(self):
        return self.receiver.inward_way.word.state is word.State.CLOSED

    @property
    def overflowed(self):
        return any(counters.overflow for way in (self.sender, self.receiver.inward_way)
                   for counters in way.counters())

    def close(self):
        self.sender.close()
        self.receiver.close()


def script(seed):
    """Some packets, with both cuts and the release among them, in one of the orders possible."""
    chance = random.Random(seed)
    ends = ['cut_sender', 'release_sender']
    # In time: nobody is released before all are past their cut.
    ends.insert(chance.randint(0, 1), 'cut_receiver')
    for end in (*ends, ''):
        for _ in range(chance.randint(0, 12)):
            if chance.random() < 0.2:
                yield 'stray', chance.choice(list(CODES))
            else:
                yield 'send', chance.random() < 0.7
        if end:
            yield (end,)


@dataclasses.dataclass
class Lived:
    """What the scripts brought about, all together."""

    kept: int = 0
    overflowed: int = 0


@pytest.mark.parametrize('kind', wires.KINDS)
def test_both_give_a_guest_the_same_at_each_step(kind):
    lived = Lived()
    for seed in range(12):
        with wires.own_network():
            wire = wires.KINDS[kind]()
            model, real = Model(), Kernel(wire)
            past = []
            for number, (step, *how) in enumerate(script(seed)):
                if step == 'stray' and model.sender.closed:
                    step, how = 'send', [True]    # it would be one of its sender's own, and held
                words = [number, *how] if how else []
                past.append((step, *words))
                expected = getattr(model, step)(*words)

                assert getattr(real, step)(*words) == expected, (seed, past)
                assert real.keeps == model.keeps, (seed, past)
                assert real.overflowed == model.overflowed, (seed, past)
                lived.kept += model.keeps
            lived.overflowed += model.overflowed
            real.close()
            wire.close()

    assert lived.kept > 20
    assert lived.overflowed > 1
