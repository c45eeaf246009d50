# SPDX-License-Identifier: Apache-2.0
"""How programs that make rounds begin and end."""

import argparse
import collections.abc
import signal
import sys

from tests.lab import LabError
from tests.rounds.command import CommandFailed


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Of ``python -m name``; the description is the module's."""
    return argparse.ArgumentParser(prog=f'python -m {name}', description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def status(work: collections.abc.Callable[[], bool], *errors: type[Exception],
           interrupted: str = '') -> int:
    """Exit status: 0 the work says that all is well, 1 not, 130 interrupted.

    :param errors: what beside the lab's is told in a line
    :param interrupted: what is told beside that
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return 0 if work() else 1
    except KeyboardInterrupt:
        print('; '.join(filter(None, ('interrupted', interrupted))), file=sys.stderr)
        return 130
    except (CommandFailed, LabError, *errors) as exc:
        print(exc, file=sys.stderr)
        return 1
