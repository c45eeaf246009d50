# SPDX-License-Identifier: Apache-2.0
"""Steps of migrations, each done where it was not yet.

MariaDB commits each step by itself. Where ``db sync`` ends in the middle, the version is still the
one before, and all steps are asked for again.
"""

import sqlalchemy as sa
from alembic import op


def has_table(name: str) -> bool:
    """Whether there is one now."""
    return sa.inspect(op.get_bind()).has_table(name)


def has_column(table: str, name: str) -> bool:
    """Whether a table is there, and has it."""
    return has_table(table) and name in {
        column['name'] for column in sa.inspect(op.get_bind()).get_columns(table)}


def create_table(name: str, *parts, **options) -> None:
    """As alembic's; one that is there is whole."""
    if not has_table(name):
        op.create_table(name, *parts, **options)


def drop_table(name: str) -> None:
    """As alembic's."""
    if has_table(name):
        op.drop_table(name)


def add_column(table: str, column: sa.Column) -> None:
    """As alembic's."""
    if not has_column(table, column.name):
        op.add_column(table, column)


def create_index(name: str, table: str, columns: list[str]) -> None:
    """As alembic's."""
    if not _has_index(name, table):
        op.create_index(name, table, columns)


def drop_index(name: str, table: str) -> None:
    """As alembic's."""
    if _has_index(name, table):
        op.drop_index(name, table)


def _has_index(name, table):
    return name in {index['name'] for index in sa.inspect(op.get_bind()).get_indexes(table)}
