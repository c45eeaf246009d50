# SPDX-License-Identifier: Apache-2.0
"""A restore that was a mistake is undone, memory included: its present was kept."""

from tests.functional.command import PATIENT, until


def acked(pair):
    return [guest.counters().disks[0].acked for guest in pair]


def test_guests_go_back_to_what_they_were_before_they_were_restored(user, pair, monkeypatch):
    for option, value in zip(PATIENT[::2], PATIENT[1::2], strict=True):
        monkeypatch.setenv(f'OS_HOTSNAP__{option.strip("-").replace("-", "_").upper()}', value)
    assert user.create('cut', pair).status == 0
    then = acked(pair)
    assert until(lambda: all(now > cut + 20 for now, cut in zip(acked(pair), then, strict=True)))
    before = acked(pair)

    mistake = user.run('snapshot', 'restore', 'cut', '--paused', '--keep-present', 'before')

    assert mistake.status == 0, mistake.errors
    assert all(now < was for now, was in zip(acked(pair), before, strict=True))
    undone = user.run('snapshot', 'restore', 'before', '--paused')
    assert undone.status == 0, undone.errors
    assert all(now >= was for now, was in zip(acked(pair), before, strict=True))
    for guest in pair:
        guest.domain.resume()
    assert [guest.troubles() for guest in pair] == [[], []]
