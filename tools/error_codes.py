# SPDX-License-Identifier: Apache-2.0
"""Print doc/api/errors.md: every code that a program can meet, as the source has it.

python -m tools.error_codes > doc/api/errors.md
"""

import ast
import pathlib
import re

from hotsnap_nova.protocol import causes

ROOT = pathlib.Path(__file__).parents[1]

HEAD = """# Every error code

*Printed by `python -m tools.error_codes` from the source.*

A code never changes its meaning, and new ones may come: a program that meets one it does not know
goes by the status. What to do about errors is in the
[operator's guide](../operator.md#every-error-code).

## Errors

In the header `X-Server-Group-Snapshot-Error` of an answer with the status below, and in a
snapshot's `error` and `last_action`. *Slanted* words stand for what the message names.

| code | status | message |
|---|---|---|"""

CAUSES = """
## Causes

Why a snapshot or a restore was given up that had begun: in `error` and `last_action` alone.

| code | means | do |
|---|---|---|"""


def classes():
    """{name: (base, {code, http_status, message_format})} of the package; some need libvirt."""
    found = {}
    for path in sorted((ROOT / 'hotsnap_nova').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.bases:
                values = {each.targets[0].id: each.value.value for each in node.body
                          if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)}
                if 'code' in values or node.name not in found:    # messages are called so, too
                    found[node.name] = ast.unparse(node.bases[0]).rpartition('.')[2], values
    return found


def value(found, name, key):
    """The class's own, or its base's."""
    base, values = found[name]
    return values[key] if key in values else value(found, base, key)


def errors(found):
    """[(code, status, message)], by code."""
    return sorted(
        (values['code'], value(found, name, 'http_status'),
         re.sub(r'%\((\w+)\)[^a-z]*[a-z]', r'*\1*', value(found, name, 'message_format')))
        for name, (base, values) in found.items()
        if 'code' in values and (name == 'HotsnapError' or base in found))


print(HEAD)
for code, status, message in errors(classes()):
    print(f'| `{code}` | {status} | {message} |')
print(CAUSES)
for code, reason in sorted(causes.REASONS.items()):
    print(f'| `{code}` | {reason.means} | {reason.do} |')
