# SPDX-License-Identifier: Apache-2.0
"""The protocol's own reasons: what a `Cause` says that is no error of `hotsnap_nova.exception`.

A code is stable, as an error's is; doc/api/errors.md is printed from here.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reason:
    """What a code means, and what there is to be done."""

    means: str
    do: str = "nothing is left of it: try again"


_UPGRADE = "nothing is left of it: try again when no host is being upgraded or restarted"
_REPORT = "report it with the request id and the logs; guests run"

REASONS = {
    "already_discarded": Reason("a host was told to publish a snapshot that it has discarded",
                                _REPORT),
    "already_finished": Reason(
        "a host has published a snapshot that it is told to discard, or to make", "delete it"),
    "coordinator_restarted": Reason("the conductor ended before anything was decided"),
    "coordinator_silent": Reason(
        "a host heard of no conductor for so long that it gave up, and its guests run",
        "see that a conductor runs, and that RabbitMQ does; try again"),
    "decided": Reason("a host was told the contrary of what had been decided before", _REPORT),
    "epoch_decided": Reason("a host has ended a newer snapshot of the group already"),
    "gate_not_closed": Reason("a member was cut while its packets went out", _REPORT),
    "member_busy": Reason("a member is in another snapshot", "try again when that has ended"),
    "members_differ": Reason("a host told of other members than it was asked for", _REPORT),
    "nothing_saved": Reason(
        "a host lost its journal after it had saved its part, so that it cannot publish",
        "delete the snapshot, and look for what happened to the host's disk"),
    "other_epoch": Reason("a host knows the snapshot by another epoch", _REPORT),
    "out_of_order": Reason("a host was asked for a step before those that it needs", _UPGRADE),
    "participant_restarted": Reason(
        "the service of a host was restarted before it had saved its part, and cleaned up",
        _UPGRADE),
    "restore_ended": Reason(
        "a host was asked for a step of a restore that has ended there", _REPORT),
    "stopped_twice": Reason(
        "a member was stopped or resumed more often than its cut accounts for, so that its disks "
        "may be older than its memory", "try again; ask who works with `virsh`"),
    "timeout": Reason(
        "hosts did not answer in time; the message names them and what they were at",
        "look at those hosts; where they are only slow raise `prepare_timeout_s`"),
    "unknown_restore": Reason(
        "a host was asked for a step of a restore of which it knows nothing",
        "look for what happened to the host's state folder; restore again"),
    "unknown_snapshot": Reason(
        "a host was asked for a step of a snapshot of which it knows nothing",
        "look for what happened to the host's state folder; delete the snapshot"),
    "upgraded": Reason("a host was upgraded in the middle of a restore, which was undone",
                       "restore again when all are upgraded"),
    "withdrawn": Reason("Nova needs a member for something else: the message says for what",
                        "try again when that has ended"),
}
