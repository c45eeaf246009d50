# SPDX-License-Identifier: Apache-2.0
"""What a lab guest is made of, and its libvirt XML."""

import dataclasses
import pathlib
from xml.sax import saxutils

from tests.lab import image

# One huge page holds the counters; TCG's own clock is good enough, and reading
# the emulated timers instead costs an exit each time.
KERNEL_WORDS = ('console=ttyS0', 'quiet', 'loglevel=3', 'no_timer_check', 'hugepages=1',
                'tsc=reliable', 'mitigations=off', 'nowatchdog', 'panic=-1')


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk. ``backing`` is the format of a base image below it, if any."""

    format: str = 'qcow2'
    backing: str | None = None
    iothread: bool = False
    size_mb: int = 32
    cache: str = 'none'


@dataclasses.dataclass(frozen=True)
class Workload:
    """What the guest does; the defaults leave most of a small machine idle."""

    rate: int = 25                # messages a second, each link, each way; at least 1
    message_bytes: int = 512      # longest
    dirty_rate: int = 500         # pages a second
    dirty_mb: int = 8             # within this much memory
    fill_mb: int = 0              # memory written once, not zero
    disk_ms: int = 50             # between blocks, each disk
    slots: int = 1024             # blocks before the first is overwritten
    tick_us: int = 4000           # each wakes the guest: its greatest cost under TCG

    def arguments(self) -> list[str]:
        return [f'{name}={value}' for name, value in dataclasses.asdict(self).items()]


@dataclasses.dataclass(frozen=True)
class GuestSpec:
    """One member. The default is the smallest; WIDE has two of everything."""

    memory_mb: int = 128
    vcpus: int = 1
    nics: int = 1
    disks: tuple[Disk, ...] = (Disk(),)
    machine: str = 'pc'
    host: int = 0                 # which of the lab's hosts
    nic_driver: str = "name='qemu'"          # attributes of <driver>; no vhost
    cpu_xml: str = ''             # <cpu>; QEMU's default where there is none
    devices_xml: str = ''         # more devices, for what a preflight must judge
    workload: Workload = Workload()


WIDE = GuestSpec(vcpus=2, nics=2, memory_mb=160, machine='q35', disks=(
    Disk(format='qcow2', backing='raw'), Disk(format='raw', iothread=True)))


def kernel_arguments(spec: GuestSpec, number: int, count: int) -> str:
    """The guest's kernel command line; ``lab.`` words reach the workload."""
    return ' '.join([*KERNEL_WORDS, *(f'lab.{word}' for word in
                                      workload_arguments(spec, number, count))])


def workload_arguments(spec: GuestSpec, number: int, count: int) -> list[str]:
    """What the guest's workload is told."""
    words = [f'guest={number}', f'guests={count}', *spec.workload.arguments()]
    return words + [f'disk=/dev/vd{chr(ord("a") + index)}' for index in range(len(spec.disks))]


def domain_xml(name: str, spec: GuestSpec, boot: image.Image, command_line: str,
               disk_paths: list[pathlib.Path], console: pathlib.Path, bridge: str,
               mac_prefix: str) -> str:
    """The domain as libvirt defines it."""
    disks = ''.join(_disk_xml(index, disk, path) for index, (disk, path)
                    in enumerate(zip(spec.disks, disk_paths, strict=True)))
    nics = ''.join(f'''
    <interface type='bridge'>
      <mac address='{mac_prefix}:{index:02x}'/>
      <source bridge='{bridge}'/>
      <model type='virtio'/>
      <driver {spec.nic_driver}/>
      <rom enabled='no'/>
    </interface>''' for index in range(spec.nics))
    iothreads = sum(disk.iothread for disk in spec.disks)
    return f'''<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{spec.memory_mb}</memory>
  <vcpu>{spec.vcpus}</vcpu>
  {f"<iothreads>{iothreads}</iothreads>" if iothreads else ""}
  <os>
    <type arch='x86_64' machine='{spec.machine}'>hvm</type>
    <kernel>{boot.kernel}</kernel>
    <initrd>{boot.initramfs}</initrd>
    <cmdline>{saxutils.escape(command_line)}</cmdline>
  </os>
  <features><acpi/></features>
  {spec.cpu_xml}
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}{nics}
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{console}' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
    {spec.devices_xml}
  </devices>
</domain>
'''


def _disk_xml(index: int, disk: Disk, path: pathlib.Path) -> str:
    iothread = " iothread='1'" if disk.iothread else ''
    return f'''
    <disk type='file' device='disk'>
      <driver name='qemu' type='{disk.format}' cache='{disk.cache}'{iothread}/>
      <source file='{path}'/>
      <target dev='vd{chr(ord("a") + index)}' bus='virtio'/>
    </disk>'''
