# SPDX-License-Identifier: Apache-2.0
"""What others wrote is shown, and does nothing."""

import io

import pytest

from hotsnap_nova import exception, terminal
from hotsnap_nova.cmd import progress


@pytest.mark.parametrize(('text', 'shown'), [
    ('plain, ünïcode 漢 and 👍🏽', 'plain, ünïcode 漢 and 👍🏽'),
    ('two\nlines\tand a tab', 'two\nlines\tand a tab'),
    ('\x1b[2J', '\\x1b[2J'), ('\x9b2J', '\\x9b2J'), ('\x07\x08\x7f\r', '\\x07\\x08\\x7f\\r'),
    ('\u202eevil\u2066', '\\u202eevil\\u2066'), ('a\u2028b', 'a\\u2028b'),
])
def test_controls_are_shown_as_they_are_written(text, shown):
    assert terminal.escaped(text) == shown


def test_an_error_is_a_line_without_controls(shell):
    words = exception.HypervisorError(member='a', reason='\x1b[2J gone')

    assert shell.explain(words) == 'Member a: \\x1b[2J gone.'


@pytest.fixture
def shell():
    from hotsnap_nova.cmd import shell
    return shell.Shell(stdout=io.StringIO(), stderr=io.StringIO())


def test_a_bar_is_called_as_its_member_is():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with progress.open_progress(out) as bars:
        bars.watch({'phase': 'save', 'members': {'\x1b]0;x\x07 [bold]a[/]': (1, 2)}})

    assert '\\x1b]0;x\\x07 [bold]a[/]' in out.getvalue()
    assert '\x07' not in out.getvalue()
