# SPDX-License-Identifier: Apache-2.0
"""The process that has the gates in the host kernel, and puts back what they held.

It outlives the service by design; see `outliving`. A gate is there from ``arm`` to ``disarm``; in
between whoever armed it closes and releases it by its word, without asking anybody. When a
lease ends, and when standard input closes, which the kernel does for a participant that dies, it
puts back what is held by itself. Should it die itself, what was held is gone and the rest flows
when the lease ends: that much the kernel does alone.

Lines of JSON on standard input, answered on the same socket, each by its number::

    {"arm": TAG, "nics": [NAME …], "packets": N, "bytes": N, "marker": null, "number": N}
                                        with a descriptor of the gate's words; with a marker,
                                        another that can be read once a mark asks for the cut
    {"released": TAG}                   not answered: the word has been changed
    {"put_back": TAG, "number": N}      what it did, once all of that is on its way
    {"disarm": TAG, "number": N}        all of it is out
    {"number": N}                       it is there

An answer has ``error`` where that failed, whatever it was: nothing that goes wrong with one gate
ends the others, or the process.
"""

import contextlib
import dataclasses
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import typing

from hotsnap_nova import exception
from hotsnap_nova.virt import outliving
from hotsnap_nova.virt.gates import bpf, kept, marks, word

_ANSWER_S = 30.0
#: How long one that nobody asks anything may take to say that it is there.
_SIGN_OF_LIFE_S = 5.0
#: What a NIC may have waiting; beyond it packets are dropped, and counted.
LIMIT_PACKETS, LIMIT_BYTES = 20_000, 256 << 20


class Marking(typing.NamedTuple):
    """A gate that marks, for whoever armed it; all of it is his to close.

    :ivar asks: a descriptor that can be read once a mark asks for the cut
    """

    outward: word.Word
    inward: word.Word
    asks: int

    def close(self) -> None:
        """Let go of it; the gate stays as it is. Not to be repeated."""
        self.outward.close()
        self.inward.close()
        os.close(self.asks)


class Holder:
    """The participant's end of one holder process; used by any thread."""

    def __init__(self):
        self._lock, self._saying = threading.Lock(), threading.Lock()
        self._asked = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = outliving.start('hotsnap_nova.virt.gates.holder', purpose='holder',
                                            stdin=theirs, stdout=subprocess.DEVNULL)
        self._rest = b''

    @property
    def pid(self) -> int:
        return self._process.pid

    def arm(self, tag: str, nics: tuple[str, ...], packets: int = LIMIT_PACKETS,
            size: int = LIMIT_BYTES) -> word.Word:
        """Put an open gate at these devices; nothing changes for their packets.

        :param nics: their names on the host
        :param packets: so many, and ``size`` bytes, may a NIC have held
        :raises exception.HotsnapError: no gate is there
        """
        (map_fd,) = self._arm(1, {'arm': tag, 'nics': nics, 'packets': packets, 'bytes': size})
        with _told():
            return word.Word(map_fd)

    def arm_marker(self, tag: str, nics: tuple[str, ...], marker: marks.Marker,
                   packets: int = LIMIT_PACKETS, size: int = LIMIT_BYTES) -> Marking:
        """Likewise, a gate that marks. Until its outward word is closed nothing is marked.

        From now on the first mark of another's closes the inward word by itself.
        """
        map_fd, asks = self._arm(2, {'arm': tag, 'nics': nics, 'packets': packets, 'bytes': size,
                                     'marker': dataclasses.asdict(marker)})
        with contextlib.ExitStack() as undo, _told():
            undo.callback(os.close, asks)
            outward = undo.enter_context(word.Word(map_fd))
            inward = undo.enter_context(word.Word(os.dup(map_fd), inward=True))
            undo.pop_all()
            return Marking(outward, inward, asks)

    def _arm(self, expected, words):
        """As many descriptors as are expected, the words' first."""
        _, handed = self._ask(words)
        if len(handed) != expected:
            for descriptor in handed:
                os.close(descriptor)
            raise bpf.GateUnavailable(reason='its word was not handed over: too many open files')
        return handed

    def released(self, tag: str) -> None:
        """The gate's word has been changed: what it held is to go on its way. Not waited for.

        :raises exception.HotsnapError: nobody will see to it
        """
        self._say({'released': tag})

    def put_back(self, tag: str) -> kept.Account:
        """What a released gate did, once what it held is on its way. Repeatable.

        :raises exception.HotsnapError: nobody can say what became of it
        """
        answer, _ = self._ask({'put_back': tag})
        account = answer['account']
        return kept.Account(**account | {'bypassed': tuple(account['bypassed'])})

    def disarm(self, tag: str) -> None:
        """Put back what it holds and take it out. Repeatable."""
        self._ask({'disarm': tag})

    def alive(self) -> bool:
        """Whether it is there and answers; one that another thread is asking will tell that."""
        if self._process.poll() is not None:
            return False
        if self._lock.locked():
            return True
        try:
            self._ask({}, _SIGN_OF_LIFE_S)
        except exception.HotsnapError:
            return False
        return True

    def leave(self) -> None:
        """Let go of it, without waiting: it disarms what is there, and ends when it can."""
        self._socket.close()
        self._process.poll()

    def close(self) -> None:
        """End it; gates that are still there are disarmed."""
        self._socket.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, words: dict, within_s: float | None = None) -> tuple[dict, list[int]]:
        with self._lock:
            with _told():
                self._socket.settimeout(within_s or _ANSWER_S)
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
        """The answer to what was asked last; late ones to what was given up are passed over.

        What is read at once ends with a line that comes with descriptors.
        """
        handed = []
        while True:
            while b'\n' not in self._rest:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 4)
                if not data:
                    raise ConnectionResetError('it died')
                handed += descriptors
                self._rest += data
            line, self._rest = self._rest.split(b'\n', 1)
            answer = json.loads(line)
            if answer['number'] == self._asked:
                return answer, handed
            for descriptor in handed[:answer.get('handed', 0)]:
                os.close(descriptor)
            del handed[:answer.get('handed', 0)]


@contextlib.contextmanager
def _told():
    try:
        yield
    except OSError as exc:
        raise exception.HostUnreachable(
            host='this host', reason=f'the holder of packets: {exc}') from exc


# --- the holder process itself ---


def main() -> None:
    """Keep gates until standard input closes."""
    from hotsnap_nova.virt.gates import kernel  # whoever arms need not load this

    outliving.ignore_the_end_of_others()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    participant = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    gates: dict[str, kept.Kept] = {}

    def obey(words: dict) -> tuple[dict, list[int]]:
        if 'arm' in words:
            if words['arm'] in gates:
                raise bpf.GateUnavailable(reason=f'there is one called {words["arm"]}')
            marker = marks.of(words['marker']) if words.get('marker') else None
            gate = kernel.KernelGate(words['arm'], tuple(words['nics']), marker=marker,
                                     packets=words['packets'], size=words['bytes'])
            with contextlib.ExitStack() as undo:
                undo.callback(gate.close)
                gates[gate.tag] = made = kept.started(gate)
                undo.pop_all()
            handed = [gate.map_fd] if made.asks is None else [gate.map_fd, made.asks]
            return {'handed': len(handed)}, handed
        if 'put_back' in words:
            if words['put_back'] not in gates:
                raise bpf.GateUnavailable(reason=f'there is none called {words["put_back"]}')
            gates[words['put_back']].put_back()
            return {'account': gates[words['put_back']].account()}, []
        if 'disarm' in words and words['disarm'] in gates:
            gates.pop(words['disarm']).end()
        return {}, []

    try:
        for words in _lines(participant):
            if 'released' in words:
                if words['released'] in gates:
                    gates[words['released']].wake()
                continue
            handed = []
            try:
                answer, handed = obey(words)
            except exception.HotsnapError as exc:
                answer = {'error': str(exc)}
            except Exception as exc:    # one gate's; with this process all would end
                kept.tell()
                answer = {'error': str(bpf.GateUnavailable(reason=f'{type(exc).__name__}: {exc}'))}
            line = json.dumps(answer | {'number': words['number']}).encode() + b'\n'
            with contextlib.suppress(OSError):    # the participant died; the next line tells
                socket.send_fds(participant, [line], handed)
    finally:
        kept.end_all(tuple(gates.values()))


def _lines(participant: socket.socket):
    """Yield the words of each line, until the other end closes."""
    with participant.makefile('rb') as file:
        try:
            yield from map(json.loads, file)
        except (ConnectionError, ValueError):    # who died may have done so within a line
            return


if __name__ == '__main__':
    main()
