"""Run transactions in SQLite or PostgreSQL, and retry them while the database restarts."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from topb_scorer.errors import CatalogError, InvalidRequestError, ScorerError, UnavailableError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_SECONDS = 0.5
# The number of the lock is arbitrary. PostgreSQL releases the lock at the end of the transaction.
_LOCK_STATEMENTS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7308613829)"}
# The disk is full, read-only or failing. Retrying within seconds does not help.
_DISK_ERRORS = ("SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")
# A table or a column is missing.
_STATEMENT_ERROR = "SQLITE_ERROR"
# PostgreSQL's errors that may pass: of the connection, a server that a failover made read-only, rollbacks,
# resources, and interventions of operators. Psycopg has several exceptions for them.
_PASSING_STATES = ("08", "25006", "40", "53", "57")


class Transactions:
    """Runs transactions in a database, and retries them while the database does not answer."""

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        """Prepare to connect. The first transaction makes the connection.

        Args:
            url: an SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
            patience_seconds: how long to retry while the database does not answer.

        Raises:
            InvalidRequestError: the URL is malformed, or its database or driver is not supported.
        """
        self.patience_seconds = patience_seconds
        try:
            # The pre-ping replaces connections that went stale while the database restarted.
            self._engine = sa.create_engine(url, pool_pre_ping=True)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise _unusable_url(error) from None
        if self._engine.dialect.name not in _LOCK_STATEMENTS:
            raise _unusable_url(f"{self._engine.dialect.name} is not supported")
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _make_sqlite_durable)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def transact_alone(self, work: Callable[[sa.Connection], T]) -> T:
        """Call `transact` under a lock, so that only one process at a time runs this method."""

        def locked(connection: sa.Connection) -> T:
            connection.exec_driver_sql(_LOCK_STATEMENTS[connection.dialect.name])
            return work(connection)

        return self.transact(locked)

    def transact(self, work: Callable[[sa.Connection], T], *, patience_seconds: float | None = None) -> T:
        """Call `work` in one transaction, and return its result.

        Args:
            work: called with the connection. It must be idempotent, because it is called again if the
                database dies during the commit.
            patience_seconds: how long to retry; None for the default.

        Raises:
            UnavailableError: the database cannot be reached or written to.
            CatalogError: the database refused a statement, because its schema or its contents are damaged.
            IntegrityError: a row violates a constraint.
            ScorerError: a column cannot hold a value.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        deadline = time.monotonic() + patience
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except (StatementError, NoConnectionError) as error:
                cause = getattr(error, "orig", error)
                if isinstance(cause, ScorerError):
                    raise cause from None
                if not _may_pass(error, cause):
                    raise damaged(error) from error
                if time.monotonic() > deadline or _sqlite_error(cause).startswith(_DISK_ERRORS):
                    # The driver's message may name hosts, users and paths, which are not for callers.
                    _log.error("the catalog cannot be reached or written to: %s", cause)
                    raise UnavailableError(
                        "the catalog of selections cannot be reached or written to; check that the database "
                        "runs and its disk is writable; the server's log has the message of the database",
                        reason="CATALOG_UNAVAILABLE",
                    ) from error
                _log.warning("the catalog does not answer; retrying: %s", cause)
                # A server that has become a standby still answers the pre-ping, so connect anew.
                self._engine.dispose()
                time.sleep(min(_RETRY_SECONDS, patience / 4))


def damaged(error: StatementError | NoConnectionError) -> CatalogError:
    """Log that the database refused a statement, and return the error for callers, without SQL."""
    _log.error("the catalog is damaged: %s", error)
    return CatalogError(
        "the catalog of selections is damaged: its database refused a statement; the server's log has the "
        "message of the database: restore the catalog from a backup",
        reason="CATALOG_DAMAGED",
    )


def _unusable_url(fault: object) -> InvalidRequestError:
    # The message does not quote the URL, which may contain a password.
    return InvalidRequestError(
        f"the catalog's URL cannot be used: {fault}; expected sqlite:///… or postgresql+psycopg://…, "
        "the latter with topb[postgresql] installed",
        reason="CATALOG_URL",
    )


def _may_pass(error: StatementError | NoConnectionError, cause: object) -> bool:
    """Return whether the database may accept the statement later."""
    if (getattr(cause, "sqlstate", None) or "").startswith(_PASSING_STATES):
        return True
    unanswered = isinstance(error, OperationalError | InterfaceError | NoConnectionError)
    return unanswered and _sqlite_error(cause) != _STATEMENT_ERROR


def _sqlite_error(cause: object) -> str:
    return cause.sqlite_errorname if isinstance(cause, sqlite3.OperationalError) else ""


def _make_sqlite_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA journal_mode=WAL")
    # In WAL mode only FULL makes a commit survive power loss.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
