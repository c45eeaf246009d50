# SPDX-License-Identifier: Apache-2.0
"""The wheel holds what runs, and every package that code imports is declared and pinned."""

import ast
import configparser
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging import requirements, utils

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'hotsnap_nova'
#: Beside Nova's own drivers it is installed as nova/virt/hotsnap.
SHIM = 'nova.virt.hotsnap'

#: Compiled when the wheel is built, beside its source.
GATE = 'hotsnap_nova/virt/gates/gate.bpf.o'

#: Where a package's name is not what is imported.
DISTRIBUTIONS = {'libvirt': 'libvirt-python', 'libvirt_qemu': 'libvirt-python',
                 'openstack': 'openstacksdk', 'openstackclient': 'python-openstackclient',
                 'oslo_config': 'oslo-config', 'oslo_db': 'oslo-db', 'oslo_log': 'oslo-log',
                 'oslo_messaging': 'oslo-messaging', 'oslo_reports': 'oslo-reports',
                 'oslo_service': 'oslo-service', 'oslo_upgradecheck': 'oslo-upgradecheck',
                 'yaml': 'PyYAML'}
#: Ours, and the launchers that need none of us to be imported.
OURS = {'hotsnap_nova', 'tests'}
REQUIREMENTS = ('requirements.txt', 'test-requirements.txt', 'lab-requirements.txt',
                'nova-requirements.txt', 'cloud-requirements.txt')


def declared(*files):
    found = {}
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            line = line.partition('#')[0].strip()
            if line:
                requirement = requirements.Requirement(line)
                found[utils.canonicalize_name(requirement.name)] = requirement
    return found


def extras():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    return {utils.canonicalize_name(requirements.Requirement(line).name)
            for lines in config['extras'].values() for line in lines.split('\n') if line.strip()}


def imported(folder):
    """Distributions that the code below a folder imports, and one place for each."""
    found = {}
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                top = name.split('.')[0]
                if top not in sys.stdlib_module_names and top not in OURS:
                    found.setdefault(utils.canonicalize_name(DISTRIBUTIONS.get(top, top)),
                                     path.relative_to(ROOT))
    return found


def test_everything_imported_is_declared():
    known = set(declared('requirements.txt')) | extras()

    assert {name: place for name, place in imported(PACKAGE).items() if name not in known} == {}


def test_everything_declared_is_imported():
    assert set(declared('requirements.txt')) - set(imported(PACKAGE)) == {'pbr'}


def test_everything_tests_import_is_declared():
    known = set(declared(*REQUIREMENTS))

    assert {name: place for name, place in imported(ROOT / 'tests').items()
            if name not in known} == {}


def test_every_requirement_is_pinned_to_a_version_it_allows():
    pins = declared('constraints.txt')

    for name, requirement in declared(*REQUIREMENTS).items():
        (pin,) = pins[name].specifier
        assert pin.operator == '=='
        assert requirement.specifier.contains(pin.version), name


def test_what_runs_here_is_what_is_pinned():
    for name, pin in declared('constraints.txt').items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue    # of a larger profile
        assert pin.specifier.contains(version), f'{name} {version}'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built as a newcomer would: from git, by pbr, with what is in the folder now."""
    source = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'requirements.txt', 'README.md',
                 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for folder in ('hotsnap_nova', SHIM, 'tests/unit', 'tools'):
        shutil.copytree(ROOT / folder, source / folder,
                        ignore=shutil.ignore_patterns('__pycache__', '*.bpf.o'))
    environment = {**os.environ, 'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1'}
    for variable in [each for each in environment if each.startswith('PBR_')]:
        del environment[variable]
    identity = ['-c', 'user.name=test', '-c', 'user.email=test@invalid']
    for command in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'all']):
        subprocess.run(['git', *identity, *command], cwd=source, env=environment, check=True)
    target = tmp_path_factory.mktemp('wheel')
    subprocess.run(
        [sys.executable, '-c', 'import pbr.build, sys; pbr.build.build_wheel(sys.argv[1])',
         target], cwd=source, env=environment, check=True, capture_output=True)
    (built,) = target.glob('*.whl')
    with zipfile.ZipFile(built) as archive:
        yield archive


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(wheel):
    here = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts} - {GATE}

    packed = {name for name in wheel.namelist() if '.dist-info/' not in name} - {GATE}

    # Another file below nova/ would be one of Nova's own, and overwritten.
    assert packed == here | {'nova/virt/hotsnap/__init__.py'}
    assert 'hotsnap_nova/db/migrations/script.py.mako' in packed
    assert any(re.match('hotsnap_nova/db/migrations/versions/0001', name) for name in packed)


def test_the_wheel_has_the_gate_for_the_kernel_where_there_is_a_compiler_for_it(wheel):
    assert (GATE in wheel.namelist()) == (shutil.which('clang') is not None)


def test_the_wheel_needs_no_compiler(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
    needs = [line for line in wheel.read(name).decode().splitlines()
             if line.startswith('Requires-Dist: libvirt')]

    assert needs
    assert all('extra ==' in line for line in needs)


def entry_points():
    """(module, name; None: the module itself) of each in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    for group, lines in config['entry_points'].items():
        for line in filter(None, map(str.strip, lines.split('\n'))):
            module, _, name = re.split(r'\s*=\s*', line)[1].partition(':')
            yield pytest.param(module, name or None, id=f'{group}: {line}')


@pytest.mark.parametrize(('module', 'name'), list(entry_points()))
def test_every_entry_point_leads_somewhere(module, name):
    # Read, not imported: Nova's and the openstack command's need what is not here.
    path = ROOT.joinpath(*module.split('.'))
    source = path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
    defined = {node.name for node in ast.parse(source.read_text()).body
               if isinstance(node, (ast.FunctionDef, ast.ClassDef))}

    assert name is None or name in defined


@pytest.mark.parametrize('arguments', [[], ['everything'], ['core', 'lab']], ids=repr)
def test_setup_refuses_what_it_does_not_know(arguments):
    done = subprocess.run([ROOT / 'tools' / 'setup', *arguments], capture_output=True, text=True)

    assert done.returncode == 2
    assert 'tools/setup core|lab|nova|cloud' in done.stderr
