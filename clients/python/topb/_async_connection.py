"""A connection to one server for calls of an event loop: deadlines, retries, errors by their names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from topb._call_ending import CallEnding
from topb._deadline import Deadline
from topb._rpc_errors import ConnectionLostError, mapped_errors
from topb.channel import TlsOptions, channel_arguments
from topb.errors import InvalidRequestError, RequestCancelledError, ServerUnavailableError
from topb.retry import Retries, RetryPolicy
from topb.selection_request import call_timeout
from topb.v1 import model_pb2_grpc, selection_pb2_grpc

if TYPE_CHECKING:
    from topb.v1.model_pb2_grpc import ModelServiceAsyncStub
    from topb.v1.selection_pb2_grpc import SelectionServiceAsyncStub

RequestMessage = TypeVar("RequestMessage")
ResponseMessage = TypeVar("ResponseMessage")


class AsyncConnection:
    """What an asynchronous client and its handles share. It belongs to the event loop of its first call.

    Attributes:
        address: of the server.
        retry: how to go on where the server goes away; None: not at all.
    """

    def __init__(
        self,
        address: str,
        credentials: TlsOptions | grpc.ChannelCredentials | None,
        timeout: float | None,
        retry: RetryPolicy | None,
    ) -> None:
        self.address = address
        self.retry = retry
        self._timeout = call_timeout(timeout, None)
        self._arguments = channel_arguments(address, credentials)
        self._channel: grpc.aio.Channel | None = None
        self._closed = asyncio.Event()

    @property
    def selections(self) -> SelectionServiceAsyncStub:
        """The calls of SelectionService."""
        return selection_pb2_grpc.SelectionServiceStub(self._open_channel())

    @property
    def models(self) -> ModelServiceAsyncStub:
        """The calls of ModelService."""
        return model_pb2_grpc.ModelServiceStub(self._open_channel())

    async def close(self) -> None:
        """Closes the channel; calls under way, or between two tries, end with RequestCancelledError."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    def deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that begins now.

        Raises:
            InvalidRequestError: the timeout is not a positive number, or the client is closed.
        """
        if self._closed.is_set():
            raise InvalidRequestError("the client is closed; open another one", reason="CLIENT_CLOSED")
        return Deadline(call_timeout(timeout, self._timeout))

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestMessage, ResponseMessage],
        request: RequestMessage,
        deadline: Deadline,
        *,
        repeatable: bool = False,
        wait_for_ready: bool | None = None,
    ) -> ResponseMessage:
        """The response to one request, which is made again as the policy says if it is repeatable."""
        retries = Retries(self.retry if repeatable else None, deadline)
        while True:
            try:
                with self.mapped(deadline):
                    return await method(request, timeout=deadline.left, wait_for_ready=wait_for_ready)
            except ServerUnavailableError as error:
                delay = retries.delay_after(error)
            await self.wait(delay)

    async def events(self, call: Any, deadline: Deadline) -> AsyncGenerator[Any, None]:
        """The events of a call, its errors as `mapped_events` has them."""
        ending = CallEnding(call)
        try:
            with self.mapped(deadline):
                try:
                    async for event in call:
                        yield event
                except grpc.aio.AioRpcError as error:
                    raise await ending.error(error) from None
        except ServerUnavailableError as error:
            raise ConnectionLostError(error) from error

    async def wait(self, seconds: float) -> None:
        """Waits before another try.

        Raises:
            RequestCancelledError: the client was closed meanwhile.
        """
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return
        raise RequestCancelledError("the client was closed meanwhile", reason="CANCELLED")

    @contextmanager
    def mapped(self, deadline: Deadline) -> Iterator[None]:
        """Raises the exception that a gRPC error of the body stands for."""
        try:
            with mapped_errors(self.address, deadline.timeout):
                yield
        except asyncio.CancelledError:
            # grpc.aio says of a channel that was closed what asyncio says of a task that was cancelled.
            task = asyncio.current_task()
            if self._closed.is_set() and not (task is not None and task.cancelling()):
                raise RequestCancelledError("the client was closed meanwhile", reason="CANCELLED") from None
            raise

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._arguments.open_async()
        return self._channel
