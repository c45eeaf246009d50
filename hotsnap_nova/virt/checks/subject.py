# SPDX-License-Identifier: Apache-2.0
"""A running guest as the rules look at it."""

import functools

from hotsnap_nova.virt import definitions, domain, guest
from hotsnap_nova.virt.disks import freezing


class Subject:
    """Asked once for what several rules want to know; nothing is changed.

    :param connection: to its libvirt
    :param volumes: those of its disks that are a volume service's
    :ivar parsed: its XML as it runs
    """

    def __init__(self, running: guest.Guest, connection,
                 volumes: tuple[definitions.Volume, ...] = ()):
        self.guest = running
        self.qemu = running.monitor
        self.connection = connection
        self.volumes = volumes
        self.parsed = domain.DomainXml(running.full_xml())

    @functools.cached_property
    def xml(self) -> str:
        """As it runs, in the form that a snapshot keeps."""
        return self.guest.xml()

    @functools.cached_property
    def images(self) -> dict[str, dict]:
        """What QEMU tells of each writable disk's image, and all below it, by target."""
        return {target: row['inserted']['image'] for target, row in self._rows.items()}

    @functools.cached_property
    def bitmaps(self) -> dict[str, tuple[str, ...]]:
        """Names of those that QEMU will write to a disk's image when it ends, by target."""
        return {target: tuple(each['name'] for each in row['inserted'].get('dirty-bitmaps', ())
                              if each.get('persistent'))
                for target, row in self._rows.items()}

    @functools.cached_property
    def _rows(self):
        return freezing.running_disks(
            self.qemu.block_devices(),
            {disk.alias: disk.target for disk in self.parsed.disks if disk.writable})


def layers(image: dict):
    """Of QEMU's word on an image: this one and each below it."""
    while image:
        yield image
        image = image.get('backing-image')
