# SPDX-License-Identifier: Apache-2.0
"""Serial ports and channels: no gate sees what goes through them.

One that listens, as a serial console of Nova's does, leads to whoever comes, and
no member of a group comes but by one that connects. Of those, what stays on this host
can be followed by its path; the others may lead anywhere.
"""

import collections
import itertools
import os

from hotsnap_nova.virt import records
from hotsnap_nova.virt.checks import subject

_KINDS = ('serial', 'console', 'parallel', 'channel', 'redirdev', 'smartcard')
_FOLLOWED = ('unix', 'pipe', 'dev', 'pty')


def connecting(asked: subject.Subject):
    for device, kind, form, element in _ports(asked):
        listens = all(source.get('mode') == 'bind' for source in element.findall('source'))
        if form == 'udp' or (form == 'tcp' and not listens):
            yield (device, f'a {form} {kind} that connects may lead to another guest',
                   'let it listen, or use a pty, a file or a UNIX socket')


def meeting(members: list[subject.Subject]):
    """Findings on ports of members that lead to one another."""
    ends = collections.defaultdict(list)
    for asked in members:
        for device, kind, form, element in _ports(asked):
            source = element.find('source')
            path = source.get('path') if form in _FOLLOWED and source is not None else None
            if path:
                connects = form != 'pty' and source.get('mode') != 'bind'
                ends[os.path.realpath(path)].append((connects, asked, device, kind))
    for path, here in ends.items():
        for (_, asked, device, kind), (_, other, *_) in itertools.permutations(here, 2):
            if asked is not other and any(connects for connects, *_ in here):
                yield records.Finding(
                    asked.guest.spec, device, f'this {kind} leads to {other.guest.spec} by {path}',
                    'give each guest one of its own')


def _ports(asked: subject.Subject):
    """(device, kind, type, element); a console that only mirrors a serial port is left out."""
    seen = set()
    for kind in _KINDS:
        for element in asked.parsed.find_all(f'./devices/{kind}'):
            alias = element.find('alias')
            device = alias.get('name') if alias is not None else kind
            if alias is None or device not in seen:
                yield device, kind, element.get('type'), element
            seen.add(device)


RULES = (connecting,)
