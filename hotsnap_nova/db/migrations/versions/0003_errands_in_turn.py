# SPDX-License-Identifier: Apache-2.0
"""Errands done in the order they were given, by one coordinator at a time; turns of quotas."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from hotsnap_nova.db.migrations import once

revision = '0003'
down_revision = '0002'

_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
_OPTIONS = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4', 'mysql_collate': 'utf8mb4_bin'}


def upgrade():
    if once.has_table('errands') and not once.has_column('errands', 'id'):
        once.drop_index('errands_host_idx', 'errands')
        op.rename_table('errands', 'errands_0002')
    once.create_table(
        'errands',
        sa.Column('id', _COUNTER, primary_key=True),
        sa.Column('snapshot_id', sa.String(36), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('kind', sa.String(16), nullable=False),
        sa.Column('detail', _LONG_TEXT, nullable=False),
        sa.Column('created_at', sa.Double, nullable=False),
        sa.Column('attempts', sa.Integer, nullable=False, server_default='0'),
        sa.Column('error', sa.Text),
        sa.Column('not_before', sa.Double),
        sa.Column('claimed_by', sa.String(255)),
        sa.Column('claimed_until', sa.Double),
        sa.UniqueConstraint('snapshot_id', 'host', 'kind', name='uniq_errands_what'),
        sqlite_autoincrement=True, **_OPTIONS)
    once.create_index('errands_host_idx', 'errands', ['host'])
    if once.has_table('errands_0002'):
        op.execute('INSERT INTO errands (snapshot_id, host, kind, detail, created_at) '
                   'SELECT snapshot_id, host, kind, detail, created_at FROM errands_0002 AS was '
                   'WHERE NOT EXISTS (SELECT 1 FROM errands AS made WHERE made.host = was.host '
                   'AND made.snapshot_id = was.snapshot_id AND made.kind = was.kind) '
                   'ORDER BY created_at, snapshot_id')
    once.drop_table('errands_0002')
    once.create_table(
        'quota_turns',
        sa.Column('scope', sa.String(320), primary_key=True),
        sa.Column('turn', sa.BigInteger, nullable=False),
        **_OPTIONS)
