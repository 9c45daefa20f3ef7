from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from topb.v1 import selection_pb2 as pb
from topb_scorer.service.interceptors import AroundCalls

pytestmark = pytest.mark.scorer


class Details:
    method = "/topb.v1.SelectionService/GetSelection"


@asynccontextmanager
async def nothing(method: str, context: object) -> AsyncIterator[None]:
    yield


def test_the_bytes_of_a_request_are_let_go_when_it_is_parsed() -> None:
    received: Any = None

    async def call(request: pb.GetSelectionRequest, context: object) -> str:
        assert received.take() == b""
        return request.selection

    async def continuation(_: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(call, pb.GetSelectionRequest.FromString)

    async def outer(details: Any) -> Any:
        return await AroundCalls(nothing).intercept_service(continuation, details)

    async def called() -> str:
        nonlocal received
        handler = await AroundCalls(nothing).intercept_service(outer, Details())  # type: ignore[arg-type]
        received = handler.request_deserializer(pb.GetSelectionRequest(selection="s").SerializeToString())
        answer: str = await handler.unary_unary(received, None)
        return answer

    assert asyncio.run(called()) == "s"
