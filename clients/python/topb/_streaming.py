"""Sends a pool and takes what comes back, at once: the blocking driver of a `PoolStream`.

The caller's iterable and progress callback run on the caller's own thread, so that what they raise
comes out where the caller stands, and what they hold (a database cursor, say) is used by one thread.
gRPC takes requests on a thread of its own; one more waits for the server's events.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import grpc

from topb._pool_stream import PoolStream, Request, Response
from topb._rpc_errors import mapped_events
from topb.errors import ProtocolError
from topb.results import SelectionResult

# The server's events are small; a caller that is slow to take them slows the server.
_EVENTS_HELD = 64


def stream_pool(
    open_call: Callable[[Iterator[Request]], grpc.Call],
    stream: PoolStream,
    pool: Iterable[object],
    *,
    address: str,
    timeout: float | None,
) -> SelectionResult:
    """Runs one streamed selection to its end.

    Whatever goes wrong, here or in `pool` or in the progress callback, the call is cancelled and the
    exception goes on as it is; no thread stays behind.

    Args:
        open_call: begins the call, given its requests.
        stream: a new one.
        pool: rows, taken one by one and only as far as there is room for them.
        address: of the server, for messages.
        timeout: of the call in seconds, for messages.
    """
    call = _Call(open_call, address, timeout)
    try:
        call.send(stream.start())
        while not stream.accepted:
            stream.receive(call.next_event())
        for row in pool:
            chunk = stream.add(row)
            if chunk is not None:
                _send_when_there_is_room(call, stream, chunk)
            while call.has_event:
                stream.receive(call.next_event())
        last = stream.close_chunk()
        if last is not None:
            _send_when_there_is_room(call, stream, last)
        call.send(stream.finish())
        call.send_no_more()
        for event in call.remaining_events():
            stream.receive(event)
        return stream.result()
    finally:
        call.abandon()


def _send_when_there_is_room(call: _Call, stream: PoolStream, chunk: Request) -> None:
    while not stream.may_send:
        stream.receive(call.next_event())
    stream.sent(chunk)
    call.send(chunk)


class _Call:
    """A bidirectional call as a place to put requests and a place to take events."""

    def __init__(
        self, open_call: Callable[[Iterator[Request]], grpc.Call], address: str, timeout: float | None
    ) -> None:
        # Holds at most a window of chunks: no more are ever unacknowledged.
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._events: queue.Queue[Response | BaseException | None] = queue.Queue(_EVENTS_HELD)
        self._over = False
        self._call = open_call(iter(self._requests.get, None))
        events = mapped_events(cast("Iterable[Response]", self._call), address=address, timeout=timeout)
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
            TopbError: it ended with an error.
        """
        event = self._take()
        if event is None:
            raise ProtocolError(
                "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
            )
        return event

    def remaining_events(self) -> Iterator[Response]:
        """Events up to the end of the stream, each waited for.

        Raises:
            TopbError: it ended with an error.
        """
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
