# SPDX-License-Identifier: Apache-2.0
"""Our rules, asked of Nova's own enforcer, so that one policy file is for all."""

import copy
import threading

from nova import exception as nova_exception
from nova import policy
from nova.policies import lock_server

from hotsnap_nova import exception, policies
from hotsnap_nova.conductor import rpcapi

_MUTEX = threading.Lock()


def may(context, rule: str, project_id: str) -> bool:
    """Whether the rule lets the context do this to something of that project."""
    _register()
    return bool(context.can(rule, target={'project_id': project_id}, fatal=False))


def may_unlock(context, project_id: str) -> tuple[str, ...]:
    """Whose locks of that project's servers the context may take off, of `rpcapi.LOCKED_BY`.

    By Nova's own rules: who locked it as its owner, or as an administrator, takes that off; who
    may override takes off both.
    """
    if not may(context, lock_server.POLICY_ROOT % 'unlock', project_id):
        return ()
    if may(context, lock_server.POLICY_ROOT % 'unlock:unlock_override', project_id):
        return rpcapi.LOCKED_BY
    return ('owner',) if context.project_id == project_id else ('admin',)


def require(context, rule: str, project_id: str) -> None:
    """Nothing, where the rule allows it.

    :raises PolicyNotAuthorized: Nova's; a 403
    """
    _register()
    context.can(rule, target={'project_id': project_id})


def require_on(context, rule: str, snapshot: dict) -> None:
    """Nothing, where the rule allows it on this snapshot.

    :raises SnapshotNotFound: it is another project's, which is none of the caller's business
    :raises PolicyNotAuthorized: Nova's; a 403
    """
    try:
        require(context, rule, snapshot['project_id'])
    except nova_exception.PolicyNotAuthorized as exc:
        if snapshot['project_id'] == context.project_id:
            raise
        raise exception.SnapshotNotFound(snapshot=snapshot['id']) from exc


def _register():
    """Make our rules known to the enforcer of the moment: Nova may have made a new one."""
    policy.init()
    enforcer = policy._ENFORCER
    rules = policies.list_rules()
    if rules[-1].name in enforcer.registered_rules:
        return
    with _MUTEX:
        # Replaced as a whole: Nova's requests in other threads may be walking through it.
        # A deep copy, as register_default makes: the enforcer writes into its rules.
        enforcer.registered_rules = {
            **{each.name: copy.deepcopy(each) for each in rules}, **enforcer.registered_rules}
        enforcer.load_rules()
