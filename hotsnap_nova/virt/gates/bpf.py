# SPDX-License-Identifier: Apache-2.0
"""Programs and maps in the kernel, through the system's libbpf.

libbpf comes with the kernel's developers and every distribution; of its
bindings for Python none is kept, and the dozen of its functions that are needed
here have not changed since its first release that promises so, 1.0. So they are
called as they are.
"""

import ctypes
import errno
import functools
import os

from hotsnap_nova import exception

LIBRARY = 'libbpf.so.1'
#: What the kernel's verifier says may be long; its end tells.
_TOLD = 600


class GateUnavailable(exception.Unavailable):
    """The kernel, or our privilege, will not do for a gate of programs."""

    code = 'gate_unavailable'
    message_format = 'The gate in the host kernel: %(reason)s.'


_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_said: list[str] = []


@_Print
def _listen(_level, words, arguments):
    line = ctypes.create_string_buffer(1 << 16)
    ctypes.CDLL(None).vsnprintf(line, ctypes.c_size_t(len(line)), words,
                                ctypes.c_void_p(arguments))
    _said.append(line.value.decode(errors='replace'))
    return 0


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf.

    :raises GateUnavailable: it is not installed
    """
    try:
        found = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as exc:
        raise GateUnavailable(reason=f'{LIBRARY} is not installed: {exc}') from exc
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
            ('bpf_object__open_file', pointer, (text, pointer)),
            ('bpf_object__load', number, (pointer,)),
            ('bpf_object__close', None, (pointer,)),
            ('bpf_object__find_program_by_name', pointer, (pointer, text)),
            ('bpf_program__fd', number, (pointer,)),
            ('bpf_object__find_map_fd_by_name', number, (pointer, text)),
            ('bpf_map_update_elem', number, (number, pointer, pointer, ctypes.c_uint64)),
            ('bpf_map_lookup_elem', number, (number, pointer, pointer)),
            ('bpf_prog_query', number, (number, number, ctypes.c_uint32, pointer, pointer,
                                        pointer)),
            ('libbpf_set_print', pointer, (_Print,))):
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.libbpf_set_print(_listen)
    return found


def _require(done, what):
    """What libbpf gave; it returns no pointer, or less than 0, and sets errno."""
    if done is None or done < 0:
        error = ctypes.get_errno()
        told = ''.join(_said)[-_TOLD:].strip()
        raise GateUnavailable(reason=f'{what}: {os.strerror(error)}'
                        + (f': {told}' if told and error != errno.EPERM else '')) from OSError(
                            error, os.strerror(error))
    return done


class Loaded:
    """One copy of an object file's programs and maps in the kernel.

    They live as long as this object, a filter or a descriptor of one of them.

    :param path: what clang made
    :raises GateUnavailable: with the verifier's last words
    """

    def __init__(self, path: str):
        library_ = library()
        del _said[:]
        self._object = _require(library_.bpf_object__open_file(os.fsencode(path), None), path)
        try:
            _require(library_.bpf_object__load(self._object), 'loading it')
        except GateUnavailable:
            self.close()
            raise

    def program(self, name: str) -> int:
        """The descriptor of the function called ``name``; ours to use, not to close."""
        found = _require(library().bpf_object__find_program_by_name(self._object, name.encode()),
                         name)
        return _require(library().bpf_program__fd(found), name)

    def map(self, name: str) -> int:
        """The descriptor of the map called ``name``; ours to use, not to close."""
        return _require(library().bpf_object__find_map_fd_by_name(self._object, name.encode()),
                        name)

    def close(self) -> None:
        if self._object is not None:
            library().bpf_object__close(self._object)
            self._object = None


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """:raises GateUnavailable: the map is full, or not ours to write"""
    _require(library().bpf_map_update_elem(map_fd, key, value, 0), 'writing to a map')


def lookup(map_fd: int, key: bytes, size: int) -> bytes:
    """:raises GateUnavailable: there is no such key"""
    value = ctypes.create_string_buffer(size)
    _require(library().bpf_map_lookup_elem(map_fd, key, value), 'reading a map')
    return value.raw


def attached(ifindex: int, kind: int) -> int:
    """How many programs sit there, of a kind this kernel may not know: then none."""
    count = ctypes.c_uint32(0)
    flags = ctypes.c_uint32(0)
    done = library().bpf_prog_query(ifindex, kind, 0, ctypes.byref(flags), None,
                                    ctypes.byref(count))
    return count.value if done >= 0 else 0
