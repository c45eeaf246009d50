# SPDX-License-Identifier: Apache-2.0
"""Hands the build to pbr, which reads setup.cfg."""

import os
import sys

import setuptools

# setup.cfg names a command of ours in tools/.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# Nova loads drivers from below its own package only, so a package of ours has to lie there. In
# this tree a folder nova/ would hide Nova itself; a folder whose name has dots hides nothing.
setuptools.setup(setup_requires=['pbr>=6.1.1'], pbr=True,
                 package_dir={'nova.virt.hotsnap': 'nova.virt.hotsnap'})
