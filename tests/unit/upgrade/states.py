# SPDX-License-Identifier: Apache-2.0
"""What processes of ours left in a folder, as one text file.

::

    on available                      another state, that this one was made from
    -- hotsnap.db --                  statements that make its database from that one's
    -- world.json --                  {guest: what is otherwise than in that one's}
    -- state-h1/journal/….json --     a file that is not in that one, or another
    -- store/.drafts/…/ --            an empty folder
    -- gone: store/… --               what is in that one alone

Each part ends with a line's end that is not its file's. The folder is called FOLDER in it. What
`unpack` makes is what was packed, to the byte and the column; but for the heartbeats, which stay
as in the state that others are made from. Only the standard library is imported: the code that
left it is another.
"""

import contextlib
import json
import os
import pathlib
import re
import sqlite3

DATABASE = 'hotsnap.db'
WORLD = 'world.json'
FOLDER = '/at/the/place'
_HEARTBEATS = 'services'
_PART = re.compile(r'^-- (gone: )?(.+) --\n', re.MULTILINE)


def unpack(states: pathlib.Path, name: str, folder: pathlib.Path) -> None:
    """Make in an empty folder what a state has; files and folders are private."""
    below, parts = _parts(states, name)
    if below:
        unpack(states, below, folder)
    for gone, path, text in parts:
        place = folder / path
        if path == DATABASE:
            _execute(place, text.replace(FOLDER, str(folder)))
        elif path == WORLD:
            _change_guests(folder, json.loads(text))
        elif gone and place.is_dir():
            place.rmdir()
        elif gone:
            place.unlink()
        else:
            _make_folder(place if path.endswith('/') else place.parent)
            if not path.endswith('/'):
                _write(place, text.replace(FOLDER, str(folder)))


def pack(folder: pathlib.Path, below: pathlib.Path | None, name: str | None) -> str:
    """The text that `unpack` makes this folder from.

    :param below: the unpacked folder of state ``name``, where this one was made from it
    """
    found, known = _content(folder), _content(below) if below else {}
    out = [f'on {name}\n\n'] if name else []
    before = _dump(below) if below else {}
    out.append(_part(DATABASE, _difference(before, _dump(folder))))
    if changes := _changes(_guests(below) if below else {}, _guests(folder)):
        out.append(_part(WORLD, json.dumps(changes, indent=1)))
    # What is in a folder goes before the folder.
    out += [f'-- gone: {path} --\n' for path in sorted(known.keys() - found.keys(), reverse=True)]
    out += [_part(path, text) for path, text in sorted(found.items())
            if known.get(path) != text and not _is_of_another(path, found)]
    return ''.join(out)


def are_same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two folders hold the same."""
    return (_content(one), _guests(one), _difference(_dump(one), _dump(other))) == (
        _content(other), _guests(other), '')


def _parts(states, name):
    text = (states / f'{name}.txt').read_text()
    below = re.match(r'on (.+)\n', text)
    found = list(_PART.finditer(text))
    ends = [each.start() for each in found[1:]] + [len(text)]
    return below and below[1], [(each[1], each[2], text[each.end():end].removesuffix('\n'))
                                for each, end in zip(found, ends, strict=True)]


def _part(path, text):
    return f'-- {path} --\n' + (f'{text}\n' if not path.endswith('/') else '')


# -- files ---------------------------------------------------------------------------------------


def _content(folder):
    """Text by path, of all but database and guests; '' of folders, whose paths end so: ``/``."""
    found = {}
    for place in folder.rglob('*'):
        path = str(place.relative_to(folder))
        if place.is_dir():
            found[f'{path}/'] = ''
        elif path != WORLD and not path.startswith(DATABASE):
            found[path] = place.read_text().replace(str(folder), FOLDER)
    return found


def _is_of_another(path, found):
    """A folder that is made with what is in it."""
    return path.endswith('/') and any(each.startswith(path) for each in found if each != path)


def _make_folder(place):
    if not place.is_dir():
        _make_folder(place.parent)
        place.mkdir(mode=0o700)


def _write(place, text):
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as file:
        file.write(text)


# -- guests --------------------------------------------------------------------------------------


def _guests(folder):
    """By name; none where there is no file."""
    try:
        return json.loads((folder / WORLD).read_text())['guests']
    except FileNotFoundError:
        return {}


def _changes(before, after):
    changes = {name: {key: value for key, value in guest.items()
                      if name not in before or before[name][key] != value}
               for name, guest in after.items()}
    return {name: each for name, each in changes.items() if each}


def _change_guests(folder, changes):
    guests = _guests(folder)
    for name, change in changes.items():
        guests.setdefault(name, {}).update(change)
    _write(folder / WORLD, json.dumps({'guests': guests}))


# -- the database --------------------------------------------------------------------------------


def _execute(path, statements):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('PRAGMA synchronous = OFF')
        connection.executescript(f'BEGIN;\n{statements}\nCOMMIT;')
    path.chmod(0o600)


def _dump(folder):
    """{table: (its statements, {key: {column: literal}})}"""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as connection:
        return {table: (_schema(connection, table), _rows(connection, table, str(folder)))
                for table, in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")}


def _schema(connection, table):
    return tuple(f'{sql};\n' for sql, in connection.execute(
        'SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY rowid',
        (table,)))


def _rows(connection, table, folder):
    columns = connection.execute(f'PRAGMA table_info({table})').fetchall()
    names = [name for _, name, *_ in columns]
    keys = [name for _, name, *_, key in columns if key]
    found = {}
    for row in connection.execute(
            f'SELECT {", ".join(f"quote({name})" for name in names)} FROM {table}'
            f' ORDER BY {", ".join(keys)}'):
        literals = {name: literal.replace(folder, FOLDER)
                    for name, literal in zip(names, row, strict=True)}
        found[tuple((key, literals[key]) for key in keys)] = literals
    return found


def _difference(before, after):
    """Statements that make the second of two databases from the first, a column a line."""
    out = []
    for table, (schema, rows) in after.items():
        old_schema, old = before.get(table, ((), {}))
        if before and table == _HEARTBEATS:
            continue
        out += schema[len(old_schema):]
        out += [f'DELETE FROM {table}{_where(key)};\n' for key in old if key not in rows]
        for key, columns in rows.items():
            if key not in old:
                given = {name: each for name, each in columns.items() if each != 'NULL'}
                values = ',\n  '.join(given.values())
                out.append(f'INSERT INTO {table} ({", ".join(given)}) VALUES (\n  {values});\n')
            elif old[key] != columns:
                changes = ',\n  '.join(f'{name} = {each}' for name, each in columns.items()
                                       if each != old[key][name])
                out.append(f'UPDATE {table} SET\n  {changes}{_where(key)};\n')
    return ''.join(out)


def _where(key):
    return '\nWHERE ' + ' AND '.join(f'{name} = {literal}' for name, literal in key)
