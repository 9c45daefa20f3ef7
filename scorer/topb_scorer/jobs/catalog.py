"""Record selections in a catalog, in SQLite or PostgreSQL. It outlives servers, and several can share it.

A selection is PENDING until a server claims it under a lease, RUNNING while the server renews the lease, and
finally SUCCEEDED, FAILED or CANCELLED. If a server dies, its lease expires, and another server can claim the
selection and continue from the score log. Each change is one transaction, and has no effect unless the
selection is in the expected state.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from topb.progress import Progress
from topb.selections import SelectionState
from topb_scorer.durable import stepped
from topb_scorer.errors import InvalidRequestError, NotFoundError, ScorerError
from topb_scorer.jobs import migrations
from topb_scorer.jobs.identifiers import (
    check_request_id,
    is_selection_id,
    new_request_id,
    new_selection_id,
)
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.requests import digest_of
from topb_scorer.jobs.schema import SELECTIONS
from topb_scorer.jobs.transactions import Transactions, damaged

_C = SELECTIONS.c
_RECORDS = sa.select(*(column for column in _C if column is not _C.request))
_PENDING = _C.state == SelectionState.PENDING
_RUNNING = _C.state == SelectionState.RUNNING
_OPEN = sa.or_(_PENDING, _RUNNING)


class SelectionCatalog:
    """The selections of one state directory, shared by any number of servers."""

    def __init__(self, url: str, *, patience_seconds: float = 30.0) -> None:
        """Connect to the database at an SQLAlchemy URL, and create or upgrade the catalog's schema.

        Raises:
            InvalidRequestError: the URL cannot be used.
            NewerVersionError: a newer version of topb has upgraded the catalog.
            UnavailableError: the database cannot be reached or written to.
            CatalogError: the database is not a catalog, or it is damaged.
        """
        self._transactions = Transactions(url, patience_seconds=patience_seconds)
        self._transact = self._transactions.transact
        try:
            self._transactions.transact_alone(migrations.upgrade)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._transactions.close()

    @stepped
    def create(
        self, new: NewSelection, id_: str | None = None, *, request_in_file: bool = False
    ) -> SelectionRecord:
        """Create a selection, or return the existing one with the same request id.

        Args:
            new: the selection.
            id_: the id of the selection if it is created; None for a new one.
            request_in_file: whether the request is stored in a file, so that the catalog need not hold it.

        Raises:
            InvalidRequestError: the request id belongs to a different request, is too long, or has the form
                of a selection's id.
        """
        request_id = new.request_id or new_request_id()
        check_request_id(request_id)
        now = time.time()
        id_ = id_ or new_selection_id()
        values = {
            **dataclasses.asdict(new),
            "id": id_,
            "request": b"" if request_in_file else new.request,
            "request_id": request_id,
            "request_digest": digest_of(new.request),
            "state": SelectionState.PENDING,
            "created": now,
            "updated": now,
        }
        try:
            self._transact(lambda connection: connection.execute(SELECTIONS.insert().values(values)))
        except IntegrityError as error:
            # This call may have created it, if the database died before it confirmed the transaction.
            existing = self.find(request_id, new.request)
            if existing is None:
                raise damaged(error) from error
            return existing
        return self.get(id_)

    def find(self, request_id: str, request: bytes) -> SelectionRecord | None:
        """Return the selection with this request id, or None if there is none.

        Raises:
            InvalidRequestError: the request id belongs to a different request, is too long, or has the form
                of a selection's id.
        """
        if not request_id:
            return None
        check_request_id(request_id)
        found = self._records(_RECORDS.where(_C.request_id == request_id))
        if found and found[0].request_digest != digest_of(request):
            raise InvalidRequestError(
                f"request id {request_id!r} belongs to a different request; use a new request id",
                reason="REQUEST_ID_REUSED",
                request_id=request_id,
                selection=found[0].id,
            )
        return found[0] if found else None

    def get(self, name: str) -> SelectionRecord:
        """Return the selection with this id or request id. The form of the name says which of the two it is.

        Raises:
            NotFoundError: there is no such selection.
        """
        column = _C.id if is_selection_id(name) else _C.request_id
        records = self._records(_RECORDS.where(column == name))
        if not records:
            raise NotFoundError(
                f"there is no selection {name!r}; `topb results prune` may have deleted it",
                reason="SELECTION_NOT_FOUND",
                selection=name,
            )
        return records[0]

    def request(self, id_: str) -> bytes:
        """Return the serialized request of a selection, or b"" if it is stored in a file."""
        query = sa.select(_C.request).where(_C.id == id_)
        request: bytes = self._transact(lambda connection: connection.execute(query).scalar_one())
        return request

    def page(
        self,
        size: int,
        *,
        before: str = "",
        states: Sequence[SelectionState] | None = None,
        model: str = "",
    ) -> list[SelectionRecord]:
        """Return at most `size` selections, the latest first.

        Args:
            size: the maximum number of selections.
            before: the id of a selection; only older ones are returned. Empty for no restriction.
            states: the states of the selections to return; None for all.
            model: the model of the selections to return; empty for all.
        """
        query = _RECORDS.order_by(_C.id.desc()).limit(size)
        if before:
            query = query.where(_C.id < before)
        if states is not None:
            query = query.where(_C.state.in_(states))
        if model:
            query = query.where(_C.model == model)
        return self._records(query)

    @stepped
    def claim(self, id_: str, owner: str, lease_seconds: float) -> bool:
        """Claim an open selection and return True, or return False if another server holds a lease on it."""
        free = sa.or_(_PENDING, _expired(), _held(id_, owner))
        lease_until = time.time() + lease_seconds
        return self._change(
            sa.and_(_C.id == id_, free), state=SelectionState.RUNNING, owner=owner, lease_until=lease_until
        )

    def keep(self, id_: str, owner: str, lease_seconds: float, progress: Progress) -> bool:
        """Renew the lease and record the progress.

        Returns:
            False if the selection no longer belongs to this owner or its cancellation was requested.

        Raises:
            UnavailableError: the database did not answer. Retries end after half of the lease at most.
        """
        return self._change(
            sa.and_(_held(id_, owner), _C.cancel_requested.is_(False)),
            patience_seconds=min(self._transactions.patience_seconds, lease_seconds / 2),
            lease_until=time.time() + lease_seconds,
            read=progress.read,
            total=progress.total,
            elapsed_seconds=progress.elapsed_seconds,
        )

    @stepped
    def release(self, id_: str, owner: str) -> bool:
        """Return a running selection to PENDING. Return False, without effect, if another owner has it."""
        return self._change(_held(id_, owner), state=SelectionState.PENDING, owner="", lease_until=0.0)

    def detach(self, id_: str) -> bool:
        """Let a selection continue without its caller. Return False, without effect, if it has ended."""
        return self._change(sa.and_(_C.id == id_, _OPEN), detached=True)

    @stepped
    def complete_stream(self, id_: str, owner: str, chunks: int) -> bool:
        """Record that the caller has sent the whole pool."""
        return self._change(_held(id_, owner), stream_chunks=chunks)

    @stepped
    def succeed(self, id_: str, owner: str) -> bool:
        """Mark a selection as succeeded. Return False, without effect, if it belongs to another owner."""
        return self._end(_held(id_, owner), SelectionState.SUCCEEDED)

    @stepped
    def fail(self, id_: str, owner: str, *, code: str, reason: str, message: str) -> bool:
        """Mark a selection as failed. Return False, without effect, if it belongs to another owner."""
        # The message may quote names of files, which need not be valid text.
        printable = message.encode(errors="backslashreplace").decode().replace("\0", "\\0")
        error = {"error_code": code, "error_reason": reason, "error_message": printable}
        return self._end(_held(id_, owner), SelectionState.FAILED, **error)

    def cancel(self, name: str) -> SelectionRecord:
        """Cancel the selection with this id or request id.

        If no server runs the selection, it is CANCELLED at once. Otherwise its server is asked to stop it. A
        selection that has ended does not change.

        Raises:
            NotFoundError: there is no such selection.
        """
        record = self.get(name)
        of_this = _C.id == record.id
        unowned = sa.and_(of_this, sa.or_(_PENDING, _expired()))
        if not self._end(unowned, SelectionState.CANCELLED, cancel_requested=True):
            self._change(sa.and_(of_this, _OPEN), cancel_requested=True)
        return self.get(record.id)

    @stepped
    def confirm_cancelled(self, id_: str, owner: str) -> bool:
        """Mark a selection as cancelled after its owner has stopped it."""
        return self._end(_held(id_, owner), SelectionState.CANCELLED)

    def orphans(self, size: int) -> list[SelectionRecord]:
        """Return at most `size` selections for which a server is missing, those that wait longest first.

        They are pending detached ones, and those with expired leases. Streams whose callers have not sent the
        whole pool are left out, unless their cancellation was requested.
        """
        orphaned = sa.or_(sa.and_(_PENDING, _C.detached), _expired())
        complete = sa.or_(_C.pool_uri != "", _C.stream_chunks.is_not(None), _C.cancel_requested)
        query = _RECORDS.where(orphaned, complete)
        return self._records(query.order_by(_C.updated, _C.id).limit(size))

    def abandoned(self, moment: float, size: int) -> list[str]:
        """Return the ids of at most `size` selections that no caller has continued since `moment`.

        They are those that only their callers can continue: pending ones that are not detached, and streams
        whose callers had not sent the whole pool when their server died.

        Args:
            moment: seconds since the epoch.
            size: the maximum number of selections.
        """
        query = sa.select(_C.id).where(_abandoned(moment)).order_by(_C.updated).limit(size)
        return self._transact(lambda connection: list(connection.execute(query).scalars()))

    @stepped
    def expire(self, id_: str, moment: float, error: ScorerError) -> bool:
        """Fail a selection that is `abandoned`. Return False, without effect, if it is not."""
        return self._end(
            sa.and_(_C.id == id_, _abandoned(moment)),
            SelectionState.FAILED,
            error_code=type(error).__name__,
            error_reason=error.reason,
            error_message=str(error),
        )

    def touch(self, ids: Sequence[str]) -> None:
        """Note that these selections have callers. Ignore detached ones and those that are not pending."""
        self._change(sa.and_(_C.id.in_(ids), _PENDING, sa.not_(_C.detached)))

    def ended_before(self, moment: float, size: int, *, after: str = "") -> list[SelectionRecord]:
        """Return at most `size` selections that ended before `moment`, sorted by id.

        Args:
            moment: seconds since the epoch.
            size: the maximum number of selections.
            after: only selections with greater ids are returned.
        """
        query = _RECORDS.where(_C.ended < moment, _C.id > after)
        return self._records(query.order_by(_C.id).limit(size))

    def forget(self, ids: Sequence[str]) -> int:
        """Delete the selections that have ended, and return how many were deleted. Ignore the others."""
        delete = SELECTIONS.delete().where(_C.id.in_(ids), sa.not_(_OPEN))
        return self._transact(lambda connection: connection.execute(delete).rowcount)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return which of `ids` are in the catalog."""
        query = sa.select(_C.id).where(_C.id.in_(ids))
        return self._transact(lambda connection: set(connection.execute(query).scalars()))

    def _end(self, where: sa.ColumnElement[bool], state: SelectionState, **values: Any) -> bool:
        return self._change(where, state=state, lease_until=0.0, ended=time.time(), **values)

    def _change(
        self, where: sa.ColumnElement[bool], *, patience_seconds: float | None = None, **values: Any
    ) -> bool:
        update = SELECTIONS.update().where(where).values(updated=time.time(), **values)

        def changed(connection: sa.Connection) -> bool:
            return connection.execute(update).rowcount == 1

        return self._transact(changed, patience_seconds=patience_seconds)

    def _records(self, query: sa.Select[Any]) -> list[SelectionRecord]:
        def records(connection: sa.Connection) -> list[SelectionRecord]:
            return [SelectionRecord(**row) for row in connection.execute(query).mappings()]

        return self._transact(records)


def _held(id_: str, owner: str) -> sa.ColumnElement[bool]:
    return sa.and_(_C.id == id_, _C.owner == owner, _RUNNING)


def _expired() -> sa.ColumnElement[bool]:
    return sa.and_(_RUNNING, _C.lease_until < time.time())


def _abandoned(moment: float) -> sa.ColumnElement[bool]:
    paused = sa.and_(_PENDING, sa.not_(_C.detached))
    broken = sa.and_(_expired(), _C.pool_uri == "", _C.stream_chunks.is_(None))
    return sa.and_(_C.updated < moment, sa.or_(paused, broken))
