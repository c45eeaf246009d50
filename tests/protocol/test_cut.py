# SPDX-License-Identifier: Apache-2.0
"""What a gate promises about packets, told on one member."""

from dataclasses import replace

from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.cut import DataPath, Deliver, Emit, Packet, Step, TakeCut
from hotsnap_nova.protocol.messages import Gate


def past_its_cut(gate):
    path, _ = DataPath("a", epoch=4).arm(5, gate)
    for step in cut.record_steps(gate):
        path, _ = getattr(path, step)()
    return path


def test_the_gate_closes_between_stop_and_resume():
    for gate in Gate:
        steps = cut.record_steps(gate)
        end = steps.index(Step.RESUME) if Step.RESUME in steps else len(steps)

        assert steps.index(Step.SUSPEND) < steps.index(Step.CLOSE) < end
        assert steps.index(Step.SUSPEND) < steps.index(Step.FREEZE) < end


def test_hold_keeps_all_egress_in_order_until_open():
    path = past_its_cut(Gate.HOLD)

    path, first = path.send(Packet("a", "b", 1))
    path, second = path.send(Packet("a", "b", 2, markable=False))
    path, opened = path.open()

    assert first == second == ()
    assert [effect.packet.number for effect in opened] == [1, 2]


def test_barrier_lets_nothing_out_because_the_guest_is_suspended():
    path = past_its_cut(Gate.BARRIER)

    assert path.send(Packet("a", "b", 1)) == (path, ())


def test_what_arrives_while_suspended_is_delivered_in_order_at_resume():
    path, _ = DataPath("a").suspend()
    path, nothing = path.arrive(Packet("b", "a", 1))
    path, _ = path.arrive(Packet("b", "a", 2))

    path, delivered = path.resume()

    assert nothing == ()
    assert delivered == (Deliver(Packet("b", "a", 1)), Deliver(Packet("b", "a", 2)))


def test_marker_stamps_what_can_be_marked_and_holds_the_rest():
    path = past_its_cut(Gate.MARKER)

    path, marked = path.send(Packet("a", "b", 1))
    path, other = path.send(Packet("a", "b", 2, markable=False))
    path, opened = path.open()
    path, later = path.send(Packet("a", "b", 3))

    assert marked == (Emit(Packet("a", "b", 1, epoch=5, mark=MARK)),)
    assert other == ()
    assert opened == (Emit(Packet("a", "b", 2, markable=False, epoch=5)),)
    assert later == (Emit(Packet("a", "b", 3, epoch=5)),)


def armed(**more):
    return DataPath("b", epoch=4, **more).arm(5, Gate.MARKER)[0]


MARK = cut.mark_of(5)
NEWER = Packet("a", "b", 1, epoch=5, mark=MARK)
BEHIND = Packet("c", "b", 1, epoch=4)


def arrives(path, *packets):
    effects = []
    for packet in packets:
        path, more = path.arrive(packet)
        effects += more
    return path, effects


def without_mark(packet):
    return replace(packet, mark=0)


def test_an_armed_member_is_cut_before_a_newer_packet_and_all_behind_it_are_delivered():
    path, asked = arrives(armed(), BEHIND, NEWER, BEHIND, NEWER)
    path, nothing = path.suspend()
    path, frozen = path.freeze()
    path, delivered = path.resume()

    assert asked == [Deliver(BEHIND), TakeCut(5)]
    assert nothing == frozen == ()
    assert path.epoch == 5
    assert not path.keeping
    assert delivered == tuple(map(Deliver, (without_mark(NEWER), BEHIND, without_mark(NEWER))))


def test_a_failed_cut_delivers_what_waited_and_poisons_the_epoch():
    path, _ = arrives(armed(), NEWER, BEHIND)

    path, delivered = path.fail()

    assert delivered == (Deliver(without_mark(NEWER)), Deliver(BEHIND))
    assert path.poisoned == {5}
    assert path.arm(5, Gate.MARKER)[0].poisoned == {5}
    assert arrives(path, NEWER)[1] == [Deliver(without_mark(NEWER))]


def test_what_is_kept_beyond_the_lease_is_delivered_and_poisons_the_epoch():
    path, _ = arrives(armed(), NEWER, BEHIND)

    path, delivered = path.lapse()

    assert delivered == (Deliver(without_mark(NEWER)), Deliver(BEHIND))
    assert path.poisoned == {5}


def test_when_the_lease_of_a_gate_ends_all_passes_and_nothing_is_marked_any_more():
    path = past_its_cut(Gate.MARKER)
    path, _ = path.send(Packet("a", "b", 1, markable=False))

    path, passed = path.lapse()
    path, marked = path.send(Packet("a", "b", 2))
    path, other = path.send(Packet("a", "b", 3, markable=False))

    assert [effect.packet.number for effect in passed + marked + other] == [1, 2, 3]
    assert not any(effect.packet.mark for effect in passed + marked + other)


def test_late_marks_are_stripped_after_the_release_until_the_snapshot_is_decided():
    path = past_its_cut(Gate.MARKER)
    path, _ = path.open()

    path, released = path.arrive(NEWER)
    path, _ = path.decide(5)
    path, decided = path.arrive(NEWER)

    assert released == (Deliver(without_mark(NEWER)),)
    assert decided == (Deliver(NEWER),)


def test_the_mark_of_another_epoch_is_stripped_and_asks_for_no_cut():
    other = replace(NEWER, mark=cut.mark_of(4))

    assert other.mark != MARK
    assert arrives(armed(), other)[1] == [Deliver(without_mark(other))]


def test_a_gate_drops_what_it_has_no_room_for_and_says_so():
    holds = replace(past_its_cut(Gate.HOLD), room=1)
    keeps = armed(room=1)

    holds, _ = holds.send(Packet("a", "b", 1))
    full = holds.overflowed
    holds, nothing = holds.send(Packet("a", "b", 2))
    keeps, asked = arrives(keeps, NEWER, BEHIND)

    assert not full
    assert nothing == ()
    assert holds.overflowed
    assert len(holds.held) == 1
    assert asked == [TakeCut(5)]
    assert keeps.overflowed
    assert keeps.queued == (NEWER,)


def test_who_is_not_armed_sees_no_marks():
    path, effects = DataPath("b", epoch=4, gate=Gate.MARKER).arrive(NEWER)

    assert effects == (Deliver(NEWER),)
    assert not path.poisoned


def test_a_decided_epoch_asks_for_no_cut_even_where_nothing_was_recorded():
    path, _ = armed().decide(5)

    path, effects = path.arrive(NEWER)

    assert effects == (Deliver(NEWER),)
    assert not path.poisoned


def test_a_member_that_gives_up_while_it_keeps_delivers_and_is_as_before():
    path, _ = arrives(armed(), NEWER, BEHIND)

    path, delivered = path.disarm()

    assert [effect.packet for effect in delivered] == [without_mark(NEWER), BEHIND]
    assert path == DataPath("b", epoch=4, gate=Gate.MARKER)
