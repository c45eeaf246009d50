# SPDX-License-Identifier: Apache-2.0
"""Configuration files of services, written."""

import os
import pathlib
import sys


def write_ini(path: pathlib.Path, **sections: dict) -> pathlib.Path:
    """An oslo.config file; a section's name may have its underscores meant as they are."""
    lines = []
    for section, options in sections.items():
        lines.append(f'[{section}]')
        lines += [f'{name} = {_plain(value)}' for name, value in options.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return path


def packaged(name: str) -> pathlib.Path:
    """A file that a service's package brings for /etc."""
    return pathlib.Path(sys.prefix, 'etc', name)


def without_ours() -> str:
    """The environment that this one is a layer over: all packages, and not our wheel."""
    return os.path.realpath(os.path.join(sys.prefix, 'base'))


def program(name: str, home: str = sys.prefix) -> str:
    """A command of this environment, or of another."""
    return os.path.join(home, 'bin', name)


def _plain(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
