# SPDX-License-Identifier: Apache-2.0
"""A command that was typed."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Ran:
    """What it printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)
