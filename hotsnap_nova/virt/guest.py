# SPDX-License-Identifier: Apache-2.0
"""One running guest: the only caller of libvirt's domain functions."""

import contextlib
import dataclasses
import json
import threading

import libvirt
import libvirt_qemu
from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, monitor, records

LOG = log.getLogger(__name__)

_loop_lock = threading.Lock()
_loop_started = False

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: 'running',
    libvirt.VIR_DOMAIN_BLOCKED: 'running',
    libvirt.VIR_DOMAIN_PAUSED: 'paused',
    libvirt.VIR_DOMAIN_SHUTDOWN: 'shutting down',
    libvirt.VIR_DOMAIN_SHUTOFF: 'shut off',
    libvirt.VIR_DOMAIN_CRASHED: 'crashed',
    libvirt.VIR_DOMAIN_PMSUSPENDED: 'asleep',
}
#: How long an agent has to answer; those that live take milliseconds.
_AGENT_S = 1
_FROZEN = json.dumps({'execute': 'guest-fsfreeze-status'})
#: How libvirt fails on a file that is not there, or not for it, or not the one that we see.
_UNREAD = {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_OPERATION_FAILED}
#: What a disk from a storage pool is when its volume is resolved.
_VOLUMES = {libvirt.VIR_STORAGE_VOL_FILE: 'file', libvirt.VIR_STORAGE_VOL_BLOCK: 'block'}
#: Why a guest is off that somebody wanted off.
_WANTED = {libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
           libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
           libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT}


def connect(uri: str):
    """A libvirt connection with events delivered by one thread of this process.

    Nova runs such a loop already; registering the same one again is harmless.
    """
    global _loop_started
    with _loop_lock:
        if not _loop_started:
            libvirt.virEventRegisterDefaultImpl()
            libvirt.registerErrorHandler(lambda _ctx, _err: None, None)
            threading.Thread(target=_run_loop, name='libvirt-events', daemon=True).start()
            _loop_started = True
    try:
        connection = libvirt.open(uri)
        connection.setKeepAlive(5, 3)
    except libvirt.libvirtError as exc:
        raise exception.HostUnreachable(host=uri, reason=str(exc)) from exc
    return connection


def _run_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception('libvirt event loop')


@dataclasses.dataclass(frozen=True)
class State:
    """``name`` as people say it.

    :ivar ours: paused for no reason that libvirt knows, as after our bare QMP
        ``stop``. A pause by an operator, an I/O error or a migration has its
        reason, survives us, and is never ended by us.
    :ivar starting: QEMU is there, and not ready yet
    :ivar loaded: paused where it was loaded from memory, and never resumed since
    :ivar booted: running, and never stopped since it was started from its disks
    :ivar died: off, and nobody wanted that as far as libvirt knows
    :ivar reason: libvirt's number, for people to look up
    """

    name: str
    ours: bool = False
    starting: bool = False
    loaded: bool = False
    booted: bool = False
    died: bool = False
    reason: int = 0

    @property
    def running(self) -> bool:
        return self.name == 'running'

    @property
    def off(self) -> bool:
        return self.name in ('shut off', 'crashed', 'gone')

    @property
    def may_be_ours(self) -> bool:
        """Whether a guest that we stopped may stand because of that alone.

        One that fell asleep just before our stop is only asleep to libvirt: to let QEMU go on
        leaves it asleep, and not to would mean that nobody can wake it any more.
        """
        return self.ours or self.name == 'asleep'


class StopWatch:
    """STOP and RESUME events of one guest, with QEMU's own times."""

    def __init__(self):
        self._changed = threading.Condition()
        self._events: list[tuple[str, float]] = []

    def note(self, event: str, time_s: float) -> None:
        with self._changed:
            self._events.append((event, time_s))
            self._changed.notify_all()

    def count(self, event: str) -> int:
        with self._changed:
            return sum(1 for name, _ in self._events if name == event)

    def wait(self, event: str, count: int, timeout_s: float) -> bool:
        """Whether ``event`` has come ``count`` times, within ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(1 for name, _ in self._events if name == event) >= count, timeout_s)

    def last(self, event: str) -> float | None:
        """QEMU's wall clock, in seconds, at the last such event."""
        with self._changed:
            return next((time_s for name, time_s in reversed(self._events) if name == event),
                        None)


class Guest:
    """A domain that exists, by UUID or name.

    :param called: what people call it, where libvirt does not know it by that
    :ivar name: libvirt's
    :ivar spec: with the name that people know; what errors mention
    :raises exception.MemberNotFound: it does not
    """

    def __init__(self, connection, uuid_or_name: str, called: str = ''):
        self._connection = connection
        try:
            try:
                self._domain = connection.lookupByUUIDString(uuid_or_name)
            except libvirt.libvirtError:
                self._domain = connection.lookupByName(uuid_or_name)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise exception.HostUnreachable(
                    host=connection.getURI(), reason=str(exc)) from exc
            raise exception.MemberNotFound(
                member=records.MemberSpec(uuid_or_name, called)) from exc
        self.uuid = self._domain.UUIDString()
        self.name = self._domain.name()
        self.spec = records.MemberSpec(id=self.uuid, name=called or self.name)
        self.monitor = monitor.Monitor(self._domain, self.spec)

    @contextlib.contextmanager
    def _translated(self, doing: str):
        try:
            yield
        except libvirt.libvirtError as exc:
            raise self._error(doing, exc) from exc

    def _error(self, doing, exc):
        if _gone(self._connection, exc):
            return exception.HostUnreachable(
                host='libvirt', reason=f'{self.spec}, {doing}: {exc}')
        return exception.HypervisorError(member=self.spec, reason=f'{doing}: {exc}')

    def active(self) -> bool:
        """Whether there is a QEMU, whatever state it is in."""
        with self._translated('activity'):
            try:
                return bool(self._domain.isActive())
            except libvirt.libvirtError as exc:
                if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                raise

    def connected(self) -> bool:
        """Whether its libvirt is still the one it was found with."""
        return _lives(self._connection)

    def state(self) -> State:
        """Whether it runs; ``gone`` where its domain no longer exists."""
        with self._translated('state'):
            try:
                state, reason = self._domain.state()
            except libvirt.libvirtError as exc:
                if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return State('gone')
                raise
        name = _STATES.get(state, 'in an unknown state')
        return State(
            name, ours=(name, reason) == ('paused', libvirt.VIR_DOMAIN_PAUSED_UNKNOWN),
            starting=(name, reason) == ('paused', libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
            loaded=(name, reason) == ('paused', libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
            booted=(name, reason) == ('running', libvirt.VIR_DOMAIN_RUNNING_BOOTED),
            died=name == 'crashed' or (name == 'shut off' and reason not in _WANTED),
            reason=reason)

    def require_running(self) -> None:
        """:raises exception.GuestNotRunning:"""
        state = self.state()
        if not state.running:
            raise exception.GuestNotRunning(member=self.spec, state=state.name)

    def xml(self, *, live: bool = True) -> str:
        """The domain XML: of the running guest, or as it would next be started.

        Disks from storage pools have the paths of their files, as far as libvirt tells them.
        """
        flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
        if not live:
            flags |= libvirt.VIR_DOMAIN_XML_INACTIVE
        with self._translated('XML'):
            return domain.with_paths(self._domain.XMLDesc(flags), self._volume)

    def full_xml(self) -> str:
        """The running guest's XML with aliases and backing chains; disks likewise."""
        with self._translated('XML'):
            return domain.with_paths(self._domain.XMLDesc(0), self._volume)

    def _volume(self, pool, name):
        try:
            volume = self._connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
            kind = _VOLUMES.get(volume.info()[0])
            return (kind, volume.path()) if kind else None
        except libvirt.libvirtError as exc:
            LOG.warning('%(member)s: where volume %(volume)s of pool %(pool)s is cannot be told: '
                        '%(error)s', {'member': self.spec, 'volume': name, 'pool': pool,
                                      'error': exc})
            return None

    def persistent(self) -> bool:
        with self._translated('persistence'):
            return bool(self._domain.isPersistent())

    def has_saved_state(self) -> bool:
        """Whether a managed save image would be started instead of the disks."""
        with self._translated('managed save'):
            return bool(self._domain.hasManagedSaveImage())

    def checkpoints(self) -> tuple[str, ...]:
        """Names of those that libvirt keeps, of backups."""
        with self._translated('checkpoints'):
            return tuple(sorted(each.getName() for each in self._domain.listAllCheckpoints()))

    def libvirt_job(self) -> bool:
        """Whether libvirt itself runs a job (a migration, a save) on the guest."""
        with self._translated('job'):
            return self._domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE

    @contextlib.contextmanager
    def watched(self):
        """A :class:`StopWatch` that hears this guest for the block."""
        watch, handle = self.watch()
        try:
            yield watch
        finally:
            self.unwatch(handle)

    def watch(self) -> tuple[StopWatch, int]:
        """A :class:`StopWatch` and the handle to give to :meth:`unwatch`."""
        watch = StopWatch()

        def heard(_connection, _domain, event, seconds, micros, _details, _opaque):
            watch.note(event, seconds + micros / 1e6)

        with self._translated('event registration'):
            handle = libvirt_qemu.qemuMonitorEventRegister(
                self._connection, self._domain, '^(STOP|RESUME)$', heard, None,
                libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX)
        return watch, handle

    def unwatch(self, handle: int) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt_qemu.qemuMonitorEventDeregister(self._connection, handle)

    def destroy(self) -> None:
        """Stop the guest at once; one that is not running is left so."""
        try:
            self._domain.destroy()
        except libvirt.libvirtError as exc:
            if exc.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID,
                                            libvirt.VIR_ERR_NO_DOMAIN):
                raise self._error('destroy', exc) from exc

    def resume(self) -> None:
        with self._translated('resume'):
            self._domain.resume()

    def boot(self) -> None:
        """Start the guest from its disks, as it is defined."""
        with self._translated('start'):
            self._domain.create()

    def load(self, save_image: str, xml: str) -> None:
        """Start the guest from memory; it stands there, see `State.loaded`."""
        with self._translated('restore'):
            self._connection.restoreFlags(save_image, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)

    def set_clock(self, wall_ns: int) -> None:
        """Have the guest's agent set its clock, in ns since 1970, however long that takes.

        :raises HypervisorError: it does not say that it has
        """
        seconds, nseconds = divmod(wall_ns, 1_000_000_000)
        with self._translated('guest-set-time'):
            self._domain.setTime({'seconds': seconds, 'nseconds': nseconds})

    def clock_ns(self) -> int:
        """The guest's clock, in ns since 1970, by its agent, however long that takes."""
        with self._translated('guest-get-time'):
            told = self._domain.getTime()
        return told['seconds'] * 1_000_000_000 + told['nseconds']

    def frozen(self) -> bool:
        """Whether the guest's agent says that file systems are frozen.

        One that does not answer soon has not said so: libvirt waits for it on, and nobody else.
        """
        answers = []

        def ask():
            with contextlib.suppress(libvirt.libvirtError, ValueError):
                answers.append(json.loads(libvirt_qemu.qemuAgentCommand(
                    self._domain, _FROZEN, _AGENT_S, 0)).get('return'))
        asking = threading.Thread(target=ask, daemon=True, name='hotsnap-agent')
        asking.start()
        asking.join(_AGENT_S)
        return answers == ['frozen']

    def libvirt_version(self) -> str:
        return libvirt_version(self._connection)

    def host_cpu(self) -> dict:
        """See :func:`host_cpu`."""
        return host_cpu(self._connection)

    def memory(self, address: int, length: int) -> bytes:
        """Guest-physical memory, at most 64 KiB; the guest may be paused."""
        with self._translated('memory'):
            return self._domain.memoryPeek(address, length, libvirt.VIR_MEMORY_PHYSICAL)


def define(connection, xml: str, member: records.MemberSpec) -> None:
    """Have a guest defined anew."""
    try:
        connection.defineXML(xml)
    except libvirt.libvirtError as exc:
        raise exception.HypervisorError(member=member, reason=f'definition: {exc}') from exc


def _lives(connection):
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _gone(connection, exc):
    """Whether it failed because libvirt went; the connection may not have noticed yet."""
    return (exc.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
            or not _lives(connection))


def load(connection, save_image: str, member: records.MemberSpec) -> None:
    """Start what a save image itself defines; it stands there, see `State.loaded`.

    :raises exception.HostUnreachable: libvirt has gone away; what became of it is not known
    :raises exception.HypervisorError: it does not start, in libvirt's and QEMU's words
    """
    try:
        connection.restoreFlags(save_image, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
    except libvirt.libvirtError as exc:
        if _gone(connection, exc):
            raise exception.HostUnreachable(host='libvirt', reason=str(exc)) from exc
        raise exception.HypervisorError(member=member, reason=str(exc)) from exc


def incompatible(connection, save_image: str, xml: str) -> str:
    """Why a definition does not fit a save image, which is changed; '' where it does."""
    try:
        connection.saveImageDefineXML(save_image, xml, 0)
    except libvirt.libvirtError as exc:
        return str(exc)
    return ''


def worded(connection, save_image: str) -> str:
    """The definition in a save image as libvirt words it today.

    :raises exception.InvalidValue: it makes nothing of it
    """
    try:
        return connection.saveImageGetXMLDesc(
            save_image, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    except libvirt.libvirtError as exc:
        raise exception.InvalidValue(name='definition', reason=str(exc)) from exc


def unread(connection, save_image: str) -> str:
    """Why libvirt cannot read a save image, whatever it makes of it; '' where it can."""
    try:
        connection.saveImageGetXMLDesc(save_image, 0)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in _UNREAD:
            return str(exc)
    return ''


def unknown_machine(connection, parsed) -> str:
    """Why this host has no such machine as a `DomainXml`'s; '' where it has."""
    try:
        connection.getDomainCapabilities(
            parsed.emulator or None, parsed.arch or None, parsed.machine or None,
            parsed.virt_type or None)
    except libvirt.libvirtError as exc:
        return str(exc)
    return ''


def unfit_host(connection, parsed, cpu_xml: str) -> str:
    """Why this host cannot give a guest this CPU; '' where it can, or libvirt cannot tell.

    :param parsed: the `DomainXml` of the guest
    """
    try:
        connection.compareHypervisorCPU(
            parsed.emulator or None, parsed.arch or None, parsed.machine or None,
            parsed.virt_type or None, cpu_xml,
            libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT,
                                    libvirt.VIR_ERR_OPERATION_UNSUPPORTED):
            return ''
        return str(exc)
    return ''


def host_cpu(connection) -> dict:
    """The processor of this host: vendor, model (family, model, stepping), microcode.

    What libvirt does not tell is empty.
    """
    try:
        found = domain.parsed(connection.getCapabilities()).find('./host/cpu')
    except libvirt.libvirtError:
        return {}
    if found is None:
        return {}
    signature = found.find('signature')
    microcode = found.find('microcode')
    return {'vendor': found.findtext('vendor', ''),
            'model': '' if signature is None else '.'.join(
                signature.get(part, '') for part in ('family', 'model', 'stepping')),
            'microcode': '' if microcode is None else microcode.get('version', '')}


def qemu_version(connection) -> str:
    """Of the QEMU that is installed now."""
    return _dotted(connection.getVersion())


def libvirt_version(connection) -> str:
    return _dotted(connection.getLibVersion())


def _dotted(number: int) -> str:
    return f'{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}'
