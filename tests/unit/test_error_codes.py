# SPDX-License-Identifier: Apache-2.0
"""doc/api/errors.md has every code, as the source has it."""

import ast
import pathlib
import re
import subprocess
import sys

from hotsnap_nova.protocol import causes

ROOT = pathlib.Path(__file__).parents[2]
TABLES = (ROOT / 'doc/api/errors.md').read_text()
ERRORS, CAUSES = (set(re.findall(r'^\| `([a-z_]+)` \|', table, re.M))
                  for table in TABLES.split('## Causes'))


def constants():
    """{name: text} of the package's constants."""
    return {target.id: node.value.value for node in nodes(ast.Assign)
            if isinstance(node.value, ast.Constant)
            for target in node.targets if isinstance(target, ast.Name)}


def nodes(kind):
    for path in (ROOT / 'hotsnap_nova').rglob('*.py'):
        yield from (node for node in ast.walk(ast.parse(path.read_text()))
                    if isinstance(node, kind))


def said():
    """Codes of causes that the source names; others are an error's own."""
    named = constants()
    first = [node.args[0] for node in nodes(ast.Call)
             if ast.unparse(node.func).rpartition('.')[2] == 'Cause' and node.args]
    return {each.value if isinstance(each, ast.Constant) else named[each.id]
            for each in first if isinstance(each, ast.Constant | ast.Name)}


def test_the_tables_are_those_of_the_source():
    printed = subprocess.run([sys.executable, '-m', 'tools.error_codes'], cwd=ROOT,
                             capture_output=True, check=True, text=True).stdout

    assert printed == TABLES, 'python -m tools.error_codes > doc/api/errors.md'


def test_errors_are_found_wherever_they_are_defined():
    assert {'error', 'bug', 'gate_opened', 'group_not_found', 'monitor_error'} <= ERRORS


def test_every_cause_is_an_error_or_has_a_reason():
    assert said() - ERRORS == CAUSES == causes.REASONS.keys()


def test_no_code_means_two_things():
    assert not ERRORS & CAUSES
