# SPDX-License-Identifier: Apache-2.0
"""What doc/protocol.md says of each rule: where it lives, and who breaks it."""

import ast
import pathlib
import re

_ROOT = pathlib.Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d) .* \| (.*) \| (.*) \|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")


def rules(heading):
    """{rule: (places, mutants)} of the section, both as names."""
    text = (_ROOT / "doc" / "protocol.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {
        int(rule): (_NAME.findall(places), _NAME.findall(mutants))
        for rule, places, mutants in _ROW.findall(section)
    }


def mutants(heading):
    """{(rule, mutant)} of the section."""
    return {(rule, name) for rule, (_, names) in rules(heading).items() for name in names}


def missing(heading):
    """Places that the section names and the source has not."""
    named = {place for places, _ in rules(heading).values() for place in places}
    return sorted(named - _known())


def _known():
    """Each name of the source, alone, behind its class, and behind its module."""
    found = set()
    for path in (_ROOT / "hotsnap_nova").glob("**/*.py"):
        module = path.stem if path.stem != "__init__" else path.parent.name
        tree = ast.parse(path.read_text())
        for thing in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
            for name in _names(thing):
                found |= {name, f"{module}.{name}", f"{getattr(thing, 'name', module)}.{name}"}
    return found


def _names(thing):
    for node in thing.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name
