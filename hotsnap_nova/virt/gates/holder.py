# SPDX-License-Identifier: Apache-2.0
"""The process that has the gates in the host kernel, and puts back what they held.

It outlives the service by design; see `outliving`. A gate is there from ``arm`` to ``disarm``; in
between whoever armed it closes and releases it by its word, without asking anybody. When a
lease ends, and when standard input closes, which the kernel does for a participant that dies, it
puts back what is held by itself. Should it die itself, what was held is gone and the rest flows
when the lease ends: that much the kernel does alone.

Lines of JSON on standard input, answered on the same socket, each by its number::

    {"arm": TAG, "nics": [[NAME, INGRESS] …], "packets": N, "bytes": N, "number": N}
                                        with a descriptor of the gate's word
    {"released": TAG}                   not answered: the word has been changed
    {"put_back": TAG, "number": N}      what it did, once all of that is on its way
    {"disarm": TAG, "number": N}        all of it is out; what it did

An answer has ``error`` where that failed.
"""

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time

from hotsnap_nova import exception
from hotsnap_nova.virt import outliving
from hotsnap_nova.virt.gates import bpf, word

_ANSWER_S = 30.0
#: What a NIC may have waiting; beyond it packets are dropped, and counted.
LIMIT_PACKETS, LIMIT_BYTES = 20_000, 256 << 20


@dataclasses.dataclass(frozen=True)
class Account:
    """What a gate did, all NICs together; packets.

    :ivar overflow: dropped, for more were held than may be
    :ivar lost: held, and not taken back by the kernel
    :ivar outstanding: held and not put back so far
    :ivar lapsed: passed because the lease had ended: it opened by itself
    """

    held: int
    delivered: int
    overflow: int
    lost: int
    outstanding: int
    lapsed: int


class Holder:
    """The participant's end of one holder process; used by any thread."""

    def __init__(self):
        self._lock, self._saying = threading.Lock(), threading.Lock()
        self._asked = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = outliving.start('hotsnap_nova.virt.gates.holder', purpose='holder',
                                            stdin=theirs, stdout=subprocess.DEVNULL)
        self._socket.settimeout(_ANSWER_S)
        self._rest = b''

    @property
    def pid(self) -> int:
        return self._process.pid

    def arm(self, tag: str, nics: tuple[tuple[str, bool], ...], packets: int = LIMIT_PACKETS,
            size: int = LIMIT_BYTES) -> word.Word:
        """Put an open gate at these devices; nothing changes for their packets.

        :param nics: name on the host, and whether the guest's packets come in by its ingress
        :param packets: so many, and ``size`` bytes, may a NIC have held
        :raises exception.HotsnapError: no gate is there
        """
        _, handed = self._ask({'arm': tag, 'nics': nics, 'packets': packets, 'bytes': size})
        return word.Word(handed)

    def released(self, tag: str) -> None:
        """The gate's word has been changed: what it held is to go on its way. Not waited for.

        :raises exception.HotsnapError: nobody will see to it
        """
        self._say({'released': tag})

    def put_back(self, tag: str) -> Account:
        """What a released gate did, once what it held is on its way. Repeatable.

        :raises exception.HotsnapError: nobody can say what became of it
        """
        answer, _ = self._ask({'put_back': tag})
        return Account(**answer['account'])

    def disarm(self, tag: str) -> None:
        """Put back what it holds and take it out. Repeatable."""
        self._ask({'disarm': tag})

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it; gates that are still there are disarmed."""
        self._socket.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, words: dict) -> tuple[dict, int | None]:
        with self._lock:
            self._asked += 1
            self._say(words | {'number': self._asked})
            with _told():
                answer, handed = self._answer()
        if 'error' in answer:
            raise bpf.GateUnavailable(answer['error'])
        return answer, handed

    def _say(self, words: dict) -> None:
        with _told(), self._saying:
            self._socket.sendall(json.dumps(words).encode() + b'\n')

    def _answer(self):
        """The answer to what was asked last; late ones to what was given up are passed over."""
        handed = None
        while True:
            while b'\n' not in self._rest:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 4)
                if not data:
                    raise ConnectionResetError('it died')
                for descriptor in descriptors:
                    if handed is not None:
                        os.close(handed)
                    handed = descriptor
                self._rest += data
            line, self._rest = self._rest.split(b'\n', 1)
            answer = json.loads(line)
            if answer['number'] == self._asked:
                return answer, handed


@contextlib.contextmanager
def _told():
    try:
        yield
    except OSError as exc:
        raise exception.HostUnreachable(
            host='this host', reason=f'the holder of packets: {exc}') from exc


# --- the holder process itself ---


class _Kept(threading.Thread):
    """One gate; its own thread, for another's packets must not wait for this one's."""

    def __init__(self, gate):
        super().__init__(name=f'gate-{gate.tag}', daemon=True)
        self.gate = gate
        self._wakes, self._wake = os.pipe()
        self._ending = False
        self._changed = threading.Condition()
        self._asked = self._done = 0

    def run(self) -> None:
        try:
            while True:
                with self._changed:
                    asked, ending = self._asked, self._ending
                if self._due() or asked != self._done:
                    self.gate.put_back()
                    self._has_done(asked)
                elif ending:
                    return
                else:
                    self._wait()
        finally:
            self._has_done(sys.maxsize)    # nobody waits for who is gone

    def _has_done(self, asked):
        with self._changed:
            self._done = asked
            self._changed.notify_all()

    def _due(self):
        """Whether there is something to put back though nobody asks."""
        state = self.gate.word.state
        if state is word.State.CLOSED:
            return self._left_s() <= 0
        # Something may be late where more was held than could be put back in time.
        return state is word.State.RELEASING or (
            state is word.State.OPEN and bool(select.select(self.gate.fds, [], [], 0)[0]))

    def _left_s(self):
        left_ns = self.gate.word.until_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return max(0.0, left_ns / 1e9)

    def _wait(self):
        """Until somebody asks, the lease ends or, where it is not known to be closed, it holds."""
        if self.gate.word.state is word.State.CLOSED:
            watched, timeout_s = [self._wakes], self._left_s()
        else:
            watched, timeout_s = [self._wakes, *self.gate.fds], None
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self._wakes in readable:
            os.read(self._wakes, 4096)

    def wake(self, *, ending: bool = False) -> int:
        """Have a look at the word; the number of this request."""
        with self._changed:
            self._asked += 1
            self._ending = self._ending or ending
            os.write(self._wake, b'.')
            return self._asked

    def put_back(self) -> None:
        """Wait until what is held now is on its way."""
        asked = self.wake()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= asked)

    def end(self) -> None:
        """Put back what is held, and take the gate out."""
        if self.gate.word.state is word.State.CLOSED:
            self.gate.word.release()
        self.wake(ending=True)
        self.join()
        self.gate.close()
        os.close(self._wake)
        os.close(self._wakes)

    def account(self) -> dict:
        each = self.gate.counters()
        return dataclasses.asdict(Account(
            *(sum(getattr(counters, name) for counters in each)
              for name in ('held', 'delivered', 'overflow')),
            lost=self.gate.lost, outstanding=sum(counters.outstanding for counters in each),
            lapsed=self.gate.word.lapsed))


def main() -> None:
    """Keep gates until standard input closes."""
    from hotsnap_nova.virt.gates import kernel  # whoever arms need not load this

    outliving.ignore_the_end_of_others()
    participant = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    kept: dict[str, _Kept] = {}

    def obey(words: dict) -> tuple[dict, list[int]]:
        if 'arm' in words:
            if words['arm'] in kept:
                raise bpf.GateUnavailable(reason=f'there is one called {words["arm"]}')
            nics = tuple(kernel.Nic(name, ingress) for name, ingress in words['nics'])
            gate = kernel.KernelGate(words['arm'], nics, packets=words['packets'],
                                     size=words['bytes'])
            kept[gate.tag] = _Kept(gate)
            kept[gate.tag].start()
            return {}, [gate.map_fd]
        if 'put_back' in words:
            if words['put_back'] not in kept:
                raise bpf.GateUnavailable(reason=f'there is none called {words["put_back"]}')
            kept[words['put_back']].put_back()
            return {'account': kept[words['put_back']].account()}, []
        if 'disarm' in words and words['disarm'] in kept:
            kept.pop(words['disarm']).end()
        return {}, []

    try:
        for words in _lines(participant):
            if 'released' in words:
                if words['released'] in kept:
                    kept[words['released']].wake()
                continue
            try:
                answer, handed = obey(words)
            except exception.HotsnapError as exc:
                answer, handed = {'error': str(exc)}, []
            line = json.dumps(answer | {'number': words['number']}).encode() + b'\n'
            with contextlib.suppress(OSError):    # the participant died; the next line tells
                socket.send_fds(participant, [line], handed)
    finally:
        for each in kept.values():
            each.wake()
        for each in kept.values():
            with contextlib.suppress(exception.HotsnapError):    # the sweep will see it
                each.end()


def _lines(participant: socket.socket):
    """Yield the words of each line, until the other end closes."""
    with participant.makefile('rb') as file:
        try:
            yield from map(json.loads, file)
        except ConnectionError:
            return


if __name__ == '__main__':
    main()
