# SPDX-License-Identifier: Apache-2.0
"""Who may do what; the rules refer to those that Nova defines."""

from hotsnap_nova.policies import snapshots


def list_rules() -> list:
    """All rules, for Nova's enforcer and for oslopolicy-sample-generator."""
    return list(snapshots.RULES)
