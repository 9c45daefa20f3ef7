"""What only an AsyncClient does."""

from __future__ import annotations

import asyncio

import pytest

import topb
from support.scripted_server import CHUNK, POOL, StreamServer, server_info_message, stall, whole_answer
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

BOTH_POOLS = pytest.mark.parametrize("pool", ["/p", POOL], ids=["served", "streamed"])


def run(server, use):
    """Return what the coroutine function `use` returns for a new client."""

    async def with_client():
        async with topb.AsyncClient(server.address) as client:
            return await use(client)

    return asyncio.run(with_client())


def test_an_async_iterable_is_accepted_as_a_pool(server):
    stream = server.select_batch_from_stream = StreamServer([("committed", 1)], max_chunk_bytes=CHUNK)

    async def pool():
        for row in POOL:
            await asyncio.sleep(0)
            yield row

    assert run(server, lambda client: client.select_batch(pool(), 3)).accounts.read == len(POOL)
    assert stream.rows == POOL


def test_selections_run_concurrently_on_one_event_loop(server):
    server.select_batch_from_stream = lambda requests, context: StreamServer(pick_count=2)(requests, context)
    server.select_batch = whole_answer(selection_pb2.SelectBatchResponse)

    async def select(client):
        pools = (POOL, "/p", iter(POOL))
        return await asyncio.gather(*(client.select_batch(pool, 3) for pool in pools))

    assert [len(result.picks) for result in run(server, select)] == [2, 3, 2]


def test_other_tasks_run_while_an_ordinary_iterable_is_streamed(server):
    server.select_batch_from_stream = StreamServer()
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def select(client):
        beside = asyncio.create_task(others())
        await client.select_batch(((row, b"x") for row in range(500)), 1)
        beside.cancel()

    run(server, select)
    assert turns > 400


async def started(server, client, pool):
    server.select_batch = server.select_batch_from_stream = stall
    selecting = asyncio.create_task(client.select_batch(pool, 1))
    assert await asyncio.to_thread(server.called.wait, 5)
    return selecting


@BOTH_POOLS
def test_cancelling_a_task_cancels_its_call(server, pool):
    async def select(client):
        selecting = await started(server, client, pool)
        selecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await selecting
        assert await asyncio.to_thread(server.ended.wait, 5)

    run(server, select)


@BOTH_POOLS
def test_closing_an_async_client_cancels_its_running_calls(server, pool):
    async def select(client):
        selecting = await started(server, client, pool)
        await client.close()
        with pytest.raises(topb.RequestCancelledError, match="closed"):
            await selecting

    run(server, select)


def test_an_async_client_can_be_created_without_a_running_loop(server):
    server.get_server_info = server_info_message()
    client = topb.AsyncClient(server.address)

    async def ask():
        async with client:
            return await client.wait_until_ready(10)

    assert asyncio.run(ask()).version == "0.1.0"
