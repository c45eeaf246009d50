# SPDX-License-Identifier: Apache-2.0
"""What a restored guest is started with, and who says so.

Whoever defines guests says it: libvirt's own definition, or XML made anew by
Nova. That never has the addresses of devices nor an exact machine type, which a
restored guest finds where it left them; they are taken over from what libvirt
has defined.
"""

import copy
import xml.etree.ElementTree as ET

from hotsnap_nova.virt import domain

#: What libvirt makes of a machine type without a version begins so; others keep their name.
_FAMILIES = {'pc': 'pc-i440fx-', 'q35': 'pc-q35-'}


class Definitions:
    """Libvirt's: nobody else defines guests. With OpenStack, `nova.definitions`."""

    def xml(self, _member_id: str) -> str | None:
        """What the guest is to be started with; None: what libvirt has defined.

        :raises HotsnapError: there is no such thing
        """
        return None

    def stopped(self, _member_id: str) -> None:
        """The old guest is proved stopped: its ports go."""

    def starting(self, _member_id: str) -> None:
        """Return when its ports are there."""


def settled(wanted: str, defined: str) -> str:
    """``wanted``, with devices where ``defined`` has them and its version of the machine."""
    new, old = domain.DomainXml(wanted), domain.DomainXml(defined)
    if old.machine.startswith(_FAMILIES.get(new.machine, f'{new.machine}-')):
        new.root.find('./os/type').set('machine', old.machine)
    addresses = {key: device.find('address') for key, device in _devices(old.root)}
    present = set()
    for key, device in _devices(new.root):
        present.add(key)
        if device.find('address') is None and addresses.get(key) is not None:
            device.append(copy.deepcopy(addresses[key]))
    # Nova leaves it to libvirt to add those that devices need, which are plugged in there now.
    for key, device in _devices(old.root):
        if device.tag == 'controller' and key not in present:
            new.root.find('./devices').append(copy.deepcopy(device))
    return ET.tostring(new.root, encoding='unicode')


def _devices(root):
    """(what a device is called whoever defines it, device)."""
    count: dict[str, int] = {}
    for device in root.iterfind('./devices/*'):
        if device.tag == 'disk':
            name = device.find('target').get('dev')
        elif device.tag == 'interface':
            name = device.find('mac').get('address').lower()
        elif device.tag == 'controller':
            name = f'{device.get("type")} {device.get("index")}'
        else:
            name = count[device.tag] = count.get(device.tag, -1) + 1
        yield (device.tag, name), device
