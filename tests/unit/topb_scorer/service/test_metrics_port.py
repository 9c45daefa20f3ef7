"""The HTTP server of the metrics, with callers that are slow, silent or many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, Counter

from topb_scorer.service.metrics_port import _MAX_CONNECTIONS, MetricsPort

pytestmark = pytest.mark.scorer

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


def run(client: Callable[[int], Awaitable[None]], *, request_seconds: float = 20.0) -> None:
    registry = CollectorRegistry()
    Counter("rows", "Rows.", registry=registry).inc(7)

    async def served() -> None:
        server = MetricsPort(registry, request_seconds=request_seconds)
        port = await server.start("127.0.0.1", 0)
        try:
            await client(port)
        finally:
            server.close()

    asyncio.run(served())


async def answer(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    content = await reader.read()
    writer.close()
    return content


def test_metrics_are_served() -> None:
    async def client(port: int) -> None:
        content = await answer(port, SCRAPE)
        head, _, body = content.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"rows_total 7.0" in body
        assert b"openmetrics" in await answer(
            port, SCRAPE[:-2] + b"Accept: application/openmetrics-text\r\n\r\n"
        )
        assert (await answer(port, SCRAPE.replace(b"GET", b"POST"))).startswith(b"HTTP/1.1 405")

    run(client)


@pytest.mark.slow
def test_a_silent_connection_takes_no_thread_and_is_closed_in_time() -> None:
    async def client(port: int) -> None:
        await answer(port, SCRAPE)
        before = threading.active_count()
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        assert b"rows_total" in await answer(port, SCRAPE)
        assert threading.active_count() <= before + 1
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()

    run(client, request_seconds=1.0)


def test_silent_connections_over_the_limit_make_room_at_once() -> None:
    async def client(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_MAX_CONNECTIONS + 5)]
        for reader, _ in silent[:5]:
            assert await reader.read() == b""
        assert b"rows_total" in await answer(port, SCRAPE)
        assert await silent[5][0].read() == b""
        assert not silent[-1][0].at_eof()
        for _, writer in silent:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    run(client)


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"\xff\r\n\r\n", b"x" * 100_000, b"GET http://[ HTTP/1.1\r\n\r\n"]
)
def test_a_malformed_request_harms_nobody(request_: bytes) -> None:
    async def client(port: int) -> None:
        with suppress(ConnectionError):
            await asyncio.wait_for(answer(port, request_), 10)
        assert b"rows_total" in await answer(port, SCRAPE)

    run(client, request_seconds=1.0)
