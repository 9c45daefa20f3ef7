"""Run code around every call, and parse its requests."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from topb_scorer.errors import InvalidRequestError

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any
"""An RpcMethodHandler of grpc.aio. The type stubs of grpc only have the synchronous one."""

Deserializer = Callable[[bytes], Any]


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
    ) -> None:
        """Create an interceptor.

        Args:
            around: returns a context manager, given the full name of a method and the context of a call.
            services: the beginning of the full names of the methods whose calls are concerned.
        """
        self._around = around
        self._services = services

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
        parsed = _parsed_stream if handler.request_streaming else _parsed

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


class Unparsed:
    """The bytes of a request until they are parsed. gRPC holds this object until the end of the call."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def take(self) -> bytes:
        """Return the bytes, and keep them no longer."""
        content, self._content = self._content, b""
        return content


def _parsed(request: Unparsed, deserializer: Deserializer) -> Any:
    if deserializer is Unparsed:  # An inner interceptor parses the request.
        return request
    content = request.take()
    try:
        return deserializer(content)
    except DecodeError as error:
        raise InvalidRequestError(
            f"the request has {len(content)} bytes that are no message of this method: {error}; "
            "use a client that is generated from protos/topb/v1",
            reason="REQUEST_MALFORMED",
        ) from None


async def _parsed_stream(requests: AsyncIterator[Unparsed], deserializer: Deserializer) -> AsyncIterator[Any]:
    async for request in requests:
        yield _parsed(request, deserializer)


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"
