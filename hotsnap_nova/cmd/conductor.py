# SPDX-License-Identifier: Apache-2.0
"""``nova-hotsnap-conductor``: the coordinator service, configured by nova.conf."""

# Nova's own services begin so: threads, before anything else is imported.
# ruff: noqa: E402
from nova import monkey_patch

monkey_patch.patch(backend='threading')

import sys

from nova import conf as nova_conf
from nova import config, rpc, version
from oslo_log import log as logging
from oslo_reports import guru_meditation_report as reports
from oslo_reports import opts as report_options
from oslo_service import service as oslo_service

from hotsnap_nova import conf, exception
from hotsnap_nova.conductor import cells, service

CONF = nova_conf.CONF


class Process(oslo_service.Service):
    """`service.Service`, run by oslo.service in a process of its own."""

    def start(self):
        super().start()
        self._service = service.Service(CONF.hotsnap, CONF.host, rpc.TRANSPORT, cells.Cells())
        self._service.start()

    def stop(self, graceful=True):
        self._service.stop()
        super().stop(graceful)


def main() -> int:
    conf.register(CONF)
    config.parse_args(sys.argv, prog='nova-hotsnap-conductor')
    logging.setup(CONF, 'nova')
    report_options.set_defaults(CONF)
    reports.TextGuruMeditation.setup_autorun(version, conf=CONF)
    try:
        service.check_database(CONF.hotsnap)
    except exception.HotsnapError as exc:
        sys.exit(f'nova-hotsnap-conductor: {exc}')
    launcher = oslo_service.launch(CONF, Process(), restart_method='mutate')
    return launcher.wait()


if __name__ == '__main__':
    sys.exit(main())
