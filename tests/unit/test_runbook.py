# SPDX-License-Identifier: Apache-2.0
"""The operator's guide has an entry for every error code, with its status and what to do."""

import pathlib
import re

import pytest

from hotsnap_nova import conf

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / 'doc' / 'operator.md').read_text()
ENTRY = re.compile(r'^\| `([a-z_]+)` \| (\d{3}) \| (.+?) \| (.+?) \|$', re.M)
ENTRIES = {code: (int(status), means, do) for code, status, means, do in ENTRY.findall(GUIDE)}


#: {code: status}; `test_error_codes` has it that these are all.
CODES = {code: int(status) for code, status in re.findall(
    r'^\| `([a-z_]+)` \| (\d{3}) \|', (ROOT / 'doc/api/errors.md').read_text(), re.M)}


@pytest.mark.parametrize('code', sorted(CODES))
def test_every_error_code_has_an_entry_with_its_status(code):
    assert code in ENTRIES, 'say in doc/operator.md what it means and what to do'
    assert ENTRIES[code][0] == CODES[code]


def test_no_code_has_two_entries():
    codes = [code for code, *_rest in ENTRY.findall(GUIDE)]

    assert sorted(codes) == sorted(set(codes))


def test_no_entry_is_of_a_code_that_is_gone():
    assert ENTRIES.keys() <= CODES.keys()


def test_the_guide_has_every_option_and_no_other():
    table = GUIDE.partition('| option | read by |')[2].partition('\n\n')[0]
    named = {name for line in table.splitlines() for name in
             re.findall(r'`(\w+)`', line.split('|')[1] if line.count('|') > 2 else '')}

    assert named == {option.dest for _group, options in conf.list_opts() for option in options}
