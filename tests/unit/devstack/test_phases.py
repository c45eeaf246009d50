# SPDX-License-Identifier: Apache-2.0
"""The DevStack plugin, phase by phase, with DevStack's functions stubbed."""

import configparser
import os
import pathlib
import re
import subprocess

import pytest

from hotsnap_nova import conf

ROOT = pathlib.Path(__file__).parents[3]
STUBS = pathlib.Path(__file__).parent / 'stubs.sh'
STACK = ('stack pre-install', 'stack install', 'stack post-config', 'stack extra',
         'stack test-config')
#: Of Nova's own file, what there is to change, and what looks like it.
PASTE = """\
[composite:openstack_compute_api_v21]
use = call:nova.api.auth:pipeline_factory_v21
keystone = cors faultwrap authtoken keystonecontext osapi_compute_app_v21

[composite:openstack_compute_api_v21_legacy_v2_compatible]
use = call:nova.api.auth:pipeline_factory_v21
keystone = cors faultwrap authtoken keystonecontext legacy_v2_compatible osapi_compute_app_v21

[app:osapi_compute_app_v21]
paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory
"""
NOVA = """\
[DEFAULT]
compute_driver = libvirt.LibvirtDriver
debug = True

[libvirt]
virt_type = qemu
"""


class DevStack:
    """One host's, after its own configuration.

    :ivar services: what local.conf enabled
    """

    def __init__(self, top, services):
        self.top = top
        self.services = services
        self.etc = top / 'etc' / 'nova'
        self.etc.mkdir(parents=True)
        (top / 'nova' / 'nova' / 'virt').mkdir(parents=True)
        (top / 'bin').mkdir()
        (top / 'etc' / 'tmpfiles.d').mkdir()
        (top / 'etc' / 'systemd' / 'system').mkdir(parents=True)
        for name in ('nova-hotsnap-manage', 'nova-hotsnap-conductor'):
            command = top / 'bin' / name
            command.write_text(f'#!/bin/sh\necho {name} "$@" >>"$CALLS"\n')
            command.chmod(0o755)
        plugin = top / 'hotsnap'
        (plugin / 'nova.virt.hotsnap').mkdir(parents=True)
        (plugin / 'nova.virt.hotsnap' / '__init__.py').write_text('# the driver\n')
        (plugin / 'devstack').symlink_to(ROOT / 'devstack')
        (self.etc / 'nova.conf').write_text(NOVA)
        (self.etc / 'api-paste.ini').write_text(PASTE)
        self.calls_file = top / 'calls'

    def run(self, *phases, **variables):
        """Run phases in one shell, as stack.sh does; its calls of DevStack's functions.

        :param variables: beside those of local.conf
        """
        variables = {'HOTSNAP_LOCK_PATH': f'{self.top}/run/hotsnap'} | variables
        self.calls_file.write_text('')
        plugin = self.top / 'hotsnap' / 'devstack'
        done = subprocess.run(
            ['bash', '-c', '\n'.join([
                f'source {STUBS}', f'source {plugin}/settings',
                *(f'source {plugin}/plugin.sh {phase}' for phase in phases)])],
            env={'PATH': os.environ['PATH'], 'TOP': str(self.top), 'CALLS': str(self.calls_file),
                 'ENABLED_SERVICES': self.services, 'HOTSNAP_DIR': str(self.top / 'hotsnap'),
                 **variables},
            capture_output=True, text=True, check=False)
        self.status, self.errors = done.returncode, done.stderr
        return self.calls_file.read_text().splitlines()

    def options(self, name):
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.optionxform = str
        parsed.read(self.etc / name)
        return parsed

    def files(self):
        """Every file's content, by its path."""
        return {str(path.relative_to(self.top)): path.read_text()
                for path in sorted(self.top.rglob('*'))
                if path.is_file() and path != self.calls_file}


@pytest.fixture
def all_in_one(tmp_path):
    return DevStack(tmp_path, 'mysql,rabbit,key,n-api,n-cond,n-sch,n-cpu')


@pytest.fixture
def subnode(tmp_path):
    return DevStack(tmp_path, 'n-cpu')


def test_nova_compute_loads_our_driver(all_in_one):
    all_in_one.run(*STACK)

    assert all_in_one.status == 0, all_in_one.errors
    options = all_in_one.options('nova.conf')
    assert options['DEFAULT']['compute_driver'] == 'hotsnap.HotSnapLibvirtDriver'
    assert options['DEFAULT']['debug'] == 'True'
    assert options['libvirt']['virt_type'] == 'qemu'
    assert options['hotsnap']['store_path'] == f'{all_in_one.top}/data/hotsnap/store'
    shim = all_in_one.top / 'nova/nova/virt/hotsnap/__init__.py'
    assert shim.read_text() == '# the driver\n'
    assert not (all_in_one.top / 'nova/nova/virt/__init__.py').exists()
    assert (all_in_one.top / 'data/hotsnap/store').stat().st_mode & 0o777 == 0o700


def test_locks_are_where_the_command_looks_for_them_and_after_a_boot_too(all_in_one):
    """The defaults of both: of whoever is root, and has no XDG_RUNTIME_DIR."""
    ours = next(each for each in conf.OPTIONS if each.name == 'lock_path')
    shown = all_in_one.top / 'lock-path'

    all_in_one.run(*STACK)
    subprocess.run(['bash', '-c', f'source {STUBS}; source {ROOT}/devstack/settings; '
                    f'echo -n "$HOTSNAP_LOCK_PATH" >{shown}'], check=True, env={
                        'PATH': os.environ['PATH'], 'TOP': str(all_in_one.top),
                        'CALLS': '/dev/null', 'ENABLED_SERVICES': 'n-cpu'})

    locks = all_in_one.top / 'run/hotsnap'
    assert all_in_one.options('nova.conf')['hotsnap']['lock_path'] == str(locks)
    assert locks.stat().st_mode & 0o777 == 0o700
    assert (all_in_one.top / 'etc/tmpfiles.d/hotsnap.conf').read_text() == (
        f'd {locks} 0700 stack -\n')
    assert shown.read_text() == ours.sample_default


def test_the_guardian_outlives_a_stop_of_nova_compute_here_as_in_the_operators_guide(all_in_one):
    """By systemd.kill(5): only `process` leaves alone what is no main process of the unit."""
    guide = configparser.ConfigParser(interpolation=None)
    guide.optionxform = str
    guide.read_string(next(
        block for block in re.findall(r'```ini\n(.+?)```', (ROOT / 'doc/operator.md').read_text(),
                                      re.DOTALL)
        if block.startswith('# /etc/systemd/system/nova-compute.service.d/')))
    unit = configparser.ConfigParser()
    unit.optionxform = str

    calls = all_in_one.run(*STACK)

    unit.read(all_in_one.top / 'etc/systemd/system/devstack@n-cpu.service.d/hotsnap.conf')
    assert unit['Service']['KillMode'] == guide['Service']['KillMode'] == 'process'
    assert '``KillMode=process``' in (ROOT / 'devstack/README.rst').read_text()
    assert 'systemctl daemon-reload' in calls


def test_clean_leaves_drop_ins_of_others(all_in_one):
    others = all_in_one.top / 'etc/systemd/system/devstack@n-cpu.service.d/others.conf'
    all_in_one.run(*STACK)
    others.write_text('[Service]\nNice=5\n')

    all_in_one.run('clean')

    assert all_in_one.status == 0, all_in_one.errors
    assert [each.name for each in others.parent.iterdir()] == ['others.conf']


def test_the_drivers_file_is_where_the_plugin_looks_for_it():
    assert (ROOT / 'nova.virt.hotsnap' / '__init__.py').exists()


def test_a_configuration_that_computes_have_already_is_changed_too(all_in_one):
    (all_in_one.etc / 'nova-cpu.conf').write_text(NOVA)

    all_in_one.run(*STACK)

    options = all_in_one.options('nova-cpu.conf')
    assert options['DEFAULT']['compute_driver'] == 'hotsnap.HotSnapLibvirtDriver'
    assert options['hotsnap']['state_path'] == f'{all_in_one.top}/data/hotsnap'


def test_the_filter_is_in_both_pipelines_right_before_the_application(all_in_one):
    all_in_one.run(*STACK)

    options = all_in_one.options('api-paste.ini')
    assert options['composite:openstack_compute_api_v21']['keystone'] == (
        'cors faultwrap authtoken keystonecontext hotsnap osapi_compute_app_v21')
    assert options['composite:openstack_compute_api_v21_legacy_v2_compatible']['keystone'] == (
        'cors faultwrap authtoken keystonecontext legacy_v2_compatible hotsnap '
        'osapi_compute_app_v21')
    assert dict(options['filter:hotsnap']) == {
        'paste.filter_factory': 'hotsnap_nova.api.middleware:factory'}


def test_pipelines_that_look_otherwise_stop_the_installation(all_in_one):
    (all_in_one.etc / 'api-paste.ini').write_text(PASTE.replace('osapi_compute_app', 'other'))

    all_in_one.run(*STACK)

    assert all_in_one.status == 1
    assert 'are not as they were' in all_in_one.errors


def test_the_conductor_starts_on_its_own_database(all_in_one):
    calls = all_in_one.run(*STACK)

    files = (f'--config-file {all_in_one.etc}/nova.conf '
             f'--config-file {all_in_one.etc}/hotsnap-conductor.conf')
    begun = calls.index('recreate_database hotsnap')
    assert calls[begun + 1:] == [
        f'nova-hotsnap-manage {files} db sync',
        f'run_process hotsnap-conductor {all_in_one.top}/bin/nova-hotsnap-conductor {files}']
    assert all_in_one.options('hotsnap-conductor.conf')['hotsnap']['database_connection'] == (
        'mysql+pymysql://root:secret&word@127.0.0.1/hotsnap?charset=utf8')


def test_the_databases_password_is_in_no_file_that_others_read(all_in_one):
    all_in_one.run(*STACK)

    assert [path for path, text in all_in_one.files().items() if 'secret' in text] == [
        'etc/nova/hotsnap-conductor.conf']
    assert (all_in_one.etc / 'hotsnap-conductor.conf').stat().st_mode & 0o777 == 0o600


def test_a_compute_alone_gets_the_driver_and_nothing_else(subnode):
    calls = subnode.run(*STACK)

    assert subnode.status == 0, subnode.errors
    assert subnode.options('nova.conf')['DEFAULT']['compute_driver'].startswith('hotsnap.')
    assert (subnode.etc / 'api-paste.ini').read_text() == PASTE
    assert not (subnode.etc / 'hotsnap-conductor.conf').exists()
    assert [call for call in calls if 'process' in call or 'database' in call] == []


def test_a_conductor_that_local_conf_disabled_is_not_started(all_in_one):
    calls = all_in_one.run(*STACK, DISABLED_SERVICES='hotsnap-conductor')

    assert all_in_one.status == 0, all_in_one.errors
    assert [call for call in calls if 'process' in call or 'database' in call] == []


@pytest.mark.parametrize('phase', STACK)
def test_a_phase_may_be_repeated(all_in_one, phase):
    all_in_one.run(*STACK)
    before = all_in_one.files()

    all_in_one.run(phase, phase)

    assert all_in_one.status == 0, all_in_one.errors
    assert all_in_one.files() == before


def test_unstack_stops_the_conductor_and_changes_no_file(all_in_one):
    all_in_one.run(*STACK)
    before = all_in_one.files()

    calls = all_in_one.run('unstack', 'unstack')

    assert calls == ['stop_process hotsnap-conductor'] * 2
    assert all_in_one.files() == before


@pytest.mark.parametrize('installed', [True, False])
def test_clean_leaves_nova_as_it_was(all_in_one, installed):
    before = all_in_one.files()
    if installed:
        (all_in_one.etc / 'nova-cpu.conf').write_text(NOVA)
        all_in_one.run(*STACK)
        assert all_in_one.files() != before
        before['etc/nova/nova-cpu.conf'] = NOVA

    all_in_one.run('unstack', 'clean', 'clean')

    assert all_in_one.status == 0, all_in_one.errors
    assert {path: text.rstrip() for path, text in all_in_one.files().items()} == {
        path: text.rstrip() for path, text in before.items()}
    assert not (all_in_one.top / 'nova/nova/virt/hotsnap').exists()
    assert not (all_in_one.top / 'data/hotsnap').exists()
    assert not (all_in_one.top / 'run/hotsnap').exists()
    assert not any((all_in_one.top / 'etc/systemd/system').iterdir())


def test_clean_leaves_a_driver_alone_that_is_not_ours(all_in_one):
    all_in_one.run(*STACK)
    text = (all_in_one.etc / 'nova.conf').read_text()
    (all_in_one.etc / 'nova.conf').write_text(
        text.replace('hotsnap.HotSnapLibvirtDriver', 'fake.FakeDriver'))

    all_in_one.run('clean')

    assert all_in_one.options('nova.conf')['DEFAULT']['compute_driver'] == 'fake.FakeDriver'


def test_an_unknown_phase_does_nothing(all_in_one):
    before = all_in_one.files()

    calls = all_in_one.run('stack later')

    assert (all_in_one.status, calls) == (0, [])
    assert all_in_one.files() == before
