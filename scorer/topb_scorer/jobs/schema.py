"""Define the catalog's table, and how its columns hold text and states in every database.

The revisions in `migrations/versions/` create this table; a test compares the two.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from topb.selections import SelectionState
from topb_scorer.errors import InvalidRequestError


class _Text(sa.TypeDecorator[str]):
    """Text without NUL characters, which PostgreSQL cannot store."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Return the value, or raise InvalidRequestError."""
        if value is not None and "\0" in value:
            raise InvalidRequestError(
                f"{value!r} contains the character NUL; expected text without it", reason="TEXT_WITH_NUL"
            )
        return value


class _LongText(_Text):
    """Text of any length."""

    impl = sa.Text
    cache_ok = True


class _State(sa.TypeDecorator[SelectionState]):
    """The state of a selection. A state that this version does not know is read as UNSPECIFIED."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: SelectionState | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Return the name of the state."""
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Any) -> SelectionState:  # noqa: ARG002
        """Return the state of a name."""
        try:
            return SelectionState(value or "")
        except ValueError:
            return SelectionState.UNSPECIFIED


METADATA = sa.MetaData()
SELECTIONS = sa.Table(
    "selections",
    METADATA,
    sa.Column("id", _Text(40), primary_key=True),
    sa.Column("request_id", _Text(200), nullable=False, unique=True),
    # Empty if the request is in a file. No valid request is empty.
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("request_digest", _Text(64), nullable=False),
    sa.Column("model", _Text(64), nullable=False),
    sa.Column("strategy", _Text(64), nullable=False),
    sa.Column("budget", sa.BigInteger, nullable=False),
    sa.Column("pool_uri", _LongText, nullable=False),
    sa.Column("detached", sa.Boolean, nullable=False),
    sa.Column("state", _State(16), nullable=False, index=True),
    sa.Column("owner", _Text(64), nullable=False, default=""),
    sa.Column("lease_until", sa.Float(53), nullable=False, default=0.0),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("read", sa.BigInteger, nullable=False, default=0),
    sa.Column("total", sa.BigInteger, nullable=False, default=0),
    sa.Column("elapsed_seconds", sa.Float(53), nullable=False, default=0.0),
    sa.Column("stream_chunks", sa.BigInteger),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("updated", sa.Float(53), nullable=False),
    sa.Column("ended", sa.Float(53)),
    sa.Column("error_code", _Text(32), nullable=False, default=""),
    sa.Column("error_reason", _Text(64), nullable=False, default=""),
    sa.Column("error_message", _LongText, nullable=False, default=""),
)
