"""Tell the ids of selections from the ids of requests.

The server draws the id of a selection, and its caller chooses the id of its request. Both are listed to
everyone, and a selection can be asked for by either. No request id may therefore look like the id of a
selection: each name then has one meaning, and a caller cannot take the name of another one's selection.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid

from topb_scorer.errors import InvalidRequestError

MAX_REQUEST_ID = 200
"""The maximum number of characters in a request id."""

_SELECTION_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")


def new_selection_id() -> str:
    """Return a new id for a selection. Ids sort by the time at which they were drawn."""
    return f"{time.time_ns():016x}-{secrets.token_hex(4)}"


def new_request_id() -> str:
    """Return a new id for a request whose caller gave it none."""
    return str(uuid.uuid4())


def is_selection_id(name: str) -> bool:
    """Return whether a name has the form of a selection's id, whether or not there is such a selection."""
    return _SELECTION_ID.fullmatch(name) is not None


def check_request_id(request_id: str) -> None:
    """Raise InvalidRequestError if a request id is too long or has the form of a selection's id."""
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidRequestError(
            f"the request id has {len(request_id)} characters; expected at most {MAX_REQUEST_ID}",
            reason="REQUEST_ID_TOO_LONG",
        )
    if is_selection_id(request_id):
        raise InvalidRequestError(
            f"request id {request_id!r} has the form of a selection's id; repeat a request under its own "
            "request id, and use another one, such as a UUID, for a new request",
            reason="REQUEST_ID_RESERVED",
            request_id=request_id,
        )
