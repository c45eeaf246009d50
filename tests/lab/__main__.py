# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.lab``: three guests to play with, until Ctrl-C."""

import signal
import sys

from tests.lab import Lab


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Lab() as lab:
        group = lab.start(3)
        print(f'look inside: virsh -c "{lab.uri}" list')
        print(f'consoles: {", ".join(str(guest.console) for guest in group)}', flush=True)
        group.wait_ready()
        print('all guests talk to one another; Ctrl-C ends the lab', flush=True)
        signal.pause()
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
