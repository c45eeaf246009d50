# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.lab``: guests to play with until Ctrl-C; ``… reap`` cleans up."""

import argparse
import signal
import sys

from tests.lab import WIDE, GuestSpec, Lab, LabError
from tests.lab.enclosure import EnclosureError
from tests.lab.image import ImageError
from tests.lab.reaper import reap


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.lab', description=__doc__)
    parser.add_argument('command', choices=('start', 'reap'), nargs='?', default='start')
    parser.add_argument('--guests', type=int, default=3)
    parser.add_argument('--memory-mb', type=int, default=128)
    parser.add_argument('--wide', action='store_true',
                        help='the last guest has two CPUs, NICs and disks')
    arguments = parser.parse_args()
    if arguments.command == 'reap':
        for folder in reap():
            print(f'removed {folder}')
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _play(arguments)
    except KeyboardInterrupt:
        return 0
    except (EnclosureError, ImageError, LabError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _play(arguments: argparse.Namespace) -> None:
    specs = [GuestSpec()] * arguments.guests
    if arguments.wide:
        specs[-1] = WIDE
    with Lab() as lab:
        group = lab.start(specs, memory_mb=arguments.memory_mb)
        print(f'look inside: virsh -c "{lab.uri}" list')
        for guest in group:
            print(f'{guest.domain_name}: console {guest.console}', flush=True)
        group.wait_ready()
        print('all guests talk to one another; Ctrl-C ends the lab', flush=True)
        signal.pause()


if __name__ == '__main__':
    sys.exit(main())
