# SPDX-License-Identifier: Apache-2.0
"""What a program says, line by line, for as long as there is time.

For programs whose output a guest decides the length of, and which may stand in the kernel: neither
is their output kept, nor are they waited for.
"""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence

_CHUNK_BYTES = 64 << 10
#: Of what it says of its failure.
_MOST_WORDS = 4096
#: So long it may take to die. Where it takes longer, it is reaped when the next one is started.
_DEATH_S = 1.0


class Failed(Exception):
    """The program did, in its words."""


def of(command: Sequence[str], fds: Sequence[int], ends: float) -> Iterator[bytes]:
    """Yield each line, without its end.

    :param fds: descriptors that it inherits
    :param ends: when it is ended, by the monotonic clock
    :raises Failed: at the end
    :raises TimeoutError:
    """
    said = os.memfd_create('said', os.MFD_CLOEXEC)
    try:
        program = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=said, bufsize=0)
        try:
            yield from _lines(program.stdout.fileno(), ends)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(max(0.0, ends - time.monotonic()))
            if program.poll() is None:
                raise TimeoutError
        finally:
            program.stdout.close()
            if program.poll() is None:
                program.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(_DEATH_S)
        if program.returncode:
            words = os.pread(said, _MOST_WORDS, 0).decode(errors='replace').strip()
            raise Failed(words or f'{command[0]}: status {program.returncode}')
    finally:
        os.close(said)


def _lines(fd, ends):
    waiting, rest = select.poll(), b''
    waiting.register(fd, select.POLLIN)
    while True:
        if not waiting.poll(max(0.0, ends - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(fd, _CHUNK_BYTES)
        *whole, rest = (rest + chunk).split(b'\n')
        yield from whole
        if not chunk:
            if rest:
                yield rest
            return
