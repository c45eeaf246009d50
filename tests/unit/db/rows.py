# SPDX-License-Identifier: Apache-2.0
"""Rows to put into the database."""


def snapshot(snapshot_id='s1', **values):
    return {'id': snapshot_id, 'name': f'name of {snapshot_id}', 'group_id': 'g', 'epoch': 1,
            'gate': 'hold', 'status': 'creating', 'phase': 'prepare', **values}


def members(*names):
    return [{'member_id': f'id-{name}', 'name': name, 'host': 'h'} for name in names]
