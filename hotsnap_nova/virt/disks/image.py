# SPDX-License-Identifier: Apache-2.0
"""What an image file says of itself."""

import json
import subprocess

_TIMEOUT_S = 30.0


def describe(path: str, form: str) -> dict | None:
    """What ``qemu-img info`` tells, while a guest may use it; None: it cannot be read.

    :param form: its format, which is never guessed: what is in a raw image is its guest's
    """
    try:
        shown = subprocess.run(
            ['qemu-img', 'info', '-U', '-f', form, '--output', 'json', path],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    return None if shown.returncode else json.loads(shown.stdout)


def data_file(described: dict) -> str:
    """Where the data of a qcow2 image are if not in it; else empty."""
    return described.get('format-specific', {}).get('data', {}).get('data-file', '')
