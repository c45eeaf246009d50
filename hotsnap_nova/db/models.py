# SPDX-License-Identifier: Apache-2.0
"""The tables. A change here needs a migration; a test compares the two."""

import sqlalchemy as sa
from oslo_db.sqlalchemy import types
from sqlalchemy import orm
from sqlalchemy.dialects import mysql

_MYSQL = ('mysql', 'mariadb')
#: 16 MiB: a row tells of all hosts and members, and MySQL's plain TEXT ends at 64 KiB.
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
#: Pages are cut by it; MySQL's plain DATETIME has whole seconds.
EXACT_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL)

#: SQLite counts up in this type alone.
COUNTER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')

TABLE_OPTIONS = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4',
                 'mysql_collate': 'utf8mb4_bin'}

#: Of snapshots, groups, hosts, members.
NAME = sa.String(255)


class Base(orm.DeclarativeBase):
    """What alembic compares with the database."""


class Snapshot(Base):
    """A group snapshot; ``records.Snapshot`` tells what the columns mean."""

    __tablename__ = 'snapshots'
    __table_args__ = (
        sa.UniqueConstraint('live_name', name='uniq_snapshots_live_name'),
        sa.Index('snapshots_created_idx', 'created_at', 'id'),
        sa.Index('snapshots_project_idx', 'project_id'),
        sa.Index('snapshots_group_idx', 'group_id', 'epoch'),
        TABLE_OPTIONS,
    )

    id = sa.Column(sa.String(36), primary_key=True)
    name = sa.Column(NAME, nullable=False)
    #: project and name while the name is taken, NULL where it need not be unique
    live_name = sa.Column(sa.String(320))
    description = sa.Column(sa.Text, nullable=False)
    properties = sa.Column(types.JsonEncodedDict, nullable=False)
    project_id = sa.Column(sa.String(64), nullable=False)
    user_id = sa.Column(sa.String(64), nullable=False)
    request_id = sa.Column(sa.String(64), nullable=False)
    group_id = sa.Column(NAME, nullable=False)
    group_name = sa.Column(NAME, nullable=False)
    epoch = sa.Column(sa.BigInteger, nullable=False)
    gate = sa.Column(sa.String(16), nullable=False)
    status = sa.Column(sa.String(32), nullable=False)
    phase = sa.Column(sa.String(32), nullable=False)
    decision = sa.Column(sa.String(16), nullable=False)
    closed = sa.Column(sa.Boolean, nullable=False)
    generation = sa.Column(sa.BigInteger, nullable=False)
    machine = sa.Column(LONG_TEXT, nullable=False)
    restore = sa.Column(LONG_TEXT)
    abort_request = sa.Column(sa.Text)
    skew_ms = sa.Column(sa.Double)
    error_code = sa.Column(sa.String(64))
    error_message = sa.Column(sa.Text)
    error_member = sa.Column(NAME)
    error_host = sa.Column(NAME)
    lease_owner = sa.Column(NAME)
    lease_expires_at = sa.Column(sa.Double)
    created_at = sa.Column(EXACT_TIME, nullable=False)
    updated_at = sa.Column(EXACT_TIME, nullable=False)
    disk = sa.Column(sa.String(16), nullable=False, server_default='backup')
    action_status = sa.Column(sa.String(16))
    last_action = sa.Column(types.JsonEncodedDict)

    members = orm.relationship(
        'Member', order_by='Member.position', lazy='selectin', passive_deletes=True)


class Member(Base):
    """One server's part of a snapshot."""

    __tablename__ = 'snapshot_members'
    __table_args__ = (TABLE_OPTIONS,)

    snapshot_id = sa.Column(
        sa.String(36), sa.ForeignKey('snapshots.id', ondelete='CASCADE'), primary_key=True)
    member_id = sa.Column(NAME, primary_key=True)
    #: the order in which they were named
    position = sa.Column(sa.Integer, nullable=False)
    name = sa.Column(NAME, nullable=False)
    host = sa.Column(NAME, nullable=False)
    pause_ms = sa.Column(sa.Double)
    wait_ms = sa.Column(sa.Double)
    hold_ms = sa.Column(sa.Double)
    size_bytes = sa.Column(sa.BigInteger)
    done_bytes = sa.Column(sa.BigInteger, nullable=False)
    total_bytes = sa.Column(sa.BigInteger, nullable=False)
    detail = sa.Column(types.JsonEncodedDict(mysql_as_long=True), nullable=False)


class GroupEpoch(Base):
    """The newest epoch given to a group; outlives its snapshots, or epochs would repeat."""

    __tablename__ = 'group_epochs'
    __table_args__ = (TABLE_OPTIONS,)

    group_id = sa.Column(NAME, primary_key=True)
    epoch = sa.Column(sa.BigInteger, nullable=False)


class Service(Base):
    """A process of ours, and when it was last heard of; times are seconds since 1970."""

    __tablename__ = 'services'
    __table_args__ = (TABLE_OPTIONS,)

    binary = sa.Column(sa.String(64), primary_key=True)
    host = sa.Column(NAME, primary_key=True)
    version = sa.Column(sa.String(64), nullable=False)
    rpc_version = sa.Column(sa.String(16), nullable=False)
    started_at = sa.Column(sa.Double)
    seen_at = sa.Column(sa.Double)
    asked_at = sa.Column(sa.Double)


class Errand(Base):
    """What a host still has to do; outlives its snapshot. Times are seconds since 1970."""

    __tablename__ = 'errands'
    __table_args__ = (
        sa.UniqueConstraint('snapshot_id', 'host', 'kind', name='uniq_errands_what'),
        sa.Index('errands_host_idx', 'host'),
        TABLE_OPTIONS | {'sqlite_autoincrement': True},
    )

    #: the order in which they are done
    id = sa.Column(COUNTER, primary_key=True)
    snapshot_id = sa.Column(sa.String(36), nullable=False)
    host = sa.Column(NAME, nullable=False)
    kind = sa.Column(sa.String(16), nullable=False)
    detail = sa.Column(LONG_TEXT, nullable=False)
    created_at = sa.Column(sa.Double, nullable=False)
    #: how often it was tried in vain, why the last time, and until when it is left alone
    attempts = sa.Column(sa.Integer, nullable=False, server_default='0')
    error = sa.Column(sa.Text)
    not_before = sa.Column(sa.Double)
    #: who is at it
    claimed_by = sa.Column(NAME)
    claimed_until = sa.Column(sa.Double)


class QuotaTurn(Base):
    """Written by all who are counted by one quota: a cluster of writers knows no other lock."""

    __tablename__ = 'quota_turns'
    __table_args__ = (TABLE_OPTIONS,)

    scope = sa.Column(sa.String(320), primary_key=True)
    turn = sa.Column(sa.BigInteger, nullable=False)
