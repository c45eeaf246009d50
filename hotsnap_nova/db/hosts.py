# SPDX-License-Identifier: Apache-2.0
"""Which processes of ours there are.

Nothing is decided by a heartbeat: it tells operators, and whom to ask first.
"""

import sqlalchemy as sa
from oslo_db import exception as db_exception

from hotsnap_nova.db import claims, clock, models, records

_NEW_SERVICE = {'version': '', 'rpc_version': ''}


class Hosts(claims.Claims):
    """For any number of threads and processes."""

    @claims.transaction
    def heard_of(self, binary: str, host: str, *, version: str, rpc_version: str,
                 started_at: float | None) -> None:
        """Note that this process lives now."""
        self._put_service(binary, host, {
            'version': version, 'rpc_version': rpc_version, 'started_at': started_at,
            'seen_at': clock.now(), 'asked_at': clock.now()})

    @claims.transaction
    def asked(self, binary: str, host: str) -> None:
        """Note that it was asked now and did not answer; one never heard of stays unknown."""
        with self._engine.writing() as session:
            session.execute(
                sa.update(models.Service).where(
                    models.Service.binary == binary, models.Service.host == host)
                .values(asked_at=clock.now()).execution_options(synchronize_session=False))

    @claims.transaction
    def services(self, binary: str | None = None) -> tuple[records.Service, ...]:
        """All that were ever heard of, by binary and host."""
        query = sa.select(models.Service).order_by(models.Service.binary, models.Service.host)
        if binary is not None:
            query = query.where(models.Service.binary == binary)
        with self._engine.reading() as session:
            return tuple(records.Service(**{
                column.key: getattr(row, column.key) for column in row.__table__.columns
            }) for row in session.scalars(query))

    @claims.transaction
    def forget_service(self, binary: str, host: str) -> None:
        """It is no more."""
        with self._engine.writing() as session:
            session.execute(
                sa.delete(models.Service).where(
                    models.Service.binary == binary, models.Service.host == host)
                .execution_options(synchronize_session=False))

    # -- inside --------------------------------------------------------------------------------

    def _put_service(self, binary, host, values):
        with self._engine.writing() as session:
            done = session.execute(
                sa.update(models.Service).where(
                    models.Service.binary == binary, models.Service.host == host)
                .values(**values).execution_options(synchronize_session=False))
            if done.rowcount:
                return
            try:
                session.execute(sa.insert(models.Service).values(
                    **_NEW_SERVICE | values, binary=binary, host=host))
            except db_exception.DBDuplicateEntry as exc:
                raise db_exception.RetryRequest(exc) from exc
