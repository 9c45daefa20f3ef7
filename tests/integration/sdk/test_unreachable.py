"""A first call to an address at which there is no server fails at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import topb
from support.servers import free_port

pytestmark = pytest.mark.sdk

CALLS = {
    "select": lambda client: client.select_batch("/pool.parquet", 2),
    "stream": lambda client: client.select_batch([("a", b"image")], 2),
    "submit": lambda client: client.submit("/pool.parquet", 2),
    "selection": lambda client: client.selection("id"),
}


async def _called(address: str, call: Callable[[Any], Any]) -> None:
    async with topb.AsyncClient(address) as client:
        await call(client)


def called(address: str, call: Callable[[Any], Any]) -> None:
    with topb.Client(address) as client:
        call(client)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
def test_a_server_that_was_never_reached_is_tried_once(
    asynchronous: bool, name: str, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"{host}:{free_port()}"
    with caplog.at_level(logging.WARNING, "topb.retry"), pytest.raises(topb.ServerUnavailableError) as caught:
        asyncio.run(_called(address, CALLS[name])) if asynchronous else called(address, CALLS[name])
    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert f"no topb server can be reached at {address}" in str(caught.value)
    assert caplog.records == []
