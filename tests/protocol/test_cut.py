# SPDX-License-Identifier: Apache-2.0
"""What a gate promises about packets, told on one member."""

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

    assert marked == (Emit(Packet("a", "b", 1, epoch=5)),)
    assert other == ()


def test_an_armed_member_is_cut_before_a_newer_packet_is_delivered():
    path, _ = DataPath("b", epoch=4).arm(5, Gate.MARKER)
    newer = Packet("a", "b", 1, epoch=5)

    path, asked = path.arrive(newer)
    path, nothing = path.suspend()
    path, frozen = path.freeze()
    path, delivered = path.resume()

    assert asked == (TakeCut(5),)
    assert nothing == frozen == ()
    assert path.epoch == 5
    assert delivered == (Deliver(newer),)


def test_a_failed_cut_delivers_the_packet_and_poisons_the_epoch():
    path, _ = DataPath("b", epoch=4).arm(5, Gate.MARKER)
    newer = Packet("a", "b", 1, epoch=5)
    path, _ = path.arrive(newer)

    path, delivered = path.fail()

    assert delivered == (Deliver(newer),)
    assert path.poisoned == {5}
    assert path.arm(5, Gate.MARKER)[0].poisoned == {5}


def test_an_unarmed_member_delivers_a_newer_packet_and_disowns_that_epoch():
    path = DataPath("b", epoch=4, gate=Gate.MARKER)

    path, effects = path.arrive(Packet("a", "b", 1, epoch=5))

    assert effects == (Deliver(Packet("a", "b", 1, epoch=5)),)
    assert path.poisoned == {5}


def test_a_decided_epoch_asks_for_no_cut_even_where_nothing_was_recorded():
    path, _ = DataPath("b", epoch=4).arm(5, Gate.MARKER)

    path, _ = path.decide(5)
    path, effects = path.arrive(Packet("a", "b", 1, epoch=5))

    assert effects == (Deliver(Packet("a", "b", 1, epoch=5)),)
    assert not path.poisoned
