"""Poll a detached selection until it ends, and interpret its final state."""

from __future__ import annotations

from collections.abc import Iterator

from topb import _translate
from topb.errors import ProtocolError, RequestCancelledError, SelectionFailedError
from topb.selections import SelectionState
from topb.v1 import selection_pb2

PICKS_A_PAGE = 5_000

_FIRST_SECONDS, _MOST_SECONDS, _GROWTH = 0.05, 2.0, 1.5


def poll_delays() -> Iterator[float]:
    """Yield the seconds between polls: short at first for short selections, longer for long ones."""
    delay = _FIRST_SECONDS
    while True:
        yield delay
        delay = min(delay * _GROWTH, _MOST_SECONDS)


def has_succeeded(message: selection_pb2.Selection) -> bool:
    """Return whether the selection has a result; False while it has not ended.

    Raises:
        SelectionFailedError: If it failed.
        RequestCancelledError: If it was cancelled.
        ProtocolError: If the server or this version of the client does not know its state.
    """
    match _translate.selection(message).state:
        case SelectionState.FAILED:
            raise SelectionFailedError(
                f"selection {message.id} failed: {message.error_message}",
                reason=message.error_reason,
                metadata={"selection": message.id},
            )
        case SelectionState.CANCELLED:
            raise RequestCancelledError(
                f"selection {message.id} was cancelled",
                reason="SELECTION_CANCELLED",
                metadata={"selection": message.id},
            )
        case SelectionState.UNSPECIFIED:
            raise ProtocolError(
                f"selection {message.id} is in state {message.state}, which the server or this client does "
                "not know; upgrade topb",
                reason="STATE_UNKNOWN",
            )
        case state:
            return state is SelectionState.SUCCEEDED
