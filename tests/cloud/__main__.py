# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.cloud up``: a real OpenStack with two compute hosts; ``… down`` removes it."""

import argparse
import os
import sys
import time

from tests.cloud import cloud, hosts, settings
from tests.cloud.processes import CloudError
from tests.lab.image import ImageError


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.cloud', description=__doc__)
    parser.add_argument('command', choices=('up', 'down', 'status'))
    parser.add_argument('--stock', action='store_true', help='Nova with nothing of ours in it')
    arguments = parser.parse_args()
    folder = settings.default_folder()
    if os.geteuid():
        print('a cloud makes namespaces and needs root', file=sys.stderr)
        return 1
    try:
        return {'up': _up, 'down': _down, 'status': _status}[arguments.command](
            folder, arguments)
    except (CloudError, ImageError) as exc:
        print(f'{exc}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; make cloud-down removes what was begun', file=sys.stderr)
        return 130


def _up(folder, arguments) -> int:
    began = time.monotonic()

    def say(text: str) -> None:
        print(text, flush=True)
    running = cloud.up(folder, arguments.stock, say)
    say(f'''
{time.monotonic() - began:.0f} s. To use it:
  source {folder}/openrc              a member of the project demo
  source {folder}/openrc-admin        the administrator
logs:  {running.settings.logs}''')
    for host in running.settings.hosts:
        say(f'{host}:  virsh -c "{hosts.uri(running, host)}" list')
    say('make cloud-down removes it.')
    return 0


def _down(folder, _arguments) -> int:
    if cloud.down(folder):
        print(f'The cloud in {folder} is gone.')
    else:
        print(f'No cloud in {folder}.')
    return 0


def _status(folder, _arguments) -> int:
    known = settings.load(folder)
    faults = ['there is none'] if known is None else cloud.unhealthy(cloud.Cloud(known))
    print('\n'.join(faults) if faults else f'The cloud in {folder} is up.')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
