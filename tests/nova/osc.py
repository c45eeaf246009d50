# SPDX-License-Identifier: Apache-2.0
"""The openstack command in this process, against Nova's API in this process."""

import contextlib
import functools
import importlib.metadata
import io
import logging
from unittest import mock

from openstackclient import shell
from osc_lib import clientmanager

from hotsnap_nova import client
from hotsnap_nova.osc import plugin
from tests.fakes.ran import Ran
from tests.nova import base


class OscTestCase(base.ApiTestCase):
    """Commands are typed as a user types them; all of python-openstackclient is real."""

    def setUp(self):
        super().setUp()
        assert importlib.metadata.entry_points(group='openstack.hotsnap.v1'), (
            "this checkout's entry points are missing or old: install it")
        patched = mock.patch.object(
            plugin.client, 'Client', functools.partial(client.Client, poll_s=0))
        patched.start()
        self.addCleanup(patched.stop)

    def openstack(self, *words, user=None):
        user = user or self.api
        arguments = ['--os-auth-type', 'admin_token', '--os-token', user.token,
                     '--os-endpoint', self.base_url, *words]
        # Made once a process, which for users is once a command.
        if made := vars(clientmanager.ClientManager).get('hotsnap'):
            made._handle = None
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _logging_kept():
            try:
                status = shell.OpenStackShell().run(arguments)
            except SystemExit as exc:
                status = exc.code
        return Ran(status, out.getvalue(), err.getvalue())

    def snapshot(self, *words, user=None):
        return self.openstack('server', 'group', 'snapshot', *words, user=user)


@contextlib.contextmanager
def _logging_kept():
    """The shell sets up the process's logging; what Nova's fixtures hear comes back after it."""
    root = logging.getLogger('')
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
