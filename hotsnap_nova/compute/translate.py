# SPDX-License-Identifier: Apache-2.0
"""Between the protocol's values and the engine's, which know nothing of each other."""

import dataclasses
import json

from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as restores
from hotsnap_nova.virt import records


def spec(member: messages.Member) -> records.MemberSpec:
    """As errors mention it: by the name that its user gave it."""
    return records.MemberSpec(member.id, member.name)


def specs(members: tuple[messages.Member, ...]) -> tuple[records.MemberSpec, ...]:
    return tuple(map(spec, members))


def engine_work(command, folder: str) -> records.Work:
    """What the engine is to do for an `EngineCommand`; ``folder`` is the store's draft."""
    work = command.work
    options = json.loads(work.options)
    delays = options.get('record_delays_s') or {}
    return records.Work(
        snapshot_id=command.snapshot, epoch=command.epoch, members=specs(work.members),
        gate=str(work.gate), folder=folder, max_pause_ms=work.max_pause_ms,
        max_hold_ms=work.max_hold_ms, compress=bool(options.get('compress')),
        record_delays_s=tuple(float(delays.get(member.id, 0)) for member in work.members)
        if delays else (), marker=options.get('marker'))


def finding(each: records.Finding) -> dict:
    """A finding for any coordinator: one of before 1.3 has it of a name, and knows ``gates`` and
    ``refuses`` alone.
    """
    return dataclasses.asdict(each) | {
        'id': each.member.id, 'member': str(each.member),
        'gates': [name for name in each.rules_out if name in (*records.GATES, records.MARKER)],
        'refuses': records.SNAPSHOT in each.rules_out}


def warning(each: records.Finding, host: str) -> restores.MemberWarning:
    """A finding that refuses nothing, of a restore."""
    return restores.MemberWarning(each.member.id, each.device, each.cause, each.remedy, host)


def cut(record: records.CutRecord) -> messages.MemberCut:
    return messages.MemberCut(
        member=record.member, cut_ns=record.cut_ns, gate_closed_ns=record.gate_closed_ns,
        pause_ms=record.pause_ms, stops=record.stops, resumes=record.resumes,
        detail=json.dumps({'cut_wall_ns': record.cut_wall_ns, 'parts_ms': record.parts_ms,
                           'asked_by_mark': record.asked_by_mark}))


def release(record: records.ReleaseRecord) -> messages.MemberRelease:
    return messages.MemberRelease(
        member=record.member, hold_ms=record.hold_ms, wait_ms=record.wait_ms,
        opened_by_itself=record.opened_by_itself, packets_held=record.packets.held,
        detail=json.dumps({'carried_by': record.carried_by, 'marked': record.packets.marked,
                           'late': record.packets.late}))


def progress(done: dict[str, records.Progress]) -> tuple[messages.MemberProgress, ...]:
    return tuple(messages.MemberProgress(each.member, each.done_bytes, each.total_bytes)
                 for _, each in sorted(done.items()))


def facts_detail(facts: tuple[records.MemberFacts, ...]) -> str:
    """What `Prepared` carries."""
    return json.dumps({'members': [dataclasses.asdict(each) for each in facts]})


def saved_detail(saved: tuple[records.SavedMember, ...]) -> str:
    """What `Saved` carries."""
    return json.dumps({'members': [dataclasses.asdict(each) for each in saved]})
