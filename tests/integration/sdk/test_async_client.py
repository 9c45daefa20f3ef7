"""What only an AsyncClient does."""

from __future__ import annotations

import asyncio

import pytest

import topb
from support.scripted_server import (
    StreamServer,
    server_info_message,
    stall,
    whole_answer,
)
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

CHUNK = 1000
POOL = [(f"image-{row:02}", bytes([row]) * 200) for row in range(14)]


async def asynchronous(rows, error=None):
    for row in rows:
        await asyncio.sleep(0)
        yield row
    if error is not None:
        raise error


def test_a_pool_may_be_asynchronous_too(server):
    stream = server.select_batch_from_stream = StreamServer([("committed", 1)], max_chunk_bytes=CHUNK)

    async def select():
        async with topb.AsyncClient(server.address) as client:
            return await client.select_batch(asynchronous(POOL), 3)

    assert asyncio.run(select()).accounts.read == len(POOL)
    assert stream.rows == POOL


def test_what_an_asynchronous_pool_raises_propagates_and_cancels(server):
    server.select_batch_from_stream = StreamServer(max_chunk_bytes=CHUNK)
    own = ZeroDivisionError()

    async def select():
        async with topb.AsyncClient(server.address) as client:
            await client.select_batch(asynchronous(POOL, own), 1)

    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(select())
    assert caught.value is own
    assert server.ended.wait(5)


def test_selections_run_side_by_side_on_one_loop(server):
    server.select_batch_from_stream = lambda requests, context: StreamServer(
        pick_count=2, max_chunk_bytes=CHUNK
    )(requests, context)
    server.select_batch = lambda _request, _context: whole_answer(selection_pb2.SelectBatchResponse)

    async def select():
        async with topb.AsyncClient(server.address) as client:
            return await asyncio.gather(
                client.select_batch(POOL, 2), client.select_batch("/p", 3), client.select_batch(iter(POOL), 2)
            )

    assert [len(result.picks) for result in asyncio.run(select())] == [2, 3, 2]


def test_other_tasks_run_while_an_ordinary_iterable_is_sent(server):
    server.select_batch_from_stream = StreamServer()

    async def select():
        turns = 0

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        async with topb.AsyncClient(server.address) as client:
            await client.select_batch(((row, b"x") for row in range(500)), 1)
        beside.cancel()
        return turns

    assert asyncio.run(select()) > 400


async def started(server, client, pool):
    selecting = asyncio.create_task(client.select_batch(pool, 1))
    assert await asyncio.to_thread(server.called.wait, 5)
    return selecting


@pytest.mark.parametrize("pool", ["/p", POOL], ids=["served", "streamed"])
def test_a_cancelled_task_cancels_the_call(server, pool):
    server.select_batch = server.select_batch_from_stream = stall

    async def select():
        async with topb.AsyncClient(server.address) as client:
            selecting = await started(server, client, pool)
            selecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await selecting

    asyncio.run(select())
    assert server.ended.wait(5)


@pytest.mark.parametrize("pool", ["/p", POOL], ids=["served", "streamed"])
def test_closing_a_client_ends_its_calls(server, pool):
    server.select_batch = server.select_batch_from_stream = stall

    async def select():
        client = topb.AsyncClient(server.address)
        selecting = await started(server, client, pool)
        await client.close()
        with pytest.raises(topb.RequestCancelledError, match="closed"):
            await selecting

    asyncio.run(select())


def test_a_client_may_be_created_where_no_loop_runs(server):
    server.get_server_info = lambda _request, _context: server_info_message()
    client = topb.AsyncClient(server.address)

    async def ask():
        async with client:
            return await client.wait_until_ready(10)

    assert asyncio.run(ask()).version == "0.1.0"
