"""Make calls over grpc.aio. Only this module differs between the asynchronous and the blocking client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from topb._channel import TlsOptions, channel_arguments
from topb._contact import Contact
from topb._deadline import Deadline
from topb._pool_stream import Request, Response
from topb._rpc_errors import NOT_SENT, ConnectionLostError, client_closed, mapped_errors
from topb.errors import ServerUnavailableError
from topb.v1 import model_pb2_grpc, selection_pb2_grpc

if TYPE_CHECKING:
    from topb.v1.model_pb2_grpc import ModelServiceAsyncStub
    from topb.v1.selection_pb2_grpc import SelectionServiceAsyncStub

T = TypeVar("T")

PoolRows = Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]]
POOL_TYPES = (Iterable, AsyncIterable)

# Events are small. A caller that reads them slowly slows the server down.
_MAX_HELD_EVENTS = 64
_SETTLING_SECONDS = 1.0


class AsyncTransport:
    """A channel to one server. It belongs to the event loop of its first call."""

    def __init__(self, address: str, credentials: TlsOptions | grpc.ChannelCredentials | None) -> None:
        self.address = address
        self.contact = Contact()
        self._arguments = channel_arguments(address, credentials)
        self._channel: grpc.aio.Channel | None = None
        self._closed = asyncio.Event()

    @property
    def selections(self) -> SelectionServiceAsyncStub:
        """The methods of SelectionService."""
        return selection_pb2_grpc.SelectionServiceStub(self._open_channel())

    @property
    def models(self) -> ModelServiceAsyncStub:
        """The methods of ModelService."""
        return model_pb2_grpc.ModelServiceStub(self._open_channel())

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    async def close(self) -> None:
        """Close the channel. Running calls and waits raise RequestCancelledError."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    async def wait(self, seconds: float) -> None:
        """Wait before the next attempt.

        Raises:
            RequestCancelledError: If the client is closed meanwhile.
        """
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return
        raise client_closed()

    @contextmanager
    def mapped_errors(self, deadline: Deadline) -> Iterator[None]:
        """Convert a gRPC error raised in the body to the matching TopbError."""
        try:
            with mapped_errors(self.address, deadline.timeout):
                yield
        except asyncio.CancelledError:
            # grpc.aio raises CancelledError for a closed channel, as asyncio does for a cancelled task.
            task = asyncio.current_task()
            if self.closed and not (task is not None and task.cancelling()):
                raise client_closed() from None
            raise

    async def events(self, call: Any, deadline: Deadline) -> AsyncGenerator[Any, None]:
        """Yield the events of a call, and cancel the call when the generator is closed.

        Raises:
            ConnectionLostError: If the server went away.
            TopbError: If the call failed otherwise.
        """
        final_status = _FinalStatus(call)
        try:
            with self.mapped_errors(deadline):
                try:
                    async for event in call:
                        self.contact.made = True
                        yield event
                except grpc.aio.AioRpcError as error:
                    actual = await final_status.error_instead_of(error)
                    if actual is not None:
                        raise actual from None
        except ServerUnavailableError as error:
            raise ConnectionLostError(error) from error
        finally:
            call.cancel()

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._arguments.open_async()
        return self._channel


async def rows_of(pool: PoolRows) -> AsyncGenerator[object, None]:
    """Yield the rows of a pool. Closing this generator leaves the caller's iterable open."""
    if isinstance(pool, AsyncIterable):
        async for row in pool:
            yield row
    else:
        for row in pool:
            yield row
            # Let other tasks run and the server's events arrive.
            await asyncio.sleep(0)


class AsyncStreamCall:
    """A bidirectional call. The caller sends requests and reads events independently of each other."""

    def __init__(self, transport: AsyncTransport, deadline: Deadline) -> None:
        # Holds at most one window of chunks: no more are ever unacknowledged.
        self._requests: asyncio.Queue[Request | None] = asyncio.Queue()
        self._events: asyncio.Queue[Response | BaseException | None] = asyncio.Queue(_MAX_HELD_EVENTS)
        # Not call.write(), which never returns if the call is cancelled before its metadata is sent.
        self._call = transport.selections.SelectBatchFromStream(
            _until_none(self._requests), timeout=deadline.left
        )
        self._reader = asyncio.create_task(self._read(transport.events(self._call, deadline)))

    @property
    def has_event(self) -> bool:
        """Whether `next_event` would return or raise without waiting."""
        return not self._events.empty()

    async def send(self, request: Request) -> None:
        """Send a request. If the call has failed, `next_event` raises the error."""
        self._requests.put_nowait(request)
        await asyncio.sleep(0)

    async def send_no_more(self) -> None:
        """Tell the server that there are no more requests."""
        self._requests.put_nowait(None)

    async def next_event(self) -> Response | None:
        """Return the next event, or None if the server ended the call without an error.

        Raises:
            ConnectionLostError: If the server went away.
            TopbError: If the call failed otherwise.
        """
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    async def abandon(self) -> None:
        """Cancel the call if it is still running, and wait for its tasks to finish."""
        self._call.cancel()
        await self.send_no_more()
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self, events: AsyncGenerator[Response, None]) -> None:
        end: BaseException | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    await self._events.put(event)
        except Exception as error:
            end = error
        await self._events.put(end)


async def _until_none(requests: asyncio.Queue[Request | None]) -> AsyncIterator[Request]:
    while (request := await requests.get()) is not None:
        yield request


class _FinalStatus:
    """The status with which the server ended a call.

    If a request cannot be sent because the call has ended, grpc.aio reports a status of its own instead,
    before or after the actual one arrives.
    """

    def __init__(self, call: Any) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def error_instead_of(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | None:
        """Return the error with the server's status, or None if the server ended the call without an error.

        If the status does not arrive, return the error that was seen.
        """
        if (seen.code(), seen.details()) != NOT_SENT:
            return seen
        try:
            await asyncio.wait_for(self._known.wait(), _SETTLING_SECONDS)
        except TimeoutError:
            return seen
        return self._error

    def _note(self, call: Any) -> None:
        code, details = _at_once(call.code()), _at_once(call.details())
        if (code, details) == NOT_SENT:
            return
        if code is not grpc.StatusCode.OK:
            self._error = grpc.aio.AioRpcError(
                code, _at_once(call.initial_metadata()), _at_once(call.trailing_metadata()), details
            )
        self._known.set()


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine of a finished call, which never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the status of a finished call is not available")
