# SPDX-License-Identifier: Apache-2.0
"""What is plugged in while a guest is prepared has neither filter nor image: no snapshot of it."""

import contextlib

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import guest as guests
from hotsnap_nova.virt import host, records
from tests.functional.bare import Bare
from tests.lab import Lab

RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


def test_a_device_plugged_in_during_the_preparation_fails_it(tmp_path, monkeypatch):
    with (Lab() as lab, Bare(lab, machine='pc') as guest,
          contextlib.closing(host.Engine(lab.uri)) as engine):
        work = records.Work('one', 1, engine.find((guest.name,)), 'barrier', str(tmp_path))
        full_xml = guests.Guest.full_xml

        def plugged_right_after_it_was_asked(self):
            found = full_xml(self)
            monkeypatch.undo()
            guest.domain.attachDevice(RNG)
            return found
        monkeypatch.setattr(guests.Guest, 'full_xml', plugged_right_after_it_was_asked)

        with pytest.raises(exception.GuestChanged, match='devices rng0 came or went'):
            engine.prepare(work)

        engine.discard('one', work.members)
        assert engine.survey() == ()
