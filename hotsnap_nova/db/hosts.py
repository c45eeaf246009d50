# SPDX-License-Identifier: Apache-2.0
"""Which processes of ours there are, and what hosts owe that were away when it was asked of them.

Nothing is decided by a heartbeat: it tells operators, and whom to ask first.
"""

import json

import sqlalchemy as sa
from oslo_db import exception as db_exception

from hotsnap_nova.db import claims, clock, models, records

_NEW_SERVICE = {'version': '', 'rpc_version': ''}


class Hosts(claims.Claims):
    """For any number of threads and processes."""

    # -- heartbeats ----------------------------------------------------------------------------

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
            return tuple(records.Service(**_columns(row)) for row in session.scalars(query))

    @claims.transaction
    def forget_services(self, before: float) -> int:
        """Remove those not heard of since; how many."""
        return self._remove_from(models.Service, models.Service.seen_at < before)

    # -- errands -------------------------------------------------------------------------------

    @claims.transaction
    def add_errand(self, snapshot_id: str, host: str, kind: str, detail: dict) -> None:
        """Have a host do something when it comes back; repeating it is harmless."""
        key = {'snapshot_id': snapshot_id, 'host': host, 'kind': kind}
        try:
            with self._engine.writing() as session:
                session.execute(sa.insert(models.Errand).values(
                    **key, detail=json.dumps(detail), created_at=clock.now()))
        except db_exception.DBDuplicateEntry:
            pass

    @claims.transaction
    def errands(self, host: str | None = None) -> tuple[records.Errand, ...]:
        """What is to be done, in the order in which it was asked for."""
        query = sa.select(models.Errand).order_by(
            models.Errand.created_at, models.Errand.snapshot_id)
        if host is not None:
            query = query.where(models.Errand.host == host)
        with self._engine.reading() as session:
            return tuple(records.Errand(**_columns(row) | {'detail': json.loads(row.detail)})
                         for row in session.scalars(query))

    @claims.transaction
    def end_errand(self, errand: records.Errand) -> None:
        self._remove_from(
            models.Errand, models.Errand.snapshot_id == errand.snapshot_id,
            models.Errand.host == errand.host, models.Errand.kind == errand.kind)

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

    def _remove_from(self, model, *conditions):
        with self._engine.writing() as session:
            return session.execute(
                sa.delete(model).where(*conditions)
                .execution_options(synchronize_session=False)).rowcount


def _columns(row):
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
