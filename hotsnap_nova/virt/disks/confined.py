# SPDX-License-Identifier: Apache-2.0
"""Becomes another program, which may then do little but what it is there for.

For ``qemu-storage-daemon``: what a guest's QEMU sends reaches it, and it runs as whoever runs us,
on a host of many guests. It may read and write the files it is told of, read what programs and
libraries are, and talk over the sockets it was given. It has none of root's powers but to get to
its files, starts no other program, opens no connection, and sends nobody a signal. Nor does it
change whose a file is, or who may do what with it: that Landlock allows, and much is root's own.

The kernel sees to it by Landlock (files, Linux 5.13), seccomp (calls; by the libseccomp that QEMU
itself uses) and its lists of capabilities. Where a host has one of these not, the others do what
they can, and a line on standard error says so, which begins with `WITHOUT`.

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

#: What is said before the name of what there is not, and why.
WITHOUT = 'confined without '

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
           '/snap', '/etc/ld.so.cache', '/etc/ld.so.preload', '/etc/localtime',
           '/etc/ssl/openssl.cnf', '/etc/crypto-policies', '/etc/gnutls',
           '/sys/devices/system/cpu', '/proc/self', '/dev/zero', '/dev/urandom', '/dev/random')
#: By this QEMU finds out whether it can lock files.
_NULL = '/dev/null'

#: Of a program that is elsewhere: its own folder, and these beside that.
_PROGRAMS = ('bin', 'sbin')
_BESIDE = ('lib', 'lib32', 'lib64', 'libexec', 'share')

# --- seccomp; libseccomp, seccomp.h ---

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_CLONE_THREAD = 0x10000
_UNKNOWN = -1
_FORBIDDEN = """
    fork vfork socket connect bind kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open
    pidfd_send_signal pidfd_getfd ptrace process_vm_readv process_vm_writev process_madvise kcmp
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
    mount umount umount2 pivot_root chroot setns unshare move_mount open_tree open_tree_attr
    fsopen fsmount fsconfig fspick mount_setattr open_by_handle_at name_to_handle_at
    keyctl add_key request_key bpf perf_event_open userfaultfd io_uring_setup
    kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff
    sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex acct quotactl
    quotactl_fd syslog iopl ioperm modify_ldt personality uselib ustat sysfs _sysctl vhangup
    lookup_dcookie nfsservctl
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    file_setattr truncate utime utimes utimensat futimesat ioprio_set
"""
#: Of calls that a libseccomp may be too old for; one for all architectures.
_NUMBERS = {'fchmodat2': 452, 'setxattrat': 463, 'removexattrat': 466, 'open_tree_attr': 467,
            'file_setattr': 469}

# --- prctl; Linux, include/uapi/linux/prctl.h ---

_DROP_CAPABILITY, _NO_NEW_PRIVILEGES = 24, 38
#: To get to its files, whose folders may be another user's: Landlock says which.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_CAPABILITIES = 64
#: Linux, include/uapi/linux/capability.h
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Argument(ctypes.Structure):
    _fields_ = [('number', ctypes.c_uint), ('compared', ctypes.c_int),
                ('a', ctypes.c_uint64), ('b', ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [('allowed', ctypes.c_uint64), ('folder', ctypes.c_int32)]


class _NotHere(Exception):
    """What the kernel is asked for it has not, or does not give to us."""


def confine(files: list[str], program: str) -> None:
    """Give up what is not needed, for ever, for this process and what it becomes.

    :param files: which may be read and written; they are there
    :param program: what it becomes, by its real path
    """
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for number in range(_CAPABILITIES):
        if number not in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            _libc.prctl(_DROP_CAPABILITY, number, 0, 0, 0)    # who is not root may not
    _hand_on_no_others()
    calls = None
    with _said('seccomp'):
        calls = _forbidden_calls()    # before its library can no longer be read
    with _said('Landlock'):
        _forbid_files(files, program)
    if calls:
        with _said('seccomp'):
            calls()


def _hand_on_no_others():
    """Capabilities that a service was given: what is not inheritable is not ambient either."""
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if not _libc.capget(header, sets):
        # Effective, permitted, inheritable, and their upper halves.
        sets[2] &= 1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH
        sets[5] = 0
        _libc.capset(header, sets)


@contextlib.contextmanager
def _said(what):
    try:
        yield
    except _NotHere as exc:
        sys.stderr.write(f'{WITHOUT}{what}: {exc}\n')
        sys.stderr.flush()


def _forbid_files(files, program):
    version = _call(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)
    known = _FILES_BY_VERSION[min(version, max(_FILES_BY_VERSION))]
    handled = (ctypes.c_uint64 * 3)(
        (1 << known) - 1, _TCP if version >= _TCP_VERSION else 0,
        _OUTSIDE if version >= _OUTSIDE_VERSION else 0)
    size = 24 if version >= _OUTSIDE_VERSION else 16 if version >= _TCP_VERSION else 8
    rules = _call(_CREATE, handled, ctypes.c_size_t(size), 0)
    for path in (*_SYSTEM, *_around(program)):
        with contextlib.suppress(OSError):    # it may not be there
            _allow(rules, path, _READ)
    _allow(rules, _NULL, _FILE)
    for path in files:
        _allow(rules, path, _FILE | (_TRUNCATE if version >= 3 else 0))
    _call(_RESTRICT, rules, 0)
    os.close(rules)


def _around(program):
    """Folders of what a program may need to start that is not where the system's are."""
    folder = os.path.dirname(program)
    if folder != '/':
        yield folder
        if os.path.basename(folder) in _PROGRAMS:
            yield from (os.path.join(os.path.dirname(folder), name) for name in _BESIDE)


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
        raise _NotHere(os.strerror(ctypes.get_errno()))
    return found


def _forbidden_calls():
    """What forbids them, once it is called."""
    try:
        seccomp = ctypes.CDLL('libseccomp.so.2')
    except OSError as exc:
        raise _NotHere(exc) from exc
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_ALLOW)))

    def forbid(name, error=errno.EPERM, *compared):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN:
            number = _NUMBERS.get(name, _UNKNOWN)
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
    forbid('prlimit64', errno.EPERM, _Argument(0, _NOT_EQUAL, 0, 0))    # 0: its own
    return lambda: _must(seccomp.seccomp_load(rules))


def _must(failed):
    if failed:
        raise _NotHere(os.strerror(-failed))


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
    found = os.path.realpath(found)
    confine(asked['files'], found)
    try:
        # S606 warns of a program that is started without a shell: to become one is the purpose
        # here, its path is found and not given by a guest, and a shell is what must not be.
        os.execv(found, command)  # noqa: S606 - no shell: that is meant
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, found) from None


if __name__ == '__main__':
    main(json.loads(sys.argv[1]), sys.argv[2:])
