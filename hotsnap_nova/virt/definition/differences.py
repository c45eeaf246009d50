# SPDX-License-Identifier: Apache-2.0
"""What was changed on purpose since a cut, so that its guest cannot wake here."""

import re
from collections.abc import Iterator

from hotsnap_nova.virt import domain
from hotsnap_nova.virt.definition import pairing, table

#: What libvirt makes of a machine type without a version.
_BOARDS = {'pc': 'pc-i440fx', 'q35': 'pc-q35'}
_WORDS = {'vcpu': 'vcpus', 'os/type@machine': 'machine', 'interface': 'NIC',
          'numa': 'NUMA layout'}
#: Of NICs whose kinds give QEMU the same: a tap, with a header in front of each packet.
_TAPS = ('bridge', 'direct', 'ethernet', 'network')
_REMEDY = 'define the hardware of the snapshot; with Nova, resize it back'


def differences(cut_xml: str, today_xml: str) -> Iterator[tuple[str, str, str]]:
    """Yield device, cause, remedy for each difference that `table` refuses.

    Which disks came and went is not told here: it takes more than definitions.

    :param cut_xml: of the guest when it ran
    :param today_xml: as it is defined now; both as the same libvirt words them
    """
    cut, today = domain.parsed(cut_xml), domain.parsed(today_xml)
    yield from _element('', '', cut, today)


def _element(path, device, cut, today):
    """Of one element that at least one of the two has.

    :param device: that it is a part of; empty: none
    """
    rule = table.rule_of(path)
    if rule.whose.todays and table.is_whole(path):
        return
    if cut is None or today is None:
        if rule.refused and path != 'devices/disk':
            yield (device or _word(path), f'this {_word(path)} is '
                   f'{"gone" if today is None else "new since the snapshot"}', _remedy(path))
            return
        if path.startswith('devices/'):
            if not rule.whose.todays:
                yield from _served(path, device or _word(path), cut)
            return
    if _counts(rule, _size(cut)) and _size(cut) != _size(today):
        yield (device or _word(path), f'it had {_size(cut) or "none"} and has now '
               f'{_size(today) or "none"}', _REMEDY)
    yield from _attributes(path, device, cut, today)
    for tag in dict.fromkeys(child.tag for child in (*_all(cut), *_all(today))):
        below = f'{path}/{tag}'.lstrip('/')
        pairs = pairing.pairs(below, _all(cut, tag), _all(today, tag))
        for place, pair in enumerate(pairs):
            yield from _element(below, device or _device(below, place, *pair), *pair)


def _attributes(path, device, cut, today):
    for name in sorted({*_said(cut), *_said(today)}):
        where = f'{path}@{name}'
        before, now = _said(cut).get(name), _said(today).get(name)
        if _counts(table.rule_of(where), before) and _known(where, before) != _known(where, now):
            subject = 'it' if where in _WORDS else f'its {where.rpartition("/")[2].lstrip("@")}'
            yield (device or _word(where), f'{subject} was {before or "not set"} and is now '
                   f'{now or "not set"}', _REMEDY)
    if path == 'devices/interface' and _kind(cut) != _kind(today):
        # QEMU says no: there is a header in front of each packet, or none.
        yield (device, f'it was of type {cut.get("type")} and is now of type '
               f'{today.get("type")}', 'give it the ports of the snapshot')


def _counts(rule, before):
    """Whether a difference from what the cut had is refused."""
    return bool(rule.refused) or (not rule.whose.todays and table.is_path(before))


def _served(path, device, cut):
    """Of a device that is not defined today: with which files of its host the cut had it."""
    if cut is None or table.rule_of(path).whose is table.Whose.IDENTITY:
        return
    said = {f'{path}@{name}': value for name, value in cut.attrib.items()} | {path: cut.text}
    for where, value in said.items():
        if table.rule_of(where).whose is not table.Whose.IDENTITY and table.is_path(value):
            yield device, f'it is gone, and {value.strip()} was behind it', _REMEDY
    for child in cut:
        yield from _served(f'{path}/{child.tag}', device, child)


def _known(where, value):
    """What counts of an attribute."""
    if where == 'os/type@machine' and value:
        return re.match(r'pc-i440fx|pc-q35|.*?(?=-(?:rhel)?\d|$)', _BOARDS.get(value, value))[0]
    if where.endswith('interface/mac@address') and value:
        return value.lower()
    return value


def _kind(nic):
    return 'tap' if nic.get('type') in _TAPS else nic.get('type')


def _size(element):
    """An element's text, in words."""
    text = ((element.text if element is not None else None) or '').strip()
    if text and element.tag == 'memory' and element.get('unit', 'KiB') == 'KiB':
        return f'{int(text) >> 10} MiB'
    return text


def _device(path, place, cut, today):
    """What people call a device."""
    element = today if cut is None else cut
    if not re.fullmatch('devices/[^/]+', path):
        return ''
    if path == 'devices/disk':
        return element.find('target').get('dev')
    if path == 'devices/interface':
        return element.find('mac').get('address').lower()
    return f'{element.tag} {place}' if place else element.tag


def _word(path):
    """What people call what is at a path."""
    last = path.rpartition('/')[2]
    return _WORDS.get(path) or _WORDS.get(last) or last.rpartition('@')[2] or 'domain'


def _remedy(path):
    return 'give it the ports of the snapshot' if path == 'devices/interface' else _REMEDY


def _said(element):
    return {} if element is None else element.attrib


def _all(element, tag=None):
    return [] if element is None else element.findall(tag or '*')
