# SPDX-License-Identifier: Apache-2.0
"""Nova's own fixtures; these tests need nova-requirements.txt."""

import os
import shutil

# Before the first import of nova: it patches threads as it is imported.
os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')

import nova.tests.functional  # noqa: F401  sets up what the rest of nova.tests expects

#: Debian's server is of profile cloud.
collect_ignore = [] if shutil.which('mariadbd') else ['test_mariadb.py']
