# SPDX-License-Identifier: Apache-2.0
"""Whose word counts for each part of a domain's definition: the cut's or today's.

A guest's memory finds the hardware it ran on. Who the guest is and what the host gives it may
have changed since, and is as it is today. A difference in hardware that was changed on purpose,
and in what is not in this table, is refused. So is one between paths, which are always today's.

Paths are elements; ``.`` is the one that a section is about, ``@`` an attribute, ``/**`` an
element with all that is in it, ``*`` any device. The nearest path counts, an exact one first.
"""

import dataclasses
import enum
import functools


class Whose(enum.Enum):
    """Whose word counts."""

    #: Who the guest is: names, owners, ports, tokens, passwords, paths. Today's.
    IDENTITY = 'identity'
    #: What this host gives it and the guest does not see. Today's.
    HOST = 'host'
    #: What the guest sees. The cut's.
    HARDWARE = 'hardware'

    @property
    def todays(self) -> bool:
        return self is not Whose.HARDWARE


@dataclasses.dataclass(frozen=True)
class Rule:
    """What holds for some paths.

    :ivar refused: which differences are refused, in words; empty: none, the cut's holds
    """

    whose: Whose
    paths: str
    why: str
    refused: str = ''


@dataclasses.dataclass(frozen=True)
class Section:
    """Rules about ``elements``, below the domain; empty: about the domain itself."""

    title: str
    elements: tuple[str, ...]
    rules: tuple[Rule, ...]


_ANY = 'any'
_IDENTITY, _HOST, _HARDWARE = Whose.IDENTITY, Whose.HOST, Whose.HARDWARE

SECTIONS = (
    Section('The domain', ('',), (
        Rule(_IDENTITY, 'name uuid title description metadata/** @id',
             'who it is, and what its owner and Nova note about it'),
        Rule(_IDENTITY, 'on_poweroff on_reboot on_crash on_lockfailure',
             'what becomes of it is its owner\'s wish of today'),
        Rule(_IDENTITY, 'os/kernel os/initrd os/cmdline os/dtb os/shim os/nvram/** os/varstore/**',
             'paths, and what is read again only when it starts anew'),
        Rule(_HOST, 'memory@dumpCore memoryBacking/hugepages/** memoryBacking/nosharepages '
             'memoryBacking/locked memoryBacking/access/** memoryBacking/allocation/** '
             'memoryBacking/discard memtune/** blkiotune/** cputune/** numatune/** '
             ' resource/** throttlegroups/** iothreads iothreadids/** '
             'defaultiothread/** perf/** idmap/** seclabel/** vcpu@placement vcpu@cpuset '
             'cpu/numa/cell@memAccess cpu/numa/cell@discard',
             'limits, pinning, huge pages, labels'),
        Rule(_HOST, 'features/tcg/** features/async-teardown/**', 'how QEMU itself works'),
        Rule(_HARDWARE, '@type', 'KVM and TCG write other memory', _ANY),
        Rule(_HARDWARE, 'memory maxMemory/** vcpu vcpu@current vcpus/** cpu/numa/**',
             'its flavor', 'any: it was resized'),
        Rule(_HARDWARE, 'memoryBacking memoryBacking/source/**', 'what QEMU calls its memory'),
        Rule(_HARDWARE, 'memory@unit', 'part of the size'),
        Rule(_HARDWARE, 'currentMemory/**', 'what its balloon had left it'),
        Rule(_HARDWARE, 'cpu/**', 'the CPU as it ran; the host is asked whether it has it'),
        Rule(_HARDWARE, 'os os@firmware os/boot/** os/bootmenu/** os/bios/** os/smbios/** '
             'os/firmware/** os/loader/** os/acpi/**', 'how it started, and would start again'),
        Rule(_HARDWARE, 'os/type os/type@arch', 'its kind of machine', _ANY),
        Rule(_HARDWARE, 'os/type@machine', 'its board, with the version it had',
             'another board, not another version'),
        Rule(_HARDWARE, 'sysinfo/**', 'SMBIOS strings: Nova writes its own release there'),
        Rule(_HARDWARE, 'features/** clock/** pm/** genid keywrap/**', 'what its kernel found'),
        Rule(_HARDWARE, 'launchSecurity/**', 'its memory is encrypted, or not', _ANY),
    )),
    Section('Devices', ('devices',), (
        Rule(_IDENTITY, 'graphics/**', 'consoles: ports, addresses, passwords'),
        Rule(_IDENTITY, 'redirdev/source/** redirdev/protocol/** smartcard/source/** '
             'smartcard/protocol/** smartcard/certificate smartcard/database',
             'where it leads'),
        Rule(_HOST, 'emulator', 'where this host has QEMU'),
        Rule(_IDENTITY, 'sound/audio/** controller/driver@iothread controller/driver/iothreads/**',
             'what else of today it is tied to'),
        Rule(_HOST, 'audio/** input/source/** lease/** memballoon/stats/** watchdog@action '
             'video/model/acceleration@rendernode rng/backend/** rng/rate/** crypto/backend/**',
             'what serves it; of a device that is not defined today, what did'),
        Rule(_HARDWARE, '. */address/** */alias/** */boot/** */rom/** */acpi/**',
             'which there are, where they are plugged in, option ROMs'),
        Rule(_HARDWARE, 'controller/** input/** hub/** video/** sound/** panic/** iommu/** '
             'nvram/** pstore/** memballoon/** watchdog/** rng/** crypto/** smartcard/** '
             'redirdev/** redirfilter/**',
             'settings of Nova and defaults of libvirt add, take and change them'),
        Rule(_HARDWARE, 'hostdev/** filesystem/** tpm/** memory/** shmem/** vsock/**',
             'its flavor or image', 'any: it was resized or rebuilt'),
    )),
    Section('A disk', ('devices/disk',), (
        Rule(_IDENTITY, '@type source/** backingStore/** mirror/** auth/** encryption/** '
             'transient/** driver driver@type target@tray backenddomain/** privateData/**',
             'where its image is'),
        Rule(_HOST, '@snapshot @rawio @sgio iotune/** throttlefilters/** driver@name '
             'driver@cache driver@io driver@error_policy driver@rerror_policy '
             'driver@copy_on_read driver@discard driver@discard_no_unref driver@detect_zeroes '
             'driver@ioeventfd driver@iothread driver/iothreads/** driver/metadata_cache/** '
             'driver/statistics/**', 'how it is served'),
        Rule(_HARDWARE, '.', 'found again by path, serial and size',
             'a writable one that came, went or is another'),
        Rule(_HARDWARE, 'serial', 'by which guests know it', _ANY),
        Rule(_HARDWARE, '@device @model target target@dev target@bus target@removable '
             'target@rotation_rate geometry/** blockio/** wwn vendor product readonly shareable '
             'driver@queues driver@queue_size driver@event_idx driver@iommu driver@ats '
             'driver@packed driver@page_per_vq', 'what the guest sees of it'),
    )),
    Section('A NIC', ('devices/interface',), (
        Rule(_IDENTITY, '@type source/** target/** virtualport/** vlan/** port/** link/** ip/** '
             'route/** guest/** script/** downscript/** portForward/** backenddomain/**',
             'its port'),
        Rule(_HOST, '@trustGuestRxFilters @managed mac@type mac@check mac@currentAddress '
             'filterref/** bandwidth/** backend/** coalesce/** tune/** driver driver@name '
             'driver@txmode driver@ioeventfd', 'how it is served'),
        Rule(_HARDWARE, '. mac mac@address', 'found again by its address',
             'one that came or went, or is no tap any more: its ports changed'),
        Rule(_HARDWARE, 'model/** mtu/** teaming/** driver@queues driver@model '
             'driver@rx_queue_size driver@tx_queue_size driver@event_idx driver@rss '
             'driver@rss_hash_report driver@iommu driver@ats driver@packed driver@page_per_vq '
             'driver/host/** driver/guest/**', 'what the guest sees of it'),
    )),
    Section('A serial port, console or channel', tuple(
        f'devices/{kind}' for kind in ('serial', 'console', 'parallel', 'channel')), (
        Rule(_IDENTITY, '@type @tty source/** protocol/** log/**',
             'where it leads; what is not defined today leads nowhere'),
        Rule(_HARDWARE, '. target/**', 'what the guest sees of it'),
    )),
)

#: Of what is in no section.
UNKNOWN = Rule(_HARDWARE, '', 'what is not known may be seen by the guest', _ANY)


#: Paths that mean the same on every host.
_EVERYWHERE = ('/dev/random', '/dev/urandom', '/dev/hwrng')


def is_path(value: str | None) -> bool:
    """Whether an attribute or text names a file of a host. None is taken from the cut."""
    value = (value or '').strip()
    return value.startswith('/') and value not in _EVERYWHERE


def _joined(element, path):
    if path == '.':
        return element
    return f'{element}{path}' if path.startswith('@') else f'{element}/{path}'.lstrip('/')


_BY_PATH = {_joined(element, path): rule for section in SECTIONS for element in section.elements
            for rule in section.rules for path in rule.paths.split()}


@functools.cache
def rule_of(path: str) -> Rule:
    """The rule for an element or attribute, by its path below the domain."""
    return _exact(path) or _above(path) or UNKNOWN


@functools.cache
def is_whole(path: str) -> bool:
    """Whether its rule is that of all that is in it, too."""
    return _exact(path) is None and _above(path) is not None


def _exact(path):
    return next((_BY_PATH[form] for form in _forms(path) if form in _BY_PATH), None)


def _above(path):
    element = path.partition('@')[0]
    while element:
        for form in _forms(element):
            if f'{form}/**' in _BY_PATH:
                return _BY_PATH[f'{form}/**']
        element = element.rpartition('/')[0]
    return None


def _forms(path):
    yield path
    head, *below = path.split('/', 2)
    if head == 'devices' and len(below) == 2:
        yield f'devices/*/{below[1]}'
