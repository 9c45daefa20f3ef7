"""Make calls over blocking gRPC. Only this module differs between the asynchronous and the blocking client.

The caller's iterable and progress callback run on the caller's thread: exceptions that they raise reach the
caller directly, and objects that they use, such as a database cursor, stay on one thread. gRPC takes
requests on a thread of its own. One more thread waits for the server's events.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, closing
from typing import Any

import grpc

from topb._channel import TlsOptions, channel_arguments
from topb._contact import Contact
from topb._deadline import Deadline
from topb._pool_stream import Request, Response
from topb._rpc_errors import ConnectionLostError, client_closed, mapped_errors
from topb.errors import ServerUnavailableError
from topb.v1 import model_pb2_grpc, selection_pb2_grpc

PoolRows = Iterable[tuple[Any, ...]]
POOL_TYPES = (Iterable,)

# Events are small. A caller that reads them slowly slows the server down.
_MAX_HELD_EVENTS = 64


class Transport:
    """A channel to one server, safe to share between threads."""

    def __init__(self, address: str, credentials: TlsOptions | grpc.ChannelCredentials | None) -> None:
        self.address = address
        self.contact = Contact()
        self._channel = channel_arguments(address, credentials).open()
        self.selections = selection_pb2_grpc.SelectionServiceStub(self._channel)
        self.models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close the channel. Running calls and waits raise RequestCancelledError."""
        self._closed.set()
        self._channel.close()

    def wait(self, seconds: float) -> None:
        """Wait before the next attempt.

        Raises:
            RequestCancelledError: If the client is closed meanwhile.
        """
        if self._closed.wait(seconds):
            raise client_closed()

    def mapped_errors(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Convert a gRPC error raised in the body to the matching TopbError."""
        return mapped_errors(self.address, deadline.timeout)

    def events(self, call: Any, deadline: Deadline) -> Generator[Any, None, None]:
        """Yield the events of a call, and cancel the call when the generator is closed.

        Raises:
            ConnectionLostError: If the server went away.
            TopbError: If the call failed otherwise.
        """
        try:
            with self.mapped_errors(deadline):
                for event in call:
                    self.contact.made = True
                    yield event
        except ServerUnavailableError as error:
            raise ConnectionLostError(error) from error
        finally:
            call.cancel()


def rows_of(pool: PoolRows) -> Generator[object, None, None]:
    """Yield the rows of a pool. Closing this generator leaves the caller's iterable open."""
    for row in pool:  # noqa: UP028 - `yield from` would close the caller's generator
        yield row


class StreamCall:
    """A bidirectional call. The caller sends requests and reads events independently of each other."""

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        # Holds at most one window of chunks: no more are ever unacknowledged.
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._events: queue.Queue[Response | BaseException | None] = queue.Queue(_MAX_HELD_EVENTS)
        self._ended = False
        self._call = transport.selections.SelectBatchFromStream(
            iter(self._requests.get, None), timeout=deadline.left
        )
        events = transport.events(self._call, deadline)
        self._reader = threading.Thread(target=self._read, args=(events,), name="topb-events", daemon=True)
        self._reader.start()

    @property
    def has_event(self) -> bool:
        """Whether `next_event` would return or raise without waiting."""
        return not self._events.empty()

    def send(self, request: Request) -> None:
        """Send a request. If the call has failed, `next_event` raises the error."""
        self._requests.put(request)

    def send_no_more(self) -> None:
        """Tell the server that there are no more requests."""
        self._requests.put(None)

    def next_event(self) -> Response | None:
        """Return the next event, or None if the server ended the call without an error.

        Raises:
            ConnectionLostError: If the server went away.
            TopbError: If the call failed otherwise.
        """
        event = self._events.get()
        self._ended = not isinstance(event, Response)
        if isinstance(event, BaseException):
            raise event
        return event

    def abandon(self) -> None:
        """Cancel the call if it is still running, and wait for its threads to finish."""
        self._call.cancel()
        self.send_no_more()
        while not self._ended:
            self._ended = not isinstance(self._events.get(), Response)
        self._reader.join()

    def _read(self, events: Generator[Response, None, None]) -> None:
        end: BaseException | None = None
        try:
            with closing(events):
                for event in events:
                    self._events.put(event)
        except BaseException as error:
            end = error
        self._events.put(end)
