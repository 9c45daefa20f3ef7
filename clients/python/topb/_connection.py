"""A connection to one server for blocking calls: deadlines, retries, errors by their names."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import grpc

from topb._deadline import Deadline
from topb._rpc_errors import mapped_errors, mapped_events
from topb.channel import TlsOptions, channel_arguments
from topb.errors import InvalidRequestError, RequestCancelledError, ServerUnavailableError
from topb.retry import Retries, RetryPolicy
from topb.selection_request import call_timeout
from topb.v1 import model_pb2_grpc, selection_pb2_grpc

Event = TypeVar("Event")
RequestMessage = TypeVar("RequestMessage")
ResponseMessage = TypeVar("ResponseMessage")


class Connection:
    """What a client and its handles share.

    Attributes:
        address: of the server.
        selections: the calls of SelectionService.
        models: the calls of ModelService.
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
        self._channel = channel_arguments(address, credentials).open()
        self.selections = selection_pb2_grpc.SelectionServiceStub(self._channel)
        self.models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._closed = threading.Event()

    def close(self) -> None:
        """Closes the channel; calls under way, or between two tries, end with RequestCancelledError."""
        self._closed.set()
        self._channel.close()

    def deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that begins now.

        Raises:
            InvalidRequestError: the timeout is not a positive number, or the client is closed.
        """
        if self._closed.is_set():
            raise InvalidRequestError("the client is closed; open another one", reason="CLIENT_CLOSED")
        return Deadline(call_timeout(timeout, self._timeout))

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestMessage, ResponseMessage],
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
                with mapped_errors(self.address, deadline.timeout):
                    return method(request, timeout=deadline.left, wait_for_ready=wait_for_ready)
            except ServerUnavailableError as error:
                delay = retries.delay_after(error)
            self.wait(delay)

    def events(self, call: Any, deadline: Deadline) -> Iterator[Any]:
        """The events of a call, its errors as `mapped_events` has them."""
        responses: Iterable[Any] = call
        return mapped_events(responses, address=self.address, timeout=deadline.timeout)

    def wait(self, seconds: float) -> None:
        """Waits before another try.

        Raises:
            RequestCancelledError: the client was closed meanwhile.
        """
        if self._closed.wait(seconds):
            raise RequestCancelledError("the client was closed meanwhile", reason="CANCELLED")
