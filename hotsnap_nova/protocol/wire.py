# SPDX-License-Identifier: Apache-2.0
"""Plain dicts of messages and durable state, for RPC, journal and database.

``{"kind": "Record", "v": 1, "snapshot": …}``. A field the reader does not know is ignored and one
it misses takes its default, so that hosts of neighbouring releases understand each other.
"""

import dataclasses
import enum
import functools
import types
import typing

from hotsnap_nova.protocol import durable, messages
from hotsnap_nova.protocol.restore import durable as restore_durable
from hotsnap_nova.protocol.restore import messages as restore_messages

VERSION = 1

_KINDS = {
    name: kind
    for module in (messages, durable, restore_messages, restore_durable)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def encode(thing: typing.Any) -> dict:
    """A dict of JSON types from which `decode` makes an equal object."""
    return {"v": VERSION} | _plain(thing)


def decode(plain: dict) -> typing.Any:
    """The object that `encode` was given.

    :raises ValueError: not a dict of ours, of another version, or with a field of another type
    """
    if not isinstance(plain, dict) or plain.get("v") != VERSION:
        raise ValueError(f"not a version {VERSION} message")
    return _object(plain)


def _plain(thing):
    if isinstance(thing, enum.Enum):
        return thing.value
    if isinstance(thing, tuple):
        return [_plain(item) for item in thing]
    if dataclasses.is_dataclass(thing):
        fields = {f.name: _plain(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"kind": type(thing).__name__} | fields
    return thing


def _object(plain):
    kind = _KINDS.get(plain.get("kind"))
    if kind is None:
        raise ValueError(f"unknown kind {plain.get('kind')!r}")
    hints = _hints(kind)
    try:
        return kind(**{k: _typed(v, hints[k]) for k, v in plain.items() if k in hints})
    except TypeError as exc:
        raise ValueError(f"bad {kind.__name__}: {exc}") from exc


@functools.cache
def _hints(kind):
    return typing.get_type_hints(kind)


def _typed(value, hint):
    """``value`` as ``hint`` says; only the few shapes that our dataclasses use."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = typing.get_args(hint)
        if value is None and types.NoneType in kinds:
            return None
        made = _object(value) if isinstance(value, dict) else value
        if isinstance(made, kinds):
            return made
    elif origin is tuple and isinstance(value, list | tuple):
        items = typing.get_args(hint)
        if items[-1] is Ellipsis:
            return tuple(_typed(item, items[0]) for item in value)
        if len(items) == len(value):
            return tuple(_typed(item, of) for item, of in zip(value, items, strict=True))
    elif isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return hint(value)
        made = _object(value) if isinstance(value, dict) else value
        if hint is float and isinstance(made, int):
            made = float(made)
        if isinstance(made, hint) and (hint is bool or not isinstance(made, bool)):
            return made
    raise ValueError(f"{value!r} is not {hint}")
