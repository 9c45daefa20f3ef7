"""Run code around every call of topb's own services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any
"""An RpcMethodHandler of grpc.aio. The type stubs of grpc only have the synchronous one."""

_SERVICES = "/topb."


class AroundCalls(grpc.aio.ServerInterceptor):
    """Enters a context manager around each call, whether its response is a message or a stream.

    The first interceptor of a server is the outermost.
    """

    def __init__(self, around: Callable[[str, Context], AbstractAsyncContextManager[None]]) -> None:
        """Create an interceptor.

        Args:
            around: returns a context manager, given the full name of a method and the context of a call.
        """
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler of the same kind that enters the context manager first."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_SERVICES):
            return handler
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        call = getattr(handler, kind)

        async def one_response(request: Any, context: Context) -> Any:
            async with self._around(method, context):
                return await call(request, context)

        async def many_responses(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context), aclosing(call(request, context)) as responses:
                async for response in responses:
                    yield response

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            many_responses if handler.response_streaming else one_response,
            handler.request_deserializer,
            handler.response_serializer,
        )


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"
