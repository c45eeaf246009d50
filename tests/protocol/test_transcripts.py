# SPDX-License-Identifier: Apache-2.0
"""Conversations to read, each in a file, replayed by the machines.

`theatre` tells the verbs of a snapshot's, `restoretheatre` those of a restore's.

``python -m tests.protocol.test_transcripts`` writes them anew after a change that is meant.
"""

import pathlib

import pytest

from tests.protocol.restoretheatre import RestoreTheatre
from tests.protocol.theatre import Theatre, replay

FOLDER = pathlib.Path(__file__).parent / "transcripts"
TRANSCRIPTS = sorted(FOLDER.glob("**/*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_machines_play_the_transcript_word_for_word(path):
    text = path.read_text()

    assert replay(text, _theatre(path)) == text


def _theatre(path):
    return RestoreTheatre() if path.parent.name == "restore" else Theatre()


def test_there_are_transcripts():
    assert len(TRANSCRIPTS) >= 16


if __name__ == "__main__":
    for each in TRANSCRIPTS:
        each.write_text(replay(each.read_text(), _theatre(each)))
