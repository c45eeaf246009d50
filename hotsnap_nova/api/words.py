# SPDX-License-Identifier: Apache-2.0
"""Errors in the words of whoever may see them: a cloud's users do not know its hosts."""

import re
from collections.abc import Iterable

#: Absolute, of two names or more: "VFIO/SR-IOV" and "1/2" are none.
_PATH = re.compile(r'(?<![\w./:])(?:/[\w.@+,=-]*[\w@+=-]){2,}/?')


def for_users(message: str, hosts: Iterable[str | None]) -> str:
    """The message with 'a host' where it names one of these, and 'a path' where one of theirs."""
    message = _PATH.sub('a path', message)
    for name in sorted({each for each in hosts if each}, key=len, reverse=True):
        named = rf'(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)'
        message = re.sub(rf'\bHost {named}', 'A host', message)
        message = re.sub(rf'(\bhost )?{named}', 'a host', message)
    return message
