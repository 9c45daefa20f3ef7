"""Selections and their lives, in SQLite or PostgreSQL: what survives a server, and what servers share.

A selection is PENDING until a server claims it with a lease, RUNNING while the lease is kept alive, and ends
SUCCEEDED, FAILED or CANCELLED. A server that dies lets its lease run out; whoever claims it next goes on with
what is in the score log. Every change is one transaction that names the state it starts from.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from topb.selections import SelectionState
from topb_scorer.durable import stepped
from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.jobs import migrations
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.transactions import Transactions

METADATA = sa.MetaData()
_SELECTIONS = sa.Table(
    "selections",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("request_id", sa.String(200), nullable=False, unique=True),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("request_digest", sa.String(64), nullable=False),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("strategy", sa.String(64), nullable=False),
    sa.Column("budget", sa.BigInteger, nullable=False),
    sa.Column("pool_uri", sa.Text, nullable=False),
    sa.Column("detached", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("lease_until", sa.Float(53), nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("read", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("elapsed_seconds", sa.Float(53), nullable=False),
    sa.Column("stream_chunks", sa.BigInteger),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("updated", sa.Float(53), nullable=False),
    sa.Column("ended", sa.Float(53)),
    sa.Column("error_code", sa.String(32), nullable=False),
    sa.Column("error_reason", sa.String(64), nullable=False),
    sa.Column("error_message", sa.Text, nullable=False),
)
_MAX_REQUEST_ID = 200
_OPEN = (SelectionState.PENDING.value, SelectionState.RUNNING.value)


class SelectionCatalog:
    """The selections of one state, shared by any number of servers."""

    def __init__(self, url: str, *, patience_seconds: float = 30.0) -> None:
        """Connect to the database, and create or upgrade the catalog's schema.

        Args:
            url: SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
            patience_seconds: how long to keep trying while the database does not answer.

        Raises:
            InvalidRequestError: the URL cannot be used.
            NewerVersionError: a newer version of topb has upgraded the catalog.
            UnavailableError: the database cannot be reached or written to.
        """
        self._transactions = Transactions(url, patience_seconds=patience_seconds)
        self._transact = self._transactions.transact
        try:
            self._transactions.transact_alone(migrations.upgrade)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes its connections."""
        self._transactions.close()

    @stepped
    def create(self, new: NewSelection) -> SelectionRecord:
        """The selection of that request id, made by this call or before.

        Raises:
            InvalidRequestError: the request id is of another request, or too long.
        """
        if len(new.request_id) > _MAX_REQUEST_ID:
            raise InvalidRequestError(
                f"request id of {len(new.request_id)} characters; at most {_MAX_REQUEST_ID} are taken",
                reason="REQUEST_ID_TOO_LONG",
            )
        digest = hashlib.sha256(new.request).hexdigest()
        now = time.time()
        id_ = f"{time.time_ns():016x}-{secrets.token_hex(4)}"
        values = {
            "id": id_,
            "request_id": new.request_id or id_,
            "request": new.request,
            "request_digest": digest,
            "model": new.model,
            "strategy": new.strategy,
            "budget": new.budget,
            "pool_uri": new.pool_uri,
            "detached": new.detached,
            "state": SelectionState.PENDING.value,
            "owner": "",
            "lease_until": 0.0,
            "cancel_requested": False,
            "read": 0,
            "total": 0,
            "elapsed_seconds": 0.0,
            "created": now,
            "updated": now,
            "error_code": "",
            "error_reason": "",
            "error_message": "",
        }
        try:
            self._transact(lambda connection: connection.execute(_SELECTIONS.insert().values(values)))
        except IntegrityError:
            # Also what this call itself has written, where the database died before it could say so.
            stands = self.find(new.request_id or id_, new.request)
            if stands is None:
                raise
            return stands
        return self.get(id_)

    def find(self, request_id: str, request: bytes) -> SelectionRecord | None:
        """The selection of that request id, if there is one.

        Raises:
            InvalidRequestError: the request id is of another request.
        """
        if not request_id:
            return None
        found = self._records(sa.select(_SELECTIONS).where(_SELECTIONS.c.request_id == request_id))
        if found and found[0].request_digest != hashlib.sha256(request).hexdigest():
            raise InvalidRequestError(
                f"request id {request_id!r} stands for another request; use a new one",
                reason="REQUEST_ID_REUSED",
                request_id=request_id,
                selection=found[0].id,
            )
        return found[0] if found else None

    def get(self, id_: str) -> SelectionRecord:
        """The selection of that id or request id.

        Raises:
            NotFoundError: there is none.
        """
        where = sa.or_(_SELECTIONS.c.id == id_, _SELECTIONS.c.request_id == id_)
        records = self._records(sa.select(_SELECTIONS).where(where))
        if not records:
            raise NotFoundError(f"there is no selection {id_!r}", reason="SELECTION_NOT_FOUND", selection=id_)
        return records[0]

    def page(
        self, size: int, *, before: str = "", states: Sequence[SelectionState] = (), model: str = ""
    ) -> list[SelectionRecord]:
        """At most `size` selections, the latest first, that were made before the one of id `before`."""
        query = sa.select(_SELECTIONS).order_by(_SELECTIONS.c.id.desc()).limit(size)
        if before:
            query = query.where(_SELECTIONS.c.id < before)
        if states:
            query = query.where(_SELECTIONS.c.state.in_([state.value for state in states]))
        if model:
            query = query.where(_SELECTIONS.c.model == model)
        return self._records(query)

    @stepped
    def claim(self, id_: str, owner: str, lease_seconds: float) -> bool:
        """Takes the selection on, if it is open and no live lease is another's. Whether that was so."""
        now = time.time()
        lapsed_or_own = sa.or_(_SELECTIONS.c.lease_until < now, _SELECTIONS.c.owner == owner)
        free = sa.or_(
            _SELECTIONS.c.state == SelectionState.PENDING.value,
            sa.and_(_SELECTIONS.c.state == SelectionState.RUNNING.value, lapsed_or_own),
        )
        return self._change(
            sa.and_(_SELECTIONS.c.id == id_, free),
            state=SelectionState.RUNNING.value,
            owner=owner,
            lease_until=now + lease_seconds,
        )

    def keep(
        self, id_: str, owner: str, lease_seconds: float, *, read: int, total: int, elapsed_seconds: float
    ) -> bool:
        """Renews the lease and notes how far it came. False: it is no longer this owner's, or is to stop.

        Raises:
            UnavailableError: the database does not answer, and the lease is about to run out.
        """
        return self._change(
            sa.and_(_held(id_, owner), _SELECTIONS.c.cancel_requested.is_(False)),
            patience_seconds=min(self._transactions.patience_seconds, lease_seconds / 2),
            lease_until=time.time() + lease_seconds,
            read=read,
            total=total,
            elapsed_seconds=elapsed_seconds,
        )

    @stepped
    def release(self, id_: str, owner: str) -> bool:
        """Gives it back unfinished: PENDING again."""
        return self._change(_held(id_, owner), state=SelectionState.PENDING.value, owner="", lease_until=0.0)

    def detach(self, id_: str) -> bool:
        """From here on it runs on though its caller goes. Whether it was open still."""
        return self._change(sa.and_(_SELECTIONS.c.id == id_, _SELECTIONS.c.state.in_(_OPEN)), detached=True)

    @stepped
    def complete_stream(self, id_: str, owner: str, chunks: int) -> bool:
        """Notes that its caller has sent the whole pool."""
        return self._change(_held(id_, owner), stream_chunks=chunks)

    @stepped
    def succeed(self, id_: str, owner: str) -> bool:
        """Ends it, its result being stored. False: it was no longer this owner's, and nothing changed."""
        return self._end(_held(id_, owner), SelectionState.SUCCEEDED)

    @stepped
    def fail(self, id_: str, owner: str, *, code: str, reason: str, message: str) -> bool:
        """Ends it with what went wrong. False: it was no longer this owner's, and nothing changed."""
        return self._end(
            _held(id_, owner),
            SelectionState.FAILED,
            error_code=code,
            error_reason=reason,
            error_message=message,
        )

    def cancel(self, id_: str) -> SelectionRecord:
        """Asks whoever runs it to stop; one that nobody runs is CANCELLED at once. Ended ones stay.

        Raises:
            NotFoundError: there is none.
        """
        record = self.get(id_)
        of_this = _SELECTIONS.c.id == record.id
        now = time.time()
        nobodys = sa.or_(
            _SELECTIONS.c.state == SelectionState.PENDING.value,
            sa.and_(_SELECTIONS.c.state == SelectionState.RUNNING.value, _SELECTIONS.c.lease_until < now),
        )
        if not self._end(sa.and_(of_this, nobodys), SelectionState.CANCELLED, cancel_requested=True):
            self._change(sa.and_(of_this, _SELECTIONS.c.state.in_(_OPEN)), cancel_requested=True)
        return self.get(record.id)

    @stepped
    def cancelled(self, id_: str, owner: str) -> bool:
        """Ends it CANCELLED, its owner having stopped."""
        return self._end(_held(id_, owner), SelectionState.CANCELLED)

    def orphans(self) -> list[SelectionRecord]:
        """Selections to take up: detached ones that wait, and those whose server let the lease run out."""
        waiting = sa.and_(
            _SELECTIONS.c.state == SelectionState.PENDING.value, _SELECTIONS.c.detached.is_(True)
        )
        deserted = sa.and_(
            _SELECTIONS.c.state == SelectionState.RUNNING.value, _SELECTIONS.c.lease_until < time.time()
        )
        query = sa.select(_SELECTIONS).where(sa.or_(waiting, deserted)).order_by(_SELECTIONS.c.id)
        return self._records(query)

    def ended_before(self, moment: float, size: int, *, after: str = "") -> list[SelectionRecord]:
        """At most `size` selections that ended before a time, in seconds since the epoch, in order of ids."""
        query = sa.select(_SELECTIONS).where(_SELECTIONS.c.ended < moment, _SELECTIONS.c.id > after)
        return self._records(query.order_by(_SELECTIONS.c.id).limit(size))

    def forget(self, ids: Sequence[str]) -> int:
        """Removes those of these selections that have ended; how many were there."""
        delete = _SELECTIONS.delete().where(_SELECTIONS.c.id.in_(ids), _SELECTIONS.c.state.not_in(_OPEN))
        return self._transact(lambda connection: connection.execute(delete).rowcount)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of these ids that are selections'."""
        query = sa.select(_SELECTIONS.c.id).where(_SELECTIONS.c.id.in_(ids))
        return self._transact(lambda connection: set(connection.execute(query).scalars()))

    def _end(self, where: sa.ColumnElement[bool], state: SelectionState, **values: Any) -> bool:
        return self._change(where, state=state.value, lease_until=0.0, ended=time.time(), **values)

    def _change(
        self, where: sa.ColumnElement[bool], *, patience_seconds: float | None = None, **values: Any
    ) -> bool:
        update = _SELECTIONS.update().where(where).values(updated=time.time(), **values)
        return (
            self._transact(
                lambda connection: connection.execute(update).rowcount, patience_seconds=patience_seconds
            )
            == 1
        )

    def _records(self, query: sa.Select[Any]) -> list[SelectionRecord]:
        return self._transact(lambda connection: [_record(row) for row in connection.execute(query)])


def _held(id_: str, owner: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        _SELECTIONS.c.id == id_,
        _SELECTIONS.c.owner == owner,
        _SELECTIONS.c.state == SelectionState.RUNNING.value,
    )


def _record(row: sa.Row[Any]) -> SelectionRecord:
    values = dict(row._mapping)
    return SelectionRecord(**{**values, "state": SelectionState(values["state"])})
