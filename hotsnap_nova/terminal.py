# SPDX-License-Identifier: Apache-2.0
"""Nothing that others wrote does anything to the terminal it is shown on.

Names, properties and the words of QEMU and libvirt are others'. What moves the cursor, changes
a title or the direction of writing is shown as Python would write it: ``\\x1b``. JSON and YAML
write it so themselves, and are given what there is.
"""

import re

from cliff import columns

#: Controls but for tab and newline, which tables know what to do with; what changes the direction
#: of writing or ends a line unseen.
_CONTROLS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')
_EXACT = frozenset({'json', 'yaml'})


def escaped(text: str) -> str:
    """The text, for a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode('unicode_escape').decode(), text)


def warning(name: str, device: str, cause: str, remedy: str) -> str:
    """What a restore warns of, in one line."""
    text = f'warning: {name}, {device}: {cause}' + (f'. Remedy: {remedy}.' if remedy else '.')
    return escaped(' '.join(text.split()))


class OfRows:
    """Beside cliff's Lister: its rows are escaped."""

    def produce_output(self, parsed_args, column_names, data):
        rows = data if parsed_args.formatter in _EXACT else (_shown(row) for row in data)
        return super().produce_output(parsed_args, column_names, rows)


class OfOne:
    """Beside cliff's ShowOne: its values are escaped."""

    def produce_output(self, parsed_args, column_names, data):
        values = data if parsed_args.formatter in _EXACT else _shown(data)
        return super().produce_output(parsed_args, column_names, values)


class _Column(columns.FormattableColumn):
    """Another column, escaped."""

    def human_readable(self):
        return escaped(self._value.human_readable())

    def machine_readable(self):
        return _value(self._value.machine_readable())


def _shown(values):
    return tuple(_value(each) for each in values)


def _value(value):
    if isinstance(value, columns.FormattableColumn):
        return _Column(value)
    return escaped(value) if isinstance(value, str) else value
