"""Run selections to completion, and reconnect as often as necessary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from topb._async.connection import AsyncConnection
from topb._async.transport import AsyncStreamCall, PoolRows, rows_of
from topb._collecting import ProgressCallback, ResultCollector
from topb._deadline import Deadline
from topb._pool_stream import PoolStream, Response
from topb._retry import Retries
from topb._rpc_errors import ConnectionLostError
from topb.errors import ProtocolError
from topb.results import SelectionResult
from topb.v1 import selection_pb2


async def select_served(
    connection: AsyncConnection,
    request: selection_pb2.SelectBatchRequest,
    progress: ProgressCallback | None,
    deadline: Deadline,
) -> SelectionResult:
    """Select from a pool that the server reads. An exception from `progress` cancels the call."""
    collector = ResultCollector(progress, pool=request.pool.uri, request_id=request.request_id)
    retries = Retries(connection.retry, deadline, connection.contact)
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
        await connection.wait(retries.delay_after(error, reached=collector.rows_read))


async def start_served(
    connection: AsyncConnection, request: selection_pb2.SelectBatchRequest, deadline: Deadline
) -> str:
    """Start a detached selection and return its id.

    Raises:
        ProtocolError: If the server does not return the id of the selection.
    """
    retries = Retries(connection.retry, deadline, connection.contact)
    while True:
        call = connection.selections.SelectBatch(request, timeout=deadline.left)
        try:
            async with aclosing(connection.events(call, deadline)) as events:
                async for event in events:
                    if event.WhichOneof("event") == "started":
                        return str(event.started.selection)
            raise ProtocolError(
                "the server did not return the id of the new selection", reason="RESULT_INCOMPLETE"
            )
        except ConnectionLostError as lost:
            error = lost.error
        await connection.wait(retries.delay_after(error))


async def stream_pool(
    connection: AsyncConnection, stream: PoolStream, pool: PoolRows, deadline: Deadline
) -> SelectionResult:
    """Run a streamed selection to completion.

    If anything fails, including `pool` and the progress callback, the call is cancelled, nothing is left
    running in the background, and the exception propagates unchanged.

    Args:
        connection: The connection to the server.
        stream: A new stream.
        pool: The rows. They are taken one at a time, when there is room for the next.
        deadline: The deadline of the whole selection.
    """
    retries = Retries(connection.retry, deadline, connection.contact)
    async with aclosing(rows_of(pool)) as rows:
        if stream.declares_sizes:
            stream.declare(await _first_row(rows))
        while True:
            try:
                return await _converse(connection, stream, rows, deadline)
            except ConnectionLostError as lost:
                error = lost.error
            if error.retry_delay == 0 and connection.retry is not None and not stream.has_chunk:
                # Nothing failed: the server gave way to others, because the pool was slow. Come back with
                # something to score.
                while not stream.has_chunk:
                    await _add_row(stream, rows)
            else:
                await connection.wait(retries.delay_after(error, reached=stream.reached))


async def _converse(
    connection: AsyncConnection, stream: PoolStream, rows: AsyncIterator[object], deadline: Deadline
) -> SelectionResult:
    call = AsyncStreamCall(connection, deadline)
    try:
        await call.send(stream.start())
        while not stream.all_sent:
            request = stream.next_request()
            if request is not None:
                await call.send(request)
            elif stream.wants_row:
                await _add_row(stream, rows)
            else:
                stream.receive(await _next_event(call))
            while call.has_event and not stream.all_sent:
                stream.receive(await _next_event(call))
        await call.send_no_more()
        while (event := await call.next_event()) is not None:
            stream.receive(event)
        return stream.result()
    finally:
        await call.abandon()


async def _first_row(rows: AsyncIterator[object]) -> object | None:
    async for row in rows:
        return row
    return None


async def _add_row(stream: PoolStream, rows: AsyncIterator[object]) -> None:
    async for row in rows:
        stream.add(row)
        return
    stream.close()


async def _next_event(call: AsyncStreamCall) -> Response:
    event = await call.next_event()
    if event is None:
        raise ProtocolError(
            "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
        )
    return event
