"""What only an AsyncClient does, and that otherwise it is like a Client."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time

import pytest

import topb
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

CHUNK = 1000
POOL = [(f"image-{row:02}", bytes([row]) * 200) for row in range(14)]


def members(kind):
    """Public methods and properties by name, with parameters, defaults and annotations."""
    found = {}
    for name, member in inspect.getmembers(kind):
        if name.startswith("_") and name != "__init__":
            continue
        function = member.fget if isinstance(member, property) else member
        signature = inspect.signature(function)
        parameters = [
            (parameter.name, parameter.kind, parameter.default, blocking(parameter.annotation))
            for parameter in signature.parameters.values()
        ]
        found[name] = (type(member), parameters, blocking(signature.return_annotation))
    return found


def blocking(annotation):
    """The annotation as the blocking client has it."""
    for own, theirs in (
        ("AsyncIterator[", "Iterator["),
        ("AsyncSelectionHandle", "SelectionHandle"),
        ("AsyncConnection", "Connection"),
    ):
        annotation = annotation.replace(own, theirs) if isinstance(annotation, str) else annotation
    return annotation


@pytest.mark.parametrize(
    ("asynchronous", "own"),
    [(topb.AsyncClient, topb.Client), (topb.AsyncSelectionHandle, topb.SelectionHandle)],
)
def test_both_kinds_have_one_surface(asynchronous, own):
    assert members(asynchronous) == members(own)
    for name, (kind, _, _) in members(own).items():
        if name not in ("__init__", "list_selections") and not issubclass(kind, property):
            assert inspect.iscoroutinefunction(getattr(asynchronous, name)), name
    assert isinstance(topb.AsyncClient, type)
    assert hasattr(topb.AsyncClient, "__aenter__")
    assert hasattr(topb.AsyncClient, "__aexit__")


def test_a_pool_may_be_asynchronous_too(server, script):
    stream = server.select_batch_from_stream = script.BreakingStreamServer(
        [("committed", 1)], max_chunk_bytes=CHUNK
    )

    async def pool():
        for row in POOL:
            await asyncio.sleep(0)
            yield row

    async def select():
        async with topb.AsyncClient(server.address) as client:
            return await client.select_batch(pool(), 3)

    assert asyncio.run(select()).accounts.read == len(POOL)
    assert stream.rows == POOL


def test_selections_run_beside_each_other_on_one_loop(server, script):
    server.select_batch_from_stream = lambda requests, context: script.StreamServer(
        pick_count=2, max_chunk_bytes=CHUNK
    )(requests, context)
    server.select_batch = lambda _request, _context: script.whole_answer(selection_pb2.SelectBatchResponse)

    async def select():
        async with topb.AsyncClient(server.address) as client:
            return await asyncio.gather(
                client.select_batch(POOL, 2), client.select_batch("/p", 3), client.select_batch(iter(POOL), 2)
            )

    assert [len(result.picks) for result in asyncio.run(select())] == [2, 3, 2]


def test_the_loop_goes_on_while_a_blocking_iterable_is_sent(server, script):
    server.select_batch_from_stream = script.StreamServer()

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


@pytest.mark.parametrize("pool", ["/p", POOL])
def test_a_cancelled_task_cancels_the_call(server, script, pool):
    ended = threading.Event()

    def stall(_request, context):
        context.add_callback(ended.set)
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    server.select_batch = server.select_batch_from_stream = stall

    async def select():
        async with topb.AsyncClient(server.address) as client:
            await asyncio.wait_for(client.select_batch(pool, 1), 0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(select())
    assert ended.wait(5)


def test_a_client_that_is_closed_ends_its_calls(server):
    def stall(_request, context):
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    server.select_batch = stall

    async def select():
        client = topb.AsyncClient(server.address)
        selecting = asyncio.create_task(client.select_batch("/p", 1))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(topb.RequestCancelledError, match="closed"):
            await selecting
        with pytest.raises(topb.InvalidRequestError, match="closed"):
            await client.server_info()

    asyncio.run(select())


def test_a_client_may_be_made_where_no_loop_runs(server, script, server_info_message):
    server.get_server_info = lambda _request, _context: server_info_message
    client = topb.AsyncClient(server.address)

    async def ask():
        async with client:
            return await client.wait_until_ready(10)

    assert asyncio.run(ask()).version == "0.1.0"


class OwnError(Exception):
    pass


def test_what_the_callers_code_raises_comes_out_unchanged_and_cancels(server, script):
    cancelled = threading.Event()

    class Watched(script.StreamServer):
        def __call__(self, requests, context):
            context.add_callback(cancelled.set)
            yield from super().__call__(requests, context)

    server.select_batch_from_stream = Watched(max_chunk_bytes=CHUNK)
    own = OwnError()

    async def pool():
        for row in POOL:
            yield row
        raise own

    async def select():
        async with topb.AsyncClient(server.address) as client:
            await client.select_batch(pool(), 1)

    with pytest.raises(OwnError) as caught:
        asyncio.run(select())
    assert caught.value is own
    assert cancelled.wait(5)
