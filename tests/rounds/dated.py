# SPDX-License-Identifier: Apache-2.0
"""Reports of long runs: where and when they ran, and a file for each."""

import datetime
import json
import os
import pathlib
import platform
import subprocess

_CHECKOUT = pathlib.Path(__file__).parents[2]


def setting(command: str, seed: str) -> dict:
    """What a reader needs to judge a run, or to repeat it."""
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=_CHECKOUT,
                            capture_output=True, text=True, check=False).stdout.strip()
    return {
        'command': command,
        'seed': seed,
        'began_at': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
        'commit': commit or 'unknown',
        'kernel': platform.release(),
        'python': platform.python_version(),
        'processors': os.cpu_count(),
        'load_at_start': round(os.getloadavg()[0], 2),
    }


def default_path(name: str) -> pathlib.Path:
    """``results/<name>-<date>.json``"""
    now = datetime.datetime.now(datetime.UTC)
    return pathlib.Path('results') / f'{name}-{now:%Y%m%d-%H%M}.json'


def write(path: pathlib.Path, report: dict) -> None:
    """Write or replace the file, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix('.part')
    aside.write_text(json.dumps(report, indent=1) + '\n')
    aside.rename(path)
