# SPDX-License-Identifier: Apache-2.0
"""A domain's XML as the engine reads it: disks, NICs, memory, machine."""

import dataclasses
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable

_AGENT = 'org.qemu.guest_agent.0'


@dataclasses.dataclass(frozen=True)
class DiskXml:
    """One ``<disk>``; ``path`` is empty where its source is not a file or device.

    :ivar chained: the XML names a backing file, which libvirt then insists on
    """

    target: str
    alias: str
    device: str
    kind: str
    form: str
    path: str
    readonly: bool
    shareable: bool
    transient: bool
    encrypted: bool
    chained: bool
    serial: str

    @property
    def writable(self) -> bool:
        return self.device in ('disk', 'lun') and not self.readonly

    @property
    def medium(self) -> bool:
        """Read-only and backed by a file: accepted, and digested instead of copied."""
        return ((self.readonly or self.device == 'cdrom') and self.kind == 'file'
                and bool(self.path))


@dataclasses.dataclass(frozen=True)
class NicXml:
    """One ``<interface>``."""

    target: str
    alias: str
    kind: str
    model: str
    driver: str
    queues: int
    mac: str
    #: That its network filter is told of.
    ips: tuple[str, ...] = ()

    @property
    def netdev(self) -> str:
        """The id libvirt gives QEMU's back end."""
        return f'host{self.alias}'


class DomainXml:
    """Parsed domain XML of a running guest (with aliases) or a definition."""

    def __init__(self, text: str):
        self.root = parsed(text)

    def _text(self, path: str) -> str:
        element = self.root.find(path)
        return (element.text or '').strip() if element is not None else ''

    @property
    def uuid(self) -> str:
        return self._text('./uuid')

    @property
    def virt_type(self) -> str:
        return self.root.get('type', '')

    @property
    def emulator(self) -> str:
        return self._text('./devices/emulator')

    @property
    def machine(self) -> str:
        element = self.root.find('./os/type')
        return element.get('machine', '') if element is not None else ''

    @property
    def arch(self) -> str:
        element = self.root.find('./os/type')
        return element.get('arch', '') if element is not None else ''

    @property
    def cpu(self) -> ET.Element | None:
        return self.root.find('./cpu')

    @property
    def cpu_xml(self) -> str:
        return '' if self.cpu is None else ET.tostring(self.cpu, encoding='unicode')

    @property
    def cpu_name(self) -> str:
        cpu = self.cpu
        if cpu is None:
            return 'default'
        model = cpu.find('model')
        return (model.text if model is not None and model.text else cpu.get('mode', 'default'))

    @property
    def memory_bytes(self) -> int:
        element = self.root.find('./memory')
        unit = {'b': 1, 'bytes': 1, 'KB': 1000, 'KiB': 1024, 'k': 1024, 'MiB': 1 << 20,
                'M': 1 << 20, 'GiB': 1 << 30, 'G': 1 << 30}[element.get('unit', 'KiB')]
        return int(element.text) * unit

    @property
    def vcpus(self) -> int:
        return int(self._text('./vcpu') or 1)

    @property
    def running_vcpus(self) -> int:
        """How many of its processors it has now; others may be plugged in."""
        element = self.root.find('./vcpu')
        return int(element.get('current', 0) or self.vcpus) if element is not None else 1

    @property
    def agent(self) -> bool:
        """Whether a guest agent may answer."""
        return any(target.get('name') == _AGENT
                   for target in self.root.iterfind('./devices/channel/target'))

    @property
    def agent_listens(self) -> bool:
        """Whether the guest has opened its agent's channel; known while it runs."""
        return any(target.get('name') == _AGENT and target.get('state') == 'connected'
                   for target in self.root.iterfind('./devices/channel/target'))

    def find_all(self, path: str) -> list[ET.Element]:
        return self.root.findall(path)

    @property
    def disks(self) -> tuple[DiskXml, ...]:
        return tuple(_disk(element) for element in self.root.iterfind('./devices/disk'))

    @property
    def images(self) -> tuple[tuple[str, str], ...]:
        """(path, format) of all that is a disk's source, the chains below it and copies included.

        A format that is not said is empty; of a disk itself it is raw then, to libvirt, too.
        """
        found = []
        for disk in self.root.iterfind('./devices/disk'):
            for layer in disk.iter():
                source = layer.find('source')
                path = '' if source is None else source.get('file') or source.get('dev')
                if path:
                    found.append((path, _child(disk, 'driver', 'type') or 'raw' if layer is disk
                                  else _child(layer, 'format', 'type')))
        return tuple(found)

    @property
    def nics(self) -> tuple[NicXml, ...]:
        return tuple(_nic(element) for element in self.root.iterfind('./devices/interface'))

    def vhost(self, nic: NicXml) -> bool:
        """libvirt takes vhost where it may: KVM, virtio, and nothing said against it."""
        if nic.driver == 'vhost':
            return True
        return (self.virt_type == 'kvm' and nic.driver != 'qemu'
                and nic.model.startswith('virtio')
                and nic.kind in ('bridge', 'network', 'ethernet', 'direct')
                and os.path.exists('/dev/vhost-net'))

    @property
    def passes_qemu(self) -> bool:
        """Whether a NIC's packets pass QEMU's filters by, or these refuse it."""
        return any(self.vhost(nic) or nic.queues > 1 for nic in self.nics)


def parsed(text: str) -> ET.Element:
    """The element that a text is: libvirt's words, or Nova's, be they out of a store.

    :raises xml.etree.ElementTree.ParseError: it is none
    """
    # S314 warns of texts that others wrote. Neither libvirt nor Nova writes entities; expat opens
    # no files for them, and refuses those that would grow without bound.
    return ET.fromstring(text)  # noqa: S314 - see above


def with_paths(text: str, find: Callable[[str, str], tuple[str, str] | None]) -> str:
    """Domain XML whose disks from storage pools name their files or devices.

    :param find: gives type (``file``, ``block``) and path of a pool's volume; None: such a disk
        stays as it is
    """
    if "type='volume'" not in text:
        return text
    root = parsed(text)
    for disk in root.iterfind("./devices/disk[@type='volume']"):
        source = disk.find('source')
        if source is None or not (found := find(source.get('pool', ''),
                                                source.get('volume', ''))):
            continue
        kind, path = found
        disk.set('type', kind)
        for name in ('pool', 'volume', 'mode'):
            source.attrib.pop(name, None)
        source.set({'file': 'file', 'block': 'dev'}[kind], path)
    return ET.tostring(root, encoding='unicode')


def _child(element: ET.Element, path: str, attribute: str) -> str:
    child = element.find(path)
    return child.get(attribute, '') if child is not None else ''


def _disk(element: ET.Element) -> DiskXml:
    source = element.find('source')
    path = ''
    if source is not None:
        path = source.get('file') or source.get('dev') or ''
    return DiskXml(
        target=_child(element, 'target', 'dev'),
        alias=_child(element, 'alias', 'name'),
        device=element.get('device', 'disk'),
        kind=element.get('type', ''),
        form=_child(element, 'driver', 'type') or 'raw',
        path=path,
        readonly=element.find('readonly') is not None,
        shareable=element.find('shareable') is not None,
        transient=element.find('transient') is not None,
        encrypted=(element.find('encryption') is not None
                   or element.find('./source/encryption') is not None),
        chained=element.find('./backingStore/source') is not None,
        serial=element.findtext('serial', '').strip())


def _nic(element: ET.Element) -> NicXml:
    return NicXml(
        target=_child(element, 'target', 'dev'),
        alias=_child(element, 'alias', 'name'),
        kind=element.get('type', ''),
        model=_child(element, 'model', 'type'),
        driver=_child(element, 'driver', 'name'),
        queues=int(_child(element, 'driver', 'queues') or 1),
        mac=_child(element, 'mac', 'address').lower(),
        ips=tuple(each.get('value', '') for each in element.iterfind('./filterref/parameter')
                  if each.get('name') in ('IP', 'IPV6')))
