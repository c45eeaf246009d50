# SPDX-License-Identifier: Apache-2.0
"""Becomes another program, which may then do little but what it is there for.

For ``qemu-storage-daemon``: what a guest's QEMU sends reaches it, and it runs as whoever runs us,
on a host of many guests. It may read and write the files it is told of, read what programs and
libraries are, and talk over the sockets it was given. It has none of root's powers but to get to
its files, starts no other program, opens no connection, and sends nobody a signal.

The kernel sees to it by Landlock (files, Linux 5.13), seccomp (calls; by the libseccomp that QEMU
itself uses) and its lists of capabilities. Where a host has one of these not, the others do what
they can.

Run by its path, as a program of its own, which imports nothing of ours: it is loaded once a
member, and threads of whoever starts it must not be forked. Its first argument is JSON::

    {"files": [PATH …], "tell": whether to say {"daemon": PID} on standard output first}
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys

# --- Landlock; Linux, include/uapi/linux/landlock.h ---

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_BENEATH = 1
_READ = 1 << 0 | 1 << 2 | 1 << 3    # execute, read a file, read a folder
_FILE = 1 << 1 | 1 << 2             # write, read
_TRUNCATE = 1 << 14
#: All that a kernel of this version knows to forbid: of files, of TCP, to processes outside.
_FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP, _TCP_VERSION = 3, 4
_OUTSIDE, _OUTSIDE_VERSION = 3, 6
#: Where programs, libraries and what they read at their start may be.
_SYSTEM = ('/usr', '/lib', '/lib32', '/lib64', '/libx32', '/bin', '/sbin', '/opt', '/nix', '/gnu',
           '/etc/ld.so.cache', '/etc/ld.so.preload', '/etc/localtime', '/etc/ssl',
           '/etc/crypto-policies', '/etc/gnutls', '/sys/devices/system/cpu', '/proc/self',
           '/dev/null', '/dev/zero', '/dev/urandom', '/dev/random')

# --- seccomp; libseccomp, seccomp.h ---

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_CLONE_THREAD = 0x10000
_FORBIDDEN = """
    fork vfork socket connect bind kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open
    pidfd_send_signal pidfd_getfd ptrace process_vm_readv process_vm_writev process_madvise kcmp
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
    mount umount umount2 pivot_root chroot setns unshare move_mount open_tree fsopen fsmount
    fsconfig fspick mount_setattr open_by_handle_at name_to_handle_at
    keyctl add_key request_key bpf perf_event_open userfaultfd io_uring_setup
    kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff
    sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex acct quotactl
    quotactl_fd syslog iopl ioperm modify_ldt personality uselib ustat sysfs _sysctl vhangup
    lookup_dcookie nfsservctl
"""

# --- prctl; Linux, include/uapi/linux/prctl.h ---

_DROP_CAPABILITY, _NO_NEW_PRIVILEGES = 24, 38
#: To get to its files, whose folders may be another user's: Landlock says which.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _Argument(ctypes.Structure):
    _fields_ = [('number', ctypes.c_uint), ('compared', ctypes.c_int),
                ('a', ctypes.c_uint64), ('b', ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [('allowed', ctypes.c_uint64), ('folder', ctypes.c_int32)]


def confine(files: list[str]) -> None:
    """Give up what is not needed, for ever, for this process and what it becomes.

    :param files: which may be read and written; they are there
    """
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for number in range(_CAPABILITIES):
        if number not in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            _libc.prctl(_DROP_CAPABILITY, number, 0, 0, 0)    # who is not root has none
    calls = _forbidden_calls()    # before its library can no longer be read
    _forbid_files(files)
    calls()


def _forbid_files(files):
    version = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return
    known = _FILES_BY_VERSION[min(version, max(_FILES_BY_VERSION))]
    handled = (ctypes.c_uint64 * 3)(
        (1 << known) - 1, _TCP if version >= _TCP_VERSION else 0,
        _OUTSIDE if version >= _OUTSIDE_VERSION else 0)
    size = 24 if version >= _OUTSIDE_VERSION else 16 if version >= _TCP_VERSION else 8
    rules = _call(_CREATE, handled, ctypes.c_size_t(size), 0)
    for path in _SYSTEM:
        with contextlib.suppress(FileNotFoundError):
            _allow(rules, path, _READ)
    for path in files:
        _allow(rules, path, _FILE | (_TRUNCATE if version >= 3 else 0))
    _call(_RESTRICT, rules, 0)
    os.close(rules)


def _allow(rules, path, what):
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            what &= ~(1 << 3)
        _call(_ADD, rules, _BENEATH, ctypes.byref(_Beneath(what, fd)), 0)
    finally:
        os.close(fd)


def _call(*arguments):
    found = _libc.syscall(*arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def _forbidden_calls():
    """What forbids them, once it is called."""
    try:
        seccomp = ctypes.CDLL('libseccomp.so.2')
    except OSError:
        return lambda: None
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_ALLOW)))

    def forbid(name, error=errno.EPERM, *compared):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            _must(seccomp.seccomp_rule_add_array(
                rules, ctypes.c_uint32(_ERRNO | error), number, len(compared),
                (_Argument * len(compared))(*compared)))

    for name in _FORBIDDEN.split():
        forbid(name)
    # Threads it may start; what it says of them to clone3 cannot be looked at, and libc has both.
    forbid('clone', errno.EPERM, _Argument(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
    forbid('clone3', errno.ENOSYS)
    forbid('tgkill', errno.EPERM, _Argument(0, _NOT_EQUAL, os.getpid(), 0))
    return lambda: _must(seccomp.seccomp_load(rules))


def _must(failed):
    if failed:
        raise OSError(-failed, os.strerror(-failed))


def main(asked: dict, command: list[str]) -> None:
    """Become ``command``; never returns."""
    if asked['tell']:
        os.write(1, json.dumps({'daemon': os.getpid()}).encode() + b'\n')
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
    found = shutil.which(command[0])
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    confine(asked['files'])
    os.execv(found, command)  # noqa: S606 - that is what this is for


if __name__ == '__main__':
    main(json.loads(sys.argv[1]), sys.argv[2:])
