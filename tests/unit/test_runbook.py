# SPDX-License-Identifier: Apache-2.0
"""The operator's guide has an entry for every error code, with its status and what to do."""

import ast
import dataclasses
import pathlib
import re

import pytest

from hotsnap_nova import conf

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / 'doc' / 'operator.md').read_text()
ENTRY = re.compile(r'^\| `([a-z_]+)` \| (\d{3}) \| (.+?) \| (.+?) \|$', re.M)
ENTRIES = {code: (int(status), means, do) for code, status, means, do in ENTRY.findall(GUIDE)}


@dataclasses.dataclass(frozen=True)
class Error:
    """A class of an error, as its source has it; None: its base's."""

    base: str
    code: str | None
    http_status: int | None


def classes():
    """Every error class of the package by name; read, not imported: some need libvirt."""
    found = {}
    for path in (ROOT / 'hotsnap_nova').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.bases:
                values = {each.targets[0].id: each.value.value for each in node.body
                          if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)}
                error = Error(ast.unparse(node.bases[0]).rpartition('.')[2],
                              values.get('code'), values.get('http_status'))
                if error.code or node.name not in found:    # messages are called so, too
                    found[node.name] = error
    return found


CLASSES = classes()


def status_of(name):
    error = CLASSES[name]
    return error.http_status or status_of(error.base)


CODES = {error.code: status_of(name) for name, error in CLASSES.items()
         if error.code and (name == 'HotsnapError' or error.base in CLASSES)}


@pytest.mark.parametrize('code', sorted(CODES))
def test_every_error_code_has_an_entry_with_its_status(code):
    assert code in ENTRIES, 'say in doc/operator.md what it means and what to do'
    assert ENTRIES[code][0] == CODES[code]


def test_codes_are_found_wherever_they_are_defined():
    assert {'error', 'bug', 'gate_opened', 'group_not_found', 'monitor_error'} <= CODES.keys()


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
