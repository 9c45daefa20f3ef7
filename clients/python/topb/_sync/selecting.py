# Generated from topb/_async/selecting.py by clients/python/generate_sync.py. Edit that file instead.

"""Run selections to completion, and reconnect as often as necessary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from topb._collecting import ProgressCallback, ResultCollector
from topb._deadline import Deadline
from topb._pool_stream import PoolStream, Response
from topb._retry import Retries
from topb._rpc_errors import ConnectionLostError
from topb._sync.connection import Connection
from topb._sync.transport import PoolRows, StreamCall, rows_of
from topb.errors import ProtocolError
from topb.results import SelectionResult
from topb.v1 import selection_pb2


def select_served(
    connection: Connection,
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
            with closing(connection.events(call, deadline)) as events:
                for event in events:
                    collector.receive(event)
            return collector.result()
        except ConnectionLostError as lost:
            error = lost.error
        connection.wait(retries.delay_after(error, reached=collector.rows_read))


def start_served(
    connection: Connection, request: selection_pb2.SelectBatchRequest, deadline: Deadline
) -> str:
    """Start a detached selection and return its id.

    Raises:
        ProtocolError: If the server does not return the id of the selection.
    """
    retries = Retries(connection.retry, deadline, connection.contact)
    while True:
        call = connection.selections.SelectBatch(request, timeout=deadline.left)
        try:
            with closing(connection.events(call, deadline)) as events:
                for event in events:
                    if event.WhichOneof("event") == "started":
                        return str(event.started.selection)
            raise ProtocolError(
                "the server did not return the id of the new selection", reason="RESULT_INCOMPLETE"
            )
        except ConnectionLostError as lost:
            error = lost.error
        connection.wait(retries.delay_after(error))


def stream_pool(
    connection: Connection, stream: PoolStream, pool: PoolRows, deadline: Deadline
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
    with closing(rows_of(pool)) as rows:
        if stream.declares_sizes:
            stream.declare(_first_row(rows))
        while True:
            try:
                return _converse(connection, stream, rows, deadline)
            except ConnectionLostError as lost:
                error = lost.error
            if error.retry_delay == 0 and connection.retry is not None and not stream.has_chunk:
                # Nothing failed: the server gave way to others, because the pool was slow. Come back with
                # something to score.
                while not stream.has_chunk:
                    _add_row(stream, rows)
            else:
                connection.wait(retries.delay_after(error, reached=stream.reached))


def _converse(
    connection: Connection, stream: PoolStream, rows: Iterator[object], deadline: Deadline
) -> SelectionResult:
    call = StreamCall(connection, deadline)
    try:
        call.send(stream.start())
        while not stream.all_sent:
            request = stream.next_request()
            if request is not None:
                call.send(request)
            elif stream.wants_row:
                _add_row(stream, rows)
            else:
                stream.receive(_next_event(call))
            while call.has_event and not stream.all_sent:
                stream.receive(_next_event(call))
        call.send_no_more()
        while (event := call.next_event()) is not None:
            stream.receive(event)
        return stream.result()
    finally:
        call.abandon()


def _first_row(rows: Iterator[object]) -> object | None:
    for row in rows:
        return row
    return None


def _add_row(stream: PoolStream, rows: Iterator[object]) -> None:
    for row in rows:
        stream.add(row)
        return
    stream.close()


def _next_event(call: StreamCall) -> Response:
    event = call.next_event()
    if event is None:
        raise ProtocolError(
            "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
        )
    return event
