# SPDX-License-Identifier: Apache-2.0
"""What machines make of messages, worked out once.

A world has many messages, most of which change nothing any more; whoever explores hands each of
them to the same machine over and over.
"""


class Memory:
    """Equal things are one object; what they lead to is found by identity, without hashing."""

    def __init__(self):
        self._same = {}
        self._found = {}

    def same(self, thing):
        """The one of all that are equal to it."""
        return self._same.setdefault(thing, thing)

    def once(self, do, *about):
        """What ``do`` makes of these, which depends on nothing else."""
        key = (do, *map(id, about))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = do(*about), about  # kept, so that ids stay theirs
        return found[0]
