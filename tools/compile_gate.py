# SPDX-License-Identifier: Apache-2.0
"""What building the wheel does beside pbr's work: the gate's programs for the kernel."""

import os
import pathlib
import platform
import shutil
import subprocess
import sysconfig

from setuptools.command import build_py

SOURCE = 'hotsnap_nova/virt/gates/gate.bpf.c'


class BuildPy(build_py.build_py):
    """Also compiles them, to lie beside their source.

    Without clang the wheel lacks them and the build says so: the rest is of use without.
    """

    command_name = 'build_py'

    def run(self):
        super().run()
        # A checkout that is installed as it lies runs what lies in it.
        target = pathlib.Path('.' if self.editable_mode else self.build_lib, SOURCE
                              ).with_suffix('.o')
        compiler = shutil.which('clang')
        if compiler is None:
            self.warn(f'there is no clang: built without {target.name}, the gate in the host '
                      'kernel; guests whose NICs have vhost or several queues need it')
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command(compiler, str(target)), check=True)


def command(compiler: str, target: str) -> list[str]:
    """The words that make the object file; in the root of the source."""
    return [compiler, '-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Wextra', '-Werror',
            # Where it was made is no part of what it is.
            f'-fdebug-prefix-map={os.getcwd()}=.', *_kernel_headers(), '-c', SOURCE, '-o', target]


def _kernel_headers():
    """Where Debian has what linux/types.h includes; elsewhere it lies where all the rest does."""
    names = sysconfig.get_config_var('MULTIARCH'), f'{platform.machine()}-linux-gnu'
    return [f'-I/usr/include/{name}' for name in names
            if name and os.path.isdir(f'/usr/include/{name}/asm')][:1]
