"""Runs selections to their end over as many connections as it takes: the drivers of an event loop.

The caller's iterable and progress callback run on the event loop. An iterable that is slow to give a
row is better asynchronous: until the row is there, nothing else on the loop runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, suppress

from topb._async_connection import AsyncConnection
from topb._collecting import ProgressCallback, ResultCollector
from topb._deadline import Deadline
from topb._pool_stream import PoolStream, Request, Response
from topb._rpc_errors import ConnectionLostError
from topb.errors import ProtocolError, TopbError
from topb.results import SelectionResult
from topb.retry import Retries
from topb.v1 import selection_pb2

# The server's events are small; a caller that is slow to take them slows the server.
_EVENTS_HELD = 64


async def select_served(
    connection: AsyncConnection,
    request: selection_pb2.SelectBatchRequest,
    progress: ProgressCallback | None,
    deadline: Deadline,
) -> SelectionResult:
    """Selects from a pool that the server reads; what the progress callback raises cancels the call."""
    collector = ResultCollector(progress)
    retries = Retries(connection.retry, deadline)
    while True:
        collector.begin()
        call = connection.selections.SelectBatch(request, timeout=deadline.left)
        try:
            async with aclosing(connection.events(call, deadline)) as events:
                async for event in events:
                    collector.receive(event)
            return collector.result()
        except ConnectionLostError as lost:
            error = lost.error
        finally:
            # Of no effect on a call that ended; ends one that the progress callback broke off.
            call.cancel()
        await connection.wait(retries.delay_after(error, reached=collector.rows_read))


async def start_served(
    connection: AsyncConnection, request: selection_pb2.SelectBatchRequest, deadline: Deadline
) -> str:
    """Has a detached selection started, and gives its id.

    Raises:
        ProtocolError: the server did not say which selection it started.
    """
    retries = Retries(connection.retry, deadline)
    while True:
        call = connection.selections.SelectBatch(request, timeout=deadline.left)
        try:
            async with aclosing(connection.events(call, deadline)) as events:
                async for event in events:
                    if event.WhichOneof("event") == "started":
                        return str(event.started.selection)
            raise ProtocolError("the server did not say what it started", reason="RESULT_INCOMPLETE")
        except ConnectionLostError as lost:
            error = lost.error
        finally:
            call.cancel()
        await connection.wait(retries.delay_after(error))


async def stream_pool(
    connection: AsyncConnection,
    stream: PoolStream,
    pool: Iterable[object] | AsyncIterable[object],
    deadline: Deadline,
) -> SelectionResult:
    """Runs one streamed selection to its end.

    Whatever goes wrong, here or in `pool` or in the progress callback, the call is cancelled and the
    exception goes on as it is; no task stays behind.

    Args:
        connection: to the server.
        stream: a new one.
        pool: rows, taken one by one and only as far as there is room for them.
        deadline: of the whole selection.
    """
    retries = Retries(connection.retry, deadline)
    async with aclosing(_rows(pool)) as rows:
        while True:
            try:
                return await _converse(connection, stream, rows, deadline)
            except ConnectionLostError as lost:
                error = lost.error
            await connection.wait(retries.delay_after(error, reached=stream.reached))


async def _rows(pool: Iterable[object] | AsyncIterable[object]) -> AsyncGenerator[object, None]:
    if isinstance(pool, AsyncIterable):
        async for row in pool:
            yield row
    else:
        for row in pool:
            yield row
            # Others on the loop have their turn, and the server's events are taken.
            await asyncio.sleep(0)


async def _converse(
    connection: AsyncConnection, stream: PoolStream, rows: AsyncIterator[object], deadline: Deadline
) -> SelectionResult:
    """One connection of a streamed selection.

    Raises:
        ConnectionLostError: it broke; another one may go on.
    """
    call = _Call(connection, deadline)
    try:
        await call.send(stream.start())
        while not stream.all_sent:
            request = stream.next_request()
            if request is not None:
                await call.send(request)
            elif stream.wants_row:
                await _add_row(stream, rows)
            else:
                stream.receive(await call.next_event())
            while call.has_event:
                stream.receive(await call.next_event())
        await call.send_no_more()
        while (event := await call.next_event_or_end()) is not None:
            stream.receive(event)
        return stream.result()
    finally:
        await call.abandon()


async def _add_row(stream: PoolStream, rows: AsyncIterator[object]) -> None:
    async for row in rows:
        stream.add(row)
        return
    stream.close()


class _Call:
    """A bidirectional call as a place to put requests and a place to take events."""

    def __init__(self, connection: AsyncConnection, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline
        self._events: asyncio.Queue[Response | BaseException | None] = asyncio.Queue(_EVENTS_HELD)
        self._call = connection.selections.SelectBatchFromStream(timeout=deadline.left)
        self._reader = asyncio.create_task(self._read())

    @property
    def has_event(self) -> bool:
        """Whether an event, or the end, can be taken without waiting."""
        return not self._events.empty()

    async def send(self, request: Request) -> None:
        # What is wrong with a call that takes no more requests, its events tell.
        with suppress(TopbError, asyncio.InvalidStateError), self._connection.mapped(self._deadline):
            await self._call.write(request)

    async def send_no_more(self) -> None:
        with suppress(TopbError, asyncio.InvalidStateError), self._connection.mapped(self._deadline):
            await self._call.done_writing()

    async def next_event(self) -> Response:
        """The next event, waited for.

        Raises:
            ProtocolError: the stream ended well, but too early.
            ConnectionLostError: the server went away.
            TopbError: the stream ended with another error.
        """
        event = await self.next_event_or_end()
        if event is None:
            raise ProtocolError(
                "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
            )
        return event

    async def next_event_or_end(self) -> Response | None:
        """The next event, waited for, or None where the stream ended well; raises as `next_event` does."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    async def abandon(self) -> None:
        """Cancels what is still going on, and sees the reader off."""
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        end: BaseException | None = None
        try:
            async with aclosing(self._connection.events(self._call, self._deadline)) as events:
                async for event in events:
                    await self._events.put(event)
        except Exception as error:
            end = error
        await self._events.put(end)
