# SPDX-License-Identifier: Apache-2.0
"""Between the protocol's values and the engine's, which know nothing of each other."""

import contextlib
import dataclasses
import json
import re

from hotsnap_nova import exception
from hotsnap_nova.protocol import messages
from hotsnap_nova.virt import records


def specs(members: tuple[messages.Member, ...]) -> tuple[records.MemberSpec, ...]:
    return tuple(records.MemberSpec(member.id, member.name) for member in members)


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
        if delays else ())


def finding(each: records.Finding) -> dict:
    """A finding for any coordinator: one of before 1.3 knows ``gates`` and ``refuses`` alone."""
    return dataclasses.asdict(each) | {
        'gates': [name for name in each.rules_out if name in records.GATES],
        'refuses': records.SNAPSHOT in each.rules_out}


@contextlib.contextmanager
def in_users_words(engine, members):
    """Errors of the block name guests as their members' names do, not as libvirt does.

    :param members: with ``id`` and ``name``
    """
    try:
        yield
    except exception.HotsnapError as exc:
        names = users_names(engine, members)
        if not names:
            raise
        told = type(exc)(renamed(str(exc), names), **{
            key: renamed(value, names) if isinstance(value, str) else value
            for key, value in exc.kwargs.items()})
        told.code = exc.code
        raise told from exc


def outcome_in_users_words(engine, members, outcome: records.RestoreOutcome):
    """The outcome, with errors of its members as `in_users_words` tells them."""
    faults = []
    for fault in outcome.faults:
        try:
            with in_users_words(engine, members):
                raise fault.error
        except exception.HotsnapError as exc:
            faults.append(dataclasses.replace(fault, error=exc))
    return dataclasses.replace(outcome, faults=tuple(faults))


def users_names(engine, members) -> dict[str, str]:
    """Names of members by libvirt's, where it has others."""
    names = {}
    for member in members:
        with contextlib.suppress(exception.HotsnapError):
            (found,) = engine.find((member.id,))
            if member.name and found.name != member.name:
                names[found.name] = member.name
    return names


def renamed(text: str, names: dict[str, str]) -> str:
    """The text with the names' values instead of the names."""
    for name in sorted(names, key=len, reverse=True):
        # Not within another word: 'vm1' is no part of 'vm10' or of 'vm1.qcow2'.
        text = re.sub(rf'(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)',
                      lambda _found, name=name: names[name], text)
    return text


def cut(record: records.CutRecord) -> messages.MemberCut:
    return messages.MemberCut(
        member=record.member, cut_ns=record.cut_ns, gate_closed_ns=record.gate_closed_ns,
        pause_ms=record.pause_ms, stops=record.stops, resumes=record.resumes,
        detail=json.dumps({'cut_wall_ns': record.cut_wall_ns, 'parts_ms': record.parts_ms}))


def release(record: records.ReleaseRecord) -> messages.MemberRelease:
    return messages.MemberRelease(
        member=record.member, hold_ms=record.hold_ms, wait_ms=record.wait_ms,
        opened_by_itself=record.opened_by_itself)


def progress(done: dict[str, records.Progress]) -> tuple[messages.MemberProgress, ...]:
    return tuple(messages.MemberProgress(each.member, each.done_bytes, each.total_bytes)
                 for _, each in sorted(done.items()))


def facts_detail(facts: tuple[records.MemberFacts, ...]) -> str:
    """What `Prepared` carries."""
    return json.dumps({'members': [dataclasses.asdict(each) for each in facts]})


def saved_detail(saved: tuple[records.SavedMember, ...]) -> str:
    """What `Saved` carries."""
    return json.dumps({'members': [dataclasses.asdict(each) for each in saved]})
