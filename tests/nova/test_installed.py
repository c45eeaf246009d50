# SPDX-License-Identifier: Apache-2.0
"""What an operator installs: our wheel beside Nova's, without this tree in sight."""

import subprocess
import sys
import sysconfig

LOAD = """
import sys
from nova import config
from nova.virt import driver, virtapi

config.parse_args(['nova-compute'], default_config_files=[])
loaded = driver.load_compute_driver(virtapi.VirtAPI(), 'hotsnap.HotSnapLibvirtDriver')
for kind in type(loaded).mro()[:2]:
    print(sys.modules[kind.__module__].__file__)
"""


def test_novas_loader_finds_the_driver_in_the_installed_wheel(tmp_path):
    done = subprocess.run([sys.executable, '-c', LOAD], cwd=tmp_path, capture_output=True,
                          text=True, env={'OS_NOVA_DISABLE_EVENTLET_PATCHING': '1'})

    assert done.returncode == 0, done.stderr
    site = sysconfig.get_path('purelib')
    assert done.stdout.split() == [f'{site}/hotsnap_nova/nova/driver.py',
                                   f'{site}/nova/virt/libvirt/driver.py']
