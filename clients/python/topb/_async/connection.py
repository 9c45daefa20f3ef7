"""A transport with a default timeout and a retry policy."""

from __future__ import annotations

from typing import TypeVar

import grpc

from topb._async.transport import AsyncTransport
from topb._channel import TlsOptions
from topb._deadline import Deadline
from topb._requests import call_timeout
from topb._retry import Retries, RetryPolicy
from topb.errors import InvalidRequestError, ServerUnavailableError

RequestMessage = TypeVar("RequestMessage")
ResponseMessage = TypeVar("ResponseMessage")


class AsyncConnection(AsyncTransport):
    """The connection that a client shares with its selection handles.

    Attributes:
        address: Address of the server.
        retry: Retry policy of calls that are safe to repeat, or None for no retries.
    """

    def __init__(
        self,
        address: str,
        credentials: TlsOptions | grpc.ChannelCredentials | None,
        timeout: float | None,
        retry: RetryPolicy | None,
    ) -> None:
        self._timeout = call_timeout(timeout, None)
        self.retry = retry
        super().__init__(address, credentials)

    def deadline(self, timeout: float | None) -> Deadline:
        """Return the deadline of a call that begins now.

        Raises:
            InvalidRequestError: If the timeout is not a positive number, or the client is closed.
        """
        if self.closed:
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
        """Return the response to a request. A repeatable request is retried according to the policy."""
        retries = Retries(self.retry if repeatable else None, deadline, self.contact)
        while True:
            try:
                with self.mapped_errors(deadline):
                    response = await method(request, timeout=deadline.left, wait_for_ready=wait_for_ready)
            except ServerUnavailableError as error:
                delay = retries.delay_after(error)
            else:
                self.contact.made = True
                return response
            await self.wait(delay)
