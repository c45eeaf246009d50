# SPDX-License-Identifier: Apache-2.0
"""What servers are made of: the lab's guest as an image, flavor, network."""

import pathlib

from tests.cloud import neutron
from tests.cloud.services import Cloud
from tests.lab import disks, image, specification

IMAGE = 'lab'
FLAVOR = 'lab.small'
#: To resize to, and back.
LARGER = 'lab.larger'
NETWORK = 'lab'
MEMORY_MB = 128
LARGER_MEMORY_MB = 160
_DISK_GB = 1
#: The root disk as the lab knows its disks: Nova puts an overlay on a copy of the image.
DISK = specification.Disk(format='qcow2', backing='raw')


def make(cloud: Cloud) -> None:
    """The image's files, from the lab's cache."""
    image.image(config_drive=True)
    folder = _folder(cloud)
    folder.mkdir()
    disks.make_base(folder / 'disk.raw', DISK)


def upload(cloud: Cloud) -> None:
    """Image, flavor and network, for all projects."""
    boot = image.image(config_drive=True)
    with cloud.connect() as connection:
        kernel = _upload(connection, 'lab-kernel', boot.kernel, 'aki', 'aki')
        initramfs = _upload(connection, 'lab-initramfs', boot.initramfs, 'ari', 'ari')
        _upload(connection, IMAGE, _folder(cloud) / 'disk.raw', 'raw', 'bare',
                kernel_id=kernel.id, ramdisk_id=initramfs.id,
                os_command_line=' '.join(specification.KERNEL_WORDS),
                # The guest's kernel has no driver for the AHCI of a q35.
                hw_cdrom_bus='scsi', hw_scsi_model='virtio-scsi')
        # Its owner alone may ask for addresses in it.
        owner = connection.identity.find_project('demo', ignore_missing=False).id
        network = connection.network.create_network(
            name=NETWORK, provider_network_type='flat', shared=True, project_id=owner,
            provider_physical_network=neutron.PHYSICAL_NETWORK)
        connection.network.create_subnet(
            name=NETWORK, network_id=network.id, ip_version=4, cidr='10.20.0.0/24',
            gateway_ip=None, enable_dhcp=False, project_id=owner)
        for name, memory_mb in ((FLAVOR, MEMORY_MB), (LARGER, LARGER_MEMORY_MB)):
            connection.compute.create_flavor(name=name, ram=memory_mb, vcpus=1, disk=_DISK_GB)


def add(connection, name: str, path: pathlib.Path) -> None:
    """A qcow2 disk as an image for all projects."""
    _upload(connection, name, path, 'qcow2', 'bare')


def _upload(connection, name: str, path: pathlib.Path, disk_format: str,
            container_format: str, **properties):
    return connection.image.create_image(
        name=name, filename=str(path), disk_format=disk_format, visibility='public', wait=True,
        container_format=container_format, validate_checksum=False, **properties)


def _folder(cloud: Cloud) -> pathlib.Path:
    return cloud.settings.folder / 'image'
