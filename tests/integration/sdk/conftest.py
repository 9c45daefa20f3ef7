from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import topb
from support import scripted_server
from support.scripted_server import ScriptedServer
from support.waiting import once
from topb.v1 import model_pb2, selection_pb2


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@pytest.fixture
def script() -> ModuleType:
    return scripted_server


@pytest.fixture
def model_message() -> model_pb2.Model:
    return scripted_server.model_message()


@pytest.fixture
def server_info_message() -> selection_pb2.GetServerInfoResponse:
    return scripted_server.server_info_message()


class InLoop:
    """An AsyncClient or one of its handles, with the methods of the blocking one."""

    def __init__(self, wrapped: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._wrapped = wrapped
        self._loop = loop

    def __enter__(self) -> InLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        once(self._is_idle)
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        return self._called(value) if inspect.ismethod(value) else value

    def _is_idle(self) -> bool:
        # The tasks of grpc.aio end a little after their call.
        self._loop.run_until_complete(asyncio.sleep(0))
        return not asyncio.all_tasks(self._loop)

    def _called(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            given = method(*arguments, **options)
            if inspect.isasyncgen(given):
                return self._each(given)
            result = self._loop.run_until_complete(given)
            return InLoop(result, self._loop) if isinstance(result, topb.AsyncSelectionHandle) else result

        return call

    def _each(self, values: Any) -> Iterator[Any]:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._loop.run_until_complete(anext(values))


@pytest.fixture(params=["blocking", "asynchronous"])
def new_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Create a client of either kind; its methods block."""
    if request.param == "blocking":
        return topb.Client
    return lambda *arguments, **options: InLoop(
        topb.AsyncClient(*arguments, **options), asyncio.new_event_loop()
    )
