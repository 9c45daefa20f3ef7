"""Run code around every call, and parse its requests."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from topb_scorer.errors import InvalidRequestError, LimitExceededError
from topb_scorer.service.wire import repeated_too_often

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any
"""An RpcMethodHandler of grpc.aio. The type stubs of grpc only have the synchronous one."""

Deserializer = Any
"""The method `FromString` of a message, or None."""


@dataclass(frozen=True)
class RowLimit:
    """How often a repeated field may occur in a request. It is checked before the request is parsed."""

    count: int
    reason: str
    """The reason of the error."""
    what: str
    """What the field has, such as "images"."""
    remedy: str
    """What a caller should do instead."""


class Unparsed:
    """The bytes of a request until they are parsed. gRPC holds this object until the end of the call."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def take(self) -> bytes:
        """Return the bytes, and keep them no longer."""
        content, self._content = self._content, b""
        return content


class AroundCalls(grpc.aio.ServerInterceptor):
    """Enters a context manager around each call, and parses the requests within it.

    gRPC would answer bytes that are no message with UNKNOWN, and log a traceback for each.
    The first interceptor of a server is the outermost.
    """

    def __init__(
        self,
        around: Callable[[str, Context], AbstractAsyncContextManager[None]],
        *,
        services: str = "/topb.",
        limits: Mapping[str, RowLimit] = MappingProxyType({}),
    ) -> None:
        """Create an interceptor.

        Args:
            around: returns a context manager, given the full name of a method and the context of a call.
            services: the beginning of the full names of the methods whose calls are concerned.
            limits: how often repeated fields may occur in a request, by their full names.
        """
        self._around = around
        self._services = services
        self._limits = limits
        self._counts = {field: limit.count for field, limit in limits.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler of the same kind that enters the context manager first."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._services):
            return handler
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        call = getattr(handler, kind)
        parsed = self._parsed_stream if handler.request_streaming else self._parsed

        async def awaited(request: Any, context: Context) -> Any:
            async with self._around(method, context):
                return await call(parsed(request, handler.request_deserializer), context)

        async def yielding(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context):
                responses = call(parsed(request, handler.request_deserializer), context)
                async with aclosing(responses):
                    async for response in responses:
                        yield response

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            yielding if inspect.isasyncgenfunction(call) else awaited,
            Unparsed,
            handler.response_serializer,
        )

    def _parsed(self, request: Unparsed, deserializer: Deserializer) -> Any:
        if deserializer is Unparsed:  # An inner interceptor parses the request.
            return request
        content = request.take()
        if deserializer is None:  # The method takes bytes.
            return content
        try:
            exceeded = repeated_too_often(content, deserializer.__self__.DESCRIPTOR, self._counts)
            if exceeded is not None:
                limit = self._limits[exceeded]
                raise LimitExceededError(
                    f"the request has more than {limit.count} {limit.what}, which is the limit; "
                    f"{limit.remedy}",
                    reason=limit.reason,
                )
            return deserializer(content)
        except DecodeError as error:
            raise InvalidRequestError(
                f"the request has {len(content)} bytes that are no message of this method: {error}; "
                "use a client that is generated from protos/topb/v1",
                reason="REQUEST_MALFORMED",
            ) from None

    async def _parsed_stream(
        self, requests: AsyncIterator[Unparsed], deserializer: Deserializer
    ) -> AsyncIterator[Any]:
        async for request in requests:
            yield self._parsed(request, deserializer)


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"
