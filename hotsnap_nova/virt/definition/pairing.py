# SPDX-License-Identifier: Apache-2.0
"""Which element of today's definition is which of the cut's."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

Pair = tuple[ET.Element | None, ET.Element | None]


def pairs(path: str, cut: list[ET.Element], today: list[ET.Element]) -> Iterator[Pair]:
    """Each of the cut's with its counterpart or None, in order; then what only today has.

    :param path: of these elements, which have one name
    """
    left = list(today)
    found: dict[int, ET.Element] = {}
    for key in _keys(path):
        for index, element in enumerate(cut):
            name = key(element, index)
            if index in found or name is None:
                continue
            match = next((other for place, other in enumerate(today)
                          if other in left and key(other, place) == name), None)
            if match is not None:
                found[index] = match
                left.remove(match)
    yield from ((element, found.get(index)) for index, element in enumerate(cut))
    yield from ((None, element) for element in left)


def source_of(disk: ET.Element) -> str | None:
    """The path of its image; None: it has none."""
    source = disk.find('source')
    return None if source is None else source.get('file') or source.get('dev')


def _keys(path):
    """Ways to tell what one is called, the better ones first; each: element, place → name."""
    return {'devices/disk': (_source, _target), 'devices/interface': (_mac,),
            'devices/controller': (_index,), 'devices/channel': (_channel, _place),
            }.get(path, (_place,))


def _source(disk, _place):
    return source_of(disk)


def _target(disk, _place):
    return _attribute(disk, 'target', 'dev')


def _mac(nic, _place):
    return (_attribute(nic, 'mac', 'address') or '').lower() or None


def _index(controller, _place):
    # Without an index it is one more of its kind, and nobody can tell which.
    return controller.get('index') and (controller.get('type'), controller.get('index'))


def _channel(channel, _place):
    return _attribute(channel, 'target', 'name')


def _place(_element, place):
    return place


def _attribute(element, child, name):
    found = element.find(child)
    return None if found is None else found.get(name)
