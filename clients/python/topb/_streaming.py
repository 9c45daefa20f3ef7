"""Runs selections to their end over as many connections as it takes: the blocking drivers.

The caller's iterable and progress callback run on the caller's own thread, so that what they raise
comes out where the caller stands, and what they hold (a database cursor, say) is used by one thread.
gRPC takes requests on a thread of its own; one more waits for the server's events.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

from topb._collecting import ProgressCallback, ResultCollector
from topb._connection import Connection
from topb._deadline import Deadline
from topb._pool_stream import PoolStream, Request, Response
from topb._rpc_errors import ConnectionLostError
from topb.errors import ProtocolError
from topb.results import SelectionResult
from topb.retry import Retries
from topb.v1 import selection_pb2

# The server's events are small; a caller that is slow to take them slows the server.
_EVENTS_HELD = 64


def select_served(
    connection: Connection,
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
            for event in connection.events(call, deadline):
                collector.receive(event)
            return collector.result()
        except ConnectionLostError as lost:
            error = lost.error
        finally:
            # Of no effect on a call that ended; ends one that the progress callback broke off.
            call.cancel()
        connection.wait(retries.delay_after(error, reached=collector.rows_read))


def start_served(
    connection: Connection, request: selection_pb2.SelectBatchRequest, deadline: Deadline
) -> str:
    """Has a detached selection started, and gives its id.

    Raises:
        ProtocolError: the server did not say which selection it started.
    """
    retries = Retries(connection.retry, deadline)
    while True:
        call = connection.selections.SelectBatch(request, timeout=deadline.left)
        try:
            for event in connection.events(call, deadline):
                if event.WhichOneof("event") == "started":
                    return str(event.started.selection)
            raise ProtocolError("the server did not say what it started", reason="RESULT_INCOMPLETE")
        except ConnectionLostError as lost:
            error = lost.error
        finally:
            call.cancel()
        connection.wait(retries.delay_after(error))


def stream_pool(
    connection: Connection, stream: PoolStream, pool: Iterable[object], deadline: Deadline
) -> SelectionResult:
    """Runs one streamed selection to its end.

    Whatever goes wrong, here or in `pool` or in the progress callback, the call is cancelled and the
    exception goes on as it is; no thread stays behind.

    Args:
        connection: to the server.
        stream: a new one.
        pool: rows, taken one by one and only as far as there is room for them.
        deadline: of the whole selection.
    """
    rows = _rows(pool)
    retries = Retries(connection.retry, deadline)
    while True:
        try:
            return _converse(connection, stream, rows, deadline)
        except ConnectionLostError as lost:
            error = lost.error
        connection.wait(retries.delay_after(error, reached=stream.reached))


def _rows(pool: Iterable[object]) -> Iterator[object]:
    """The rows; neither begun before the first is asked for, nor closed where the caller's own goes on."""
    for row in pool:  # noqa: UP028 - to delegate would close the caller's generator
        yield row


def _converse(
    connection: Connection, stream: PoolStream, rows: Iterator[object], deadline: Deadline
) -> SelectionResult:
    """One connection of a streamed selection.

    Raises:
        ConnectionLostError: it broke; another one may go on.
    """
    call = _Call(connection, deadline)
    try:
        call.send(stream.start())
        while not stream.all_sent:
            request = stream.next_request()
            if request is not None:
                call.send(request)
            elif stream.wants_row:
                _add_row(stream, rows)
            else:
                stream.receive(call.next_event())
            while call.has_event:
                stream.receive(call.next_event())
        call.send_no_more()
        for event in call.remaining_events():
            stream.receive(event)
        return stream.result()
    finally:
        call.abandon()


def _add_row(stream: PoolStream, rows: Iterator[object]) -> None:
    for row in rows:
        stream.add(row)
        return
    stream.close()


class _Call:
    """A bidirectional call as a place to put requests and a place to take events."""

    def __init__(self, connection: Connection, deadline: Deadline) -> None:
        # Holds at most a window of chunks: no more are ever unacknowledged.
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._events: queue.Queue[Response | BaseException | None] = queue.Queue(_EVENTS_HELD)
        self._over = False
        self._call = connection.selections.SelectBatchFromStream(
            iter(self._requests.get, None), timeout=deadline.left
        )
        events = connection.events(self._call, deadline)
        self._reader = threading.Thread(target=self._read, args=(events,), name="topb-events", daemon=True)
        self._reader.start()

    @property
    def has_event(self) -> bool:
        """Whether an event, or the end, can be taken without waiting."""
        return not self._events.empty()

    def send(self, request: Request) -> None:
        self._requests.put(request)

    def send_no_more(self) -> None:
        self._requests.put(None)

    def next_event(self) -> Response:
        """The next event, waited for.

        Raises:
            ProtocolError: the stream ended well, but too early.
            ConnectionLostError: the server went away.
            TopbError: the stream ended with another error.
        """
        event = self._take()
        if event is None:
            raise ProtocolError(
                "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
            )
        return event

    def remaining_events(self) -> Iterator[Response]:
        """Events up to the end of the stream, each waited for; raises as `next_event` does."""
        while (event := self._take()) is not None:
            yield event

    def abandon(self) -> None:
        """Cancels what is still going on, and sees the threads off."""
        self._call.cancel()
        self.send_no_more()
        while not self._over:
            self._over = not isinstance(self._events.get(), Response)
        self._reader.join()

    def _take(self) -> Response | None:
        event = self._events.get()
        if isinstance(event, Response):
            return event
        self._over = True
        if event is not None:
            raise event
        return None

    def _read(self, events: Iterator[Response]) -> None:
        end: BaseException | None = None
        try:
            for event in events:
                self._events.put(event)
        except BaseException as error:
            end = error
        self._events.put(end)
