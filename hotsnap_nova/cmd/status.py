# SPDX-License-Identifier: Apache-2.0
"""``nova-hotsnap-status upgrade check``: what would keep the service from working."""

import sys

from nova import conf as nova_conf
from oslo_log import log as logging
from oslo_upgradecheck import common_checks, upgradecheck

from hotsnap_nova import conf, exception
from hotsnap_nova.conductor import hosts, service

CONF = nova_conf.CONF
_DRIVER = 'hotsnap.HotSnapLibvirtDriver'
_MISSED = 3

Code, Result = upgradecheck.Code, upgradecheck.Result


class Checks(upgradecheck.UpgradeCommands):
    """Each check's remedy is in what it says."""

    def _database(self):
        try:
            service.check_database(CONF.hotsnap)
        except exception.HotsnapError as exc:
            return Result(Code.FAILURE, str(exc))
        return Result(Code.SUCCESS)

    def _driver(self):
        if CONF.compute_driver and CONF.compute_driver != _DRIVER:
            return Result(Code.WARNING, f'compute_driver is {CONF.compute_driver}: servers of '
                          f'hosts with this file take no part; {_DRIVER} does.')
        return Result(Code.SUCCESS)

    def _coordinators(self):
        return _someone(hosts.CONDUCTOR, CONF.hotsnap.service_interval_s,
                        'No coordinator was heard of lately: start nova-hotsnap-conductor.')

    def _participants(self):
        return _someone(hosts.COMPUTE, CONF.hotsnap.host_interval_s,
                        'No host was heard of lately that takes part.')

    _upgrade_checks = (
        ('Database', _database),
        ('Policy file', (common_checks.check_policy_json, {'conf': CONF})),
        ('Driver', _driver),
        ('Coordinators', _coordinators),
        ('Participants', _participants),
    )


def _someone(binary, interval_s, otherwise):
    try:
        database = service.open_database(CONF.hotsnap)
        try:
            database.must_be_current()
            seen = [each.seen_at or 0 for each in database.services(binary)]
            now = database.now()    # by whose clock they were seen
        finally:
            database.close()
    except exception.HotsnapError:    # told by the first check
        seen, now = [], 0.0
    if seen and now - max(seen) <= _MISSED * interval_s:
        return Result(Code.SUCCESS)
    return Result(Code.WARNING, otherwise)


def main(argv=None) -> int:
    """Exit status: 0 all well, 1 a warning, 2 a failure, 255 an unexpected error."""
    conf.register(CONF)
    logging.register_options(CONF)
    return upgradecheck.main(CONF, project='nova', upgrade_command=Checks(),
                             argv=sys.argv[1:] if argv is None else argv)


if __name__ == '__main__':
    sys.exit(main())
