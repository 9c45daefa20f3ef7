"""How a call of grpc.aio really ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from topb._rpc_errors import NOT_SENT

T = TypeVar("T")

_SETTLING_SECONDS = 1.0


class CallEnding:
    """Keeps the status that a call ended with.

    Where a request could not be sent because the call had ended, grpc.aio puts a status of its own in that
    one's place, before it has heard of the end or after.
    """

    def __init__(self, call: Any) -> None:
        """Args: call: of grpc.aio, not yet awaited."""
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def error(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error that stands for the end of a call, of which this one was seen."""
        if (seen.code(), seen.details()) != NOT_SENT:
            return seen
        try:
            await asyncio.wait_for(self._known.wait(), _SETTLING_SECONDS)
        except TimeoutError:
            return seen
        return self._error or seen

    def _note(self, call: Any) -> None:
        code, details = _at_once(call.code()), _at_once(call.details())
        if (code, details) != NOT_SENT:
            self._error = grpc.aio.AioRpcError(
                code, _at_once(call.initial_metadata()), _at_once(call.trailing_metadata()), details
            )
            self._known.set()


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for: a call that is done knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a call that is done does not know its status")
