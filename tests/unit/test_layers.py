# SPDX-License-Identifier: Apache-2.0
"""Imports point down, and the protocol stays pure. Reads the source, runs none of it."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2] / 'hotsnap_nova'

#: Anyone may import these; they import only each other.
GROUND = {'exception', 'conf', '__init__'}

#: What each part may import besides itself, GROUND and other people's packages.
MAY_IMPORT = {
    'protocol': set(),
    'pace': set(),
    'sparse': set(),
    'unwaited': set(),
    'virt': {'pace', 'sparse', 'unwaited'},
    'storage': {'pace', 'sparse'},
    'db': set(),
    'rpc': set(),
    'runner': {'protocol'},
    'measurements': {'protocol'},
    'compute': {'runner', 'rpc', 'measurements', 'protocol', 'virt', 'storage', 'unwaited'},
    'conductor': {'runner', 'rpc', 'measurements', 'protocol', 'db', 'compute.rpcapi'},
    'policies': set(),
    'terminal': set(),
    'api': {'conductor.rpcapi', 'policies'},
    'client': set(),
    'osc': {'client', 'terminal'},
    'horizon': {'client'},
    'heat': {'client'},
    'nova': {'compute', 'rpc', 'virt.records', 'virt.definitions', 'virt.files'},
    'cmd': {'conductor', 'compute', 'client', 'runner', 'rpc', 'db', 'terminal'},
}

#: What calls libvirt and QEMU or reads their XML, and the engine's seams: below all rooms of virt.
FOOT = {'records', 'domain', 'monitor', 'guest', 'files', 'definitions', 'outliving'}

#: What each room of virt, and each module above the rooms, may import besides itself and FOOT.
ROOMS = {
    'gates': set(),
    'disks': set(),
    'memory': set(),
    'definition': {'memory'},
    'sweep': {'gates', 'disks'},
    'checks': {'definition', 'disks', 'gates', 'memory', 'sweep'},
    'restore': {'checks', 'definition', 'disks', 'memory'},
    'guardian': {'gates', 'sweep'},
    'member': {'gates', 'disks', 'memory', 'checks', 'sweep'},
    'cuts': set(),
    'host': {'cuts', 'disks', 'gates', 'checks', 'restore', 'sweep', 'guardian', 'member'},
}

#: What pure code may import: a result depends on arguments alone.
PURE = {'__future__', 'abc', 'bisect', 'collections', 'copy', 'dataclasses', 'enum', 'functools',
        'heapq', 'itertools', 'math', 'operator', 'string', 'types', 'typing'}

#: Who alone may touch an adapter's library.
OWNERS = {
    'nova': {'api', 'nova', 'conductor.cells', 'cmd.conductor', 'cmd.status'},
    'libvirt': {'virt'}, 'libvirt_qemu': {'virt'}, 'qemu': {'virt'}, 'lxml': {'virt'},
    'pyroute2': {'virt.gates'},
    'sqlalchemy': {'db'}, 'alembic': {'db'}, 'oslo_db': {'db', 'conductor.cells'},
    'oslo_messaging': {'rpc', 'conductor', 'compute', 'cmd', 'nova'},
    'cliff': {'cmd', 'osc', 'terminal'},
}


def imports(tree, module):
    """Every dotted name imported by ``module``'s source, functions' own imports included."""
    package = module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = package.split('.')
                base = '.'.join(parts[:len(parts) - node.level + 1] + ([base] if base else []))
            if base == 'hotsnap_nova' or base.startswith('hotsnap_nova.'):
                yield from (f'{base}.{alias.name}' for alias in node.names)
            else:
                yield base


def within(name, allowed):
    return any(name == one or name.startswith(one + '.') for one in allowed)


def across(module, name):
    """Whether a module of virt imports what is not below its room."""
    room = module.split('.')[2]
    allowed = ROOMS.get(room, set()) | FOOT | {room}
    return not within(name.removeprefix('hotsnap_nova.virt.'), allowed)


def violations(module, source):
    """Why this module's imports break the picture; empty where they do not."""
    part = (module.removeprefix('hotsnap_nova').lstrip('.').split('.')[0]) or '__init__'
    if part not in MAY_IMPORT and part not in GROUND:
        return [f'{module}: {part} has no place in the layers; give it one']
    if part == 'virt' and module.split('.')[2] not in {*ROOMS, *FOOT, '__init__'}:
        return [f'{module}: it has no place among the rooms of virt; give it one']
    found = []
    for name in imports(ast.parse(source), module):
        top = name.split('.')[0]
        if top == 'hotsnap_nova':
            target = name.removeprefix('hotsnap_nova').lstrip('.')
            allowed = MAY_IMPORT.get(part, set()) | GROUND | {part}
            if not within(target or '__init__', allowed):
                found.append(f'{module} imports {name}: up or across')
            elif part == 'virt' and within(target, {'virt'}) and across(module, name):
                found.append(f'{module} imports {name}: up or across the rooms of virt')
            elif part == 'protocol' and not within(target, {'protocol'}):
                found.append(f'{module} imports {name}: the protocol stands alone')
        elif part == 'protocol' and top not in PURE:
            found.append(f'{module} imports {name}: not pure')
        elif part in GROUND and top not in sys.stdlib_module_names and top != 'oslo_config':
            found.append(f'{module} imports {name}: the ground stays light')
        elif not within(module.removeprefix('hotsnap_nova.'), OWNERS.get(top, {part})):
            found.append(f'{module} imports {name}: only {sorted(OWNERS[top])} may')
    return found


def modules():
    for path in sorted(ROOT.rglob('*.py')):
        parts = path.relative_to(ROOT.parent).with_suffix('').parts
        # Of a package, `.__init__` stays: relative imports count from the package.
        yield '.'.join(parts), path


@pytest.mark.parametrize(('module', 'path'), list(modules()), ids=lambda value: str(value)[-60:])
def test_imports_point_down(module, path):
    assert violations(module, path.read_text()) == []


@pytest.mark.parametrize(('module', 'source'), [
    ('hotsnap_nova.protocol.cut', 'import time'),
    ('hotsnap_nova.protocol.cut', 'def f():\n    from os import path'),
    ('hotsnap_nova.protocol.cut', 'import logging.handlers'),
    ('hotsnap_nova.protocol.cut', 'from hotsnap_nova import exception'),
    ('hotsnap_nova.virt.guest', 'from hotsnap_nova.storage import manifest'),
    ('hotsnap_nova.virt.guest', 'from ..storage import manifest'),
    ('hotsnap_nova.virt.guest', 'from hotsnap_nova.virt.disks import freezing'),
    ('hotsnap_nova.virt.guest', 'from hotsnap_nova.virt import sweep'),
    ('hotsnap_nova.virt.disks.freezing', 'from hotsnap_nova.virt import sweep'),
    ('hotsnap_nova.virt.disks.freezing', 'from ..memory import saving'),
    ('hotsnap_nova.virt.disks.freezing', 'from .. import member'),
    ('hotsnap_nova.virt.disks.__init__', 'from .. import host'),
    ('hotsnap_nova.virt.memory.saving', 'from hotsnap_nova import virt'),
    ('hotsnap_nova.virt.checks.preflight', 'from hotsnap_nova.virt.restore import restorer'),
    ('hotsnap_nova.virt.restore.restorer', 'def f():\n    from hotsnap_nova.virt import host'),
    ('hotsnap_nova.virt.__init__', 'from hotsnap_nova.virt import host'),
    ('hotsnap_nova.virt.misc', ''),
    ('hotsnap_nova.nova.driver', 'from hotsnap_nova.virt.restore import restorer'),
    ('hotsnap_nova.storage.__init__', 'from .. import virt'),
    ('hotsnap_nova.storage.local', 'import hotsnap_nova.db.api'),
    ('hotsnap_nova.compute.manager', 'from hotsnap_nova.conductor import rpcapi'),
    ('hotsnap_nova.compute.manager', 'from hotsnap_nova.db import api'),
    ('hotsnap_nova.compute.manager', 'import libvirt'),
    ('hotsnap_nova.conductor.manager', 'from hotsnap_nova.compute import manager'),
    ('hotsnap_nova.conductor.manager', 'from hotsnap_nova import storage'),
    ('hotsnap_nova.conductor.manager', 'from sqlalchemy import orm'),
    ('hotsnap_nova.conductor.manager', 'from nova import objects'),
    ('hotsnap_nova.osc.v1', 'from hotsnap_nova.conductor import rpcapi'),
    ('hotsnap_nova.runner', 'from hotsnap_nova.virt import host'),
    ('hotsnap_nova.exception', 'import oslo_db'),
    ('hotsnap_nova.cmd.shell', 'from hotsnap_nova import virt'),
    ('hotsnap_nova.cmd.shell', 'from hotsnap_nova.virt import guest'),
    ('hotsnap_nova.misc', ''),
])
def test_an_arrow_up_or_across_is_found(module, source):
    assert violations(module, source)


@pytest.mark.parametrize(('module', 'source'), [
    ('hotsnap_nova.protocol.cut', 'import dataclasses\nfrom . import messages'),
    ('hotsnap_nova.compute.manager', 'from hotsnap_nova.virt import host\nimport time'),
    ('hotsnap_nova.conductor.manager', 'from hotsnap_nova.compute import rpcapi'),
    ('hotsnap_nova.conductor.manager', 'from hotsnap_nova.db import api'),
    ('hotsnap_nova.conductor.cells', 'from nova import objects'),
    ('hotsnap_nova.virt.guest', 'import libvirt\nfrom hotsnap_nova import exception'),
    ('hotsnap_nova.virt.disks.freezing', 'from . import media\nfrom .. import monitor'),
    ('hotsnap_nova.virt.restore.restorer', 'from hotsnap_nova.virt.checks import obstacles'),
    ('hotsnap_nova.storage.local', 'from hotsnap_nova.exception import Invalid'),
])
def test_an_arrow_down_is_allowed(module, source):
    assert violations(module, source) == []
