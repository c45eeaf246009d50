# SPDX-License-Identifier: Apache-2.0
"""A definition with the hardware of the cut and all else as it is today."""

import contextlib
import copy
import io
import xml.etree.ElementTree as ET

from hotsnap_nova.virt import domain
from hotsnap_nova.virt.definition import pairing, table

#: What QEMU serves by SPICE alone. QXL is not among it: with VNC it has a server of its own within
#: QEMU, which listens nowhere, and its memory is the same.
_SPICE = ("./devices/channel[@type='spicevmc']", "./devices/redirdev[@type='spicevmc']",
          "./devices/smartcard[@type='spicevmc']")
_PORTS = ('serial', 'parallel', 'console', 'channel')


def merged(cut_xml: str, today_xml: str) -> str:
    """What the guest of the cut is to be started with today, by `table`.

    :param cut_xml: of the guest when it ran, with the images its disks had
    :param today_xml: as somebody defines it now: libvirt's words, or Nova's, which leave
        much to libvirt
    """
    cut, today = _parsed(cut_xml), _parsed(today_xml)
    root = _element('', cut, today)
    _lead_nowhere(root)
    _mirror(root)
    serve_spice(root)
    return ET.tostring(root, encoding='unicode')


def _parsed(text):
    for _event, (prefix, uri) in ET.iterparse(    # noqa: S314 - for the reason of domain.parsed
            io.StringIO(text), ['start-ns']):
        with contextlib.suppress(ValueError):    # ns0, of those that know no better
            ET.register_namespace(prefix, uri)    # what is written is called as it was
    return domain.parsed(text)


def _element(path, cut, today, orphan=False):
    """One element of what the two have to say; None: there is none.

    :param orphan: it is a part of a device that is not defined today
    """
    giver = _giver(path, cut, today, orphan)
    if giver is not cut and table.is_whole(path):
        return copy.deepcopy(giver)
    # Whether there is a device at all is its owner's word alone.
    if giver is None and path.count('/') == 1:
        return None
    orphan = orphan or (today is None and path.startswith('devices/')
                        and path.count('/') == 1)
    found = ET.Element((cut if today is None else today).tag)
    found.text = _value(giver, today, _text)
    for name in dict.fromkeys((*_names(cut), *_names(today))):
        said = _giver(f'{path}@{name}', cut, today, orphan)
        value = _value(said, today, lambda element, name=name: _names(element).get(name))
        if value is not None:
            found.set(name, value)
    for tag in dict.fromkeys((*_tags(cut), *_tags(today))):
        below = f'{path}/{tag}'.lstrip('/')
        for pair in pairing.pairs(below, _children(cut, tag), _children(today, tag)):
            child = _element(below, *pair, orphan)
            if child is not None:
                found.append(child)
    return found if giver is not None or len(found) or found.attrib else None


def _giver(path, cut, today, orphan):
    """Whose word counts for what is at a path."""
    whose = table.rule_of(path).whose
    cuts = whose is table.Whose.HARDWARE or (orphan and whose is table.Whose.HOST)
    return cut if cuts else today


def _value(giver, today, get):
    """A text or attribute; whoever could write to a store must not name files here."""
    value = get(giver)
    return get(today) if giver is not today and table.is_path(value) else value


def _text(element):
    return None if element is None else element.text


def _names(element):
    return {} if element is None else element.attrib


def _tags(element):
    return () if element is None else (child.tag for child in element)


def _children(element, tag):
    return [] if element is None else element.findall(tag)


def _lead_nowhere(root):
    """Ports of the cut that are not defined today."""
    for kind in _PORTS:
        for port in root.iterfind(f'./devices/{kind}'):
            if port.get('type') is None:
                port.set('type', 'null')


def _mirror(root):
    """libvirt itself adds the console that is the first serial port."""
    devices = root.find('./devices')
    if devices.find('serial') is not None:
        for console in devices.findall('console'):
            if (target := console.find('target')) is None or target.get('type') == 'serial':
                devices.remove(console)


def serve_spice(root):
    """Have SPICE, which leads nowhere, for hardware that there is with it alone."""
    if (any(root.find(path) is not None for path in _SPICE)
            and root.find("./devices/graphics[@type='spice']") is None):
        graphics = ET.SubElement(root.find('./devices'), 'graphics', {'type': 'spice'})
        ET.SubElement(graphics, 'listen', {'type': 'none'})
