"""Interceptors around calls of all four kinds, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from topb_scorer.errors import InvalidRequestError
from topb_scorer.service.errors import errors_as_status
from topb_scorer.service.interceptors import AroundCalls, Context

pytestmark = pytest.mark.scorer

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


class Recorder:
    """Records when calls begin and end, and with which code."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def around(self, name: str) -> Callable[[str, Context], Any]:
        @asynccontextmanager
        async def recorded(method: str, context: Context) -> AsyncIterator[None]:
            self.events.append(f"{name} begins {method}")
            try:
                yield
            except BaseException as error:
                self.events.append(f"{name} sees {type(error).__name__} {context.code()}")
                raise

        return recorded


def call(
    kind: str, behaviour: Any, *around: Any, service: str = "topb.Any", timeout: float = 30.0
) -> list[bytes]:
    """Call a method of that kind on a server with those interceptors, and return its responses."""
    return asyncio.run(_call(kind, behaviour, around, service, timeout))


async def _call(kind: str, behaviour: Any, around: Any, service: str, timeout: float) -> list[bytes]:
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
    server = grpc.aio.server(interceptors=[AroundCalls(function) for function in around])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = getattr(channel, kind)(f"/{service}/Call")
            request = b"request" if kind.startswith("unary") else iter([b"request"])
            answered = stub(request, timeout=timeout)
            if kind.endswith("unary"):
                return [await answered]
            return [response async for response in answered]
    finally:
        # A grace period: the client may have its status before the handler has ended.
        await server.stop(5)


def behaviour_of(kind: str, error: Exception | None = None) -> Any:
    async def one_response(request: Any, context: Context) -> bytes:
        if error is not None:
            raise error
        return b"1"

    async def many_responses(request: Any, context: Context) -> AsyncIterator[bytes]:
        yield b"1"
        if error is not None:
            raise error
        yield b"2"

    return one_response if kind.endswith("unary") else many_responses


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_passes_through_the_interceptors_from_the_outermost_inwards(kind: str) -> None:
    recorder = Recorder()
    responses = call(kind, behaviour_of(kind), recorder.around("outer"), recorder.around("inner"))
    assert responses == [b"1", b"2"][: len(responses)]
    assert recorder.events == ["outer begins /topb.Any/Call", "inner begins /topb.Any/Call"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_becomes_a_status_that_the_outer_interceptor_sees(kind: str) -> None:
    recorder = Recorder()
    behaviour = behaviour_of(kind, InvalidRequestError("no", reason="NO"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call(kind, behaviour, recorder.around("timer"), errors_as_status)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert recorder.events[1] == "timer sees AbortError StatusCode.INVALID_ARGUMENT"


def test_interceptors_do_not_touch_other_services() -> None:
    recorder = Recorder()
    behaviour = behaviour_of("unary_unary")
    assert call("unary_unary", behaviour, recorder.around("timer"), service="grpc.health") == [b"1"]
    assert recorder.events == []


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_cancelled_call_is_closed_and_its_error_is_not_translated(kind: str) -> None:
    closed: list[str] = []
    recorder = Recorder()

    async def one_response(request: Any, context: Context) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("closed")
        return b""

    async def many_responses(request: Any, context: Context) -> AsyncIterator[bytes]:
        yield await one_response(request, context)

    behaviour = one_response if kind == "unary_unary" else many_responses
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call(kind, behaviour, errors_as_status, recorder.around("inner"), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert closed == ["closed"]
    assert recorder.events[1].startswith("inner sees CancelledError")
