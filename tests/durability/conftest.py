from __future__ import annotations

import pytest

from support.bundles import write_bundle
from support.crashing_server import crashing_server
from support.images import random_pool, write_parquet
from support.raw_selections import PoolCaller, StreamCaller, chunks_of, pool_request
from support.undisturbed import OPTIONS, SHARD_ROWS, SHARDS, Data
from topb.v1 import selection_pb2 as pb


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("durability")
    write_bundle(folder / "models")
    rows = random_pool(SHARD_ROWS * SHARDS)
    rows[7] = ("corrupt", b"no image")
    rows[40] = ("torn", rows[40][1][:50])
    rows[60] = (rows[3][0], rows[60][1])
    rows[100] = (rows[3][0], rows[100][1])
    write_parquet(folder / "pool.parquet", rows, row_group=SHARD_ROWS)
    spec = pb.SelectionSpec(
        budget=40, strategy="margin", exclude=pb.Exclusion(ids=["img-00001", "img-00099"])
    )
    start = pb.StreamStart(spec=spec, request_id="undisturbed-stream")
    callers = (
        PoolCaller(pool_request(folder / "pool.parquet", "undisturbed", spec=spec)),
        StreamCaller(start, chunks_of(rows, SHARD_ROWS)),
    )
    with crashing_server(folder, folder / "state", options=OPTIONS) as server:
        address = server.ready_address()
        read, streamed = (caller.call(address) for caller in callers)
    assert read.content == streamed.content
    read.check_accounts(len(rows))
    accounts = read.summary.accounts
    assert (accounts.excluded, accounts.duplicate, len(accounts.skipped)) == (2, 2, 2)
    return Data(folder, rows, spec, read)
