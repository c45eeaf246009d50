# SPDX-License-Identifier: Apache-2.0
"""What the service beside nova-conductor needs: actions, heartbeats, hosts' errands."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from hotsnap_nova.db.migrations import once

revision = '0002'
down_revision = '0001'

_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')
_OPTIONS = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4', 'mysql_collate': 'utf8mb4_bin'}


def upgrade():
    once.add_column('snapshots', sa.Column(
        'disk', sa.String(16), nullable=False, server_default='backup'))
    once.add_column('snapshots', sa.Column('action_status', sa.String(16)))
    once.add_column('snapshots', sa.Column('last_action', sa.Text))
    once.create_table(
        'services',
        sa.Column('binary', sa.String(64), primary_key=True),
        sa.Column('host', sa.String(255), primary_key=True),
        sa.Column('version', sa.String(64), nullable=False),
        sa.Column('rpc_version', sa.String(16), nullable=False),
        sa.Column('started_at', sa.Double),
        sa.Column('seen_at', sa.Double),
        sa.Column('asked_at', sa.Double),
        **_OPTIONS)
    once.create_table(
        'errands',
        sa.Column('snapshot_id', sa.String(36), primary_key=True),
        sa.Column('host', sa.String(255), primary_key=True),
        sa.Column('kind', sa.String(16), primary_key=True),
        sa.Column('detail', _LONG_TEXT, nullable=False),
        sa.Column('created_at', sa.Double, nullable=False),
        **_OPTIONS)
    once.create_index('errands_host_idx', 'errands', ['host'])
