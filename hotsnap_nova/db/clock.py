# SPDX-License-Identifier: Apache-2.0
"""The time, as the database's server has it: coordinators' own clocks may be far apart."""

import sqlalchemy as sa
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

_EPOCH_DAYS = 2440587.5


class now(functions.FunctionElement):    # noqa: N801  a function of SQL
    """Seconds since 1970."""

    type = sa.Double()
    inherit_cache = True


class moment(functions.FunctionElement):    # noqa: N801  a function of SQL
    """Date and time of day in UTC, to the millisecond at least."""

    type = sa.DateTime()
    inherit_cache = True


# A difference, and not a timestamp of the server's: that would depend on its time zone.
@compiler.compiles(now)
def _now(_element, _compiler, **_options):
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)"


@compiler.compiles(now, 'sqlite')
def _now_of_sqlite(_element, _compiler, **_options):
    return f"((julianday('now') - {_EPOCH_DAYS}) * 86400.0)"


@compiler.compiles(moment)
def _moment(_element, _compiler, **_options):
    return 'UTC_TIMESTAMP(6)'


@compiler.compiles(moment, 'sqlite')
def _moment_of_sqlite(_element, _compiler, **_options):
    # as SQLAlchemy writes it: SQLite compares text
    return "strftime('%Y-%m-%d %H:%M:%f000', julianday('now'))"
