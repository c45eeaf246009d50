# SPDX-License-Identifier: Apache-2.0
"""Snapshots, their members, and the epochs of groups."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from hotsnap_nova.db.migrations import once

revision = '0001'
down_revision = None

_MYSQL = ('mysql', 'mariadb')
_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
_LONGER_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), 'mysql')
_EXACT_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
_OPTIONS = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4', 'mysql_collate': 'utf8mb4_bin'}


def upgrade():
    once.create_table(
        'snapshots',
        sa.Column('id', sa.String(36), primary_key=True),
        sa.Column('name', sa.String(255), nullable=False),
        sa.Column('live_name', sa.String(320)),
        sa.Column('description', sa.Text, nullable=False),
        sa.Column('properties', sa.Text, nullable=False),
        sa.Column('project_id', sa.String(64), nullable=False),
        sa.Column('user_id', sa.String(64), nullable=False),
        sa.Column('request_id', sa.String(64), nullable=False),
        sa.Column('group_id', sa.String(255), nullable=False),
        sa.Column('group_name', sa.String(255), nullable=False),
        sa.Column('epoch', sa.BigInteger, nullable=False),
        sa.Column('gate', sa.String(16), nullable=False),
        sa.Column('status', sa.String(32), nullable=False),
        sa.Column('phase', sa.String(32), nullable=False),
        sa.Column('decision', sa.String(16), nullable=False),
        sa.Column('closed', sa.Boolean, nullable=False),
        sa.Column('generation', sa.BigInteger, nullable=False),
        sa.Column('machine', _LONG_TEXT, nullable=False),
        sa.Column('restore', _LONG_TEXT),
        sa.Column('abort_request', sa.Text),
        sa.Column('skew_ms', sa.Double),
        sa.Column('error_code', sa.String(64)),
        sa.Column('error_message', sa.Text),
        sa.Column('error_member', sa.String(255)),
        sa.Column('error_host', sa.String(255)),
        sa.Column('lease_owner', sa.String(255)),
        sa.Column('lease_expires_at', sa.Double),
        sa.Column('created_at', _EXACT_TIME, nullable=False),
        sa.Column('updated_at', _EXACT_TIME, nullable=False),
        sa.UniqueConstraint('live_name', name='uniq_snapshots_live_name'),
        **_OPTIONS)
    once.create_index('snapshots_created_idx', 'snapshots', ['created_at', 'id'])
    once.create_index('snapshots_project_idx', 'snapshots', ['project_id'])
    once.create_index('snapshots_group_idx', 'snapshots', ['group_id', 'epoch'])
    once.create_table(
        'snapshot_members',
        sa.Column('snapshot_id', sa.String(36),
                  sa.ForeignKey('snapshots.id', ondelete='CASCADE'), primary_key=True),
        sa.Column('member_id', sa.String(255), primary_key=True),
        sa.Column('position', sa.Integer, nullable=False),
        sa.Column('name', sa.String(255), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('pause_ms', sa.Double),
        sa.Column('wait_ms', sa.Double),
        sa.Column('hold_ms', sa.Double),
        sa.Column('size_bytes', sa.BigInteger),
        sa.Column('done_bytes', sa.BigInteger, nullable=False),
        sa.Column('total_bytes', sa.BigInteger, nullable=False),
        sa.Column('detail', _LONGER_TEXT, nullable=False),
        **_OPTIONS)
    once.create_table(
        'group_epochs',
        sa.Column('group_id', sa.String(255), primary_key=True),
        sa.Column('epoch', sa.BigInteger, nullable=False),
        **_OPTIONS)
