"""Ids have a limit in pools of every kind, and a result with the longest ids can be delivered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import topb
from support.images import encode, random_image
from support.pools import tar_bytes
from support.raw_selections import chunks_of
from support.rpc import Request, Spec, Stub, end
from support.servers import RunningServer
from topb.v1 import selection_pb2 as pb
from topb_scorer.in_process import select_batch
from topb_scorer.pools.pool import MAX_ID_BYTES

pytestmark = pytest.mark.scorer

LONGEST = "é" * (MAX_ID_BYTES // 2)
TOO_LONG = LONGEST + "a"
IMAGE = encode(random_image(0))


def parquet_pool(folder: Path, ids: Iterable[str]) -> Path:
    path = folder / "pool.parquet"
    ids = list(ids)
    pq.write_table(pa.table({"id": ids, "image": [IMAGE] * len(ids)}), path)
    return path


def csv_pool(folder: Path, ids: Iterable[str]) -> Path:
    (folder / "a.png").write_bytes(IMAGE)
    path = folder / "pool.csv"
    path.write_text("id,path\n" + "".join(f"{id_},a.png\n" for id_ in ids))
    return path


def tar_pool(folder: Path, ids: Iterable[str]) -> Path:
    path = folder / "pool.tar"
    path.write_bytes(tar_bytes([(f"{id_}.png", IMAGE) for id_ in ids]))
    return path


@pytest.mark.parametrize("write", [parquet_pool, csv_pool, tar_pool])
def test_a_row_with_too_long_an_id_is_skipped(write: object, data: Path, tmp_path: Path) -> None:
    assert callable(write)
    (bundle,) = (data / "models").iterdir()
    result = select_batch(write(tmp_path, ["short", LONGEST, TOO_LONG]), 3, bundle=bundle)
    assert sorted(result.ids) == sorted(["short", LONGEST])
    assert result.accounts.skipped == {"ID_TOO_LONG": 1}
    (example,) = result.accounts.skipped_examples
    assert example.id == TOO_LONG[:64] + "…"
    assert f"{MAX_ID_BYTES + 1} bytes" in example.detail


def test_a_streamed_row_with_too_long_an_id_is_skipped_and_the_sdk_refuses_it(
    stub: Stub, client: topb.Client
) -> None:
    rows = [("short", IMAGE), (TOO_LONG, IMAGE)]
    chunks = [Request(chunk=chunk) for chunk in chunks_of(rows, 2)]
    start = Request(start=pb.StreamStart(spec=Spec(budget=2)))
    responses = list(stub.SelectBatchFromStream(iter([start, *chunks, end(1)])))
    (summary,) = [response.summary for response in responses if response.HasField("summary")]
    assert [(skip.reason, skip.count) for skip in summary.accounts.skipped] == [("ID_TOO_LONG", 1)]
    with pytest.raises(topb.LimitExceededError) as caught:
        client.select_batch(rows, 2)
    assert caught.value.reason == "ID_TOO_LONG"
    assert client.server_info().limits.max_id_bytes == MAX_ID_BYTES


def test_pages_of_picks_fit_into_the_messages_of_any_client(
    data: Path, server: RunningServer, client: topb.Client
) -> None:
    """gRPC's default limit is 4 MiB; 6,000 picks with the longest ids take 6 MiB."""
    ids = [f"{row:06}".ljust(MAX_ID_BYTES, "x") for row in range(6000)]
    pool = parquet_pool(data, ids)
    result = client.select_batch(pool, 6000)
    assert sorted(result.ids) == ids
    with grpc.insecure_channel(server.address) as channel:
        stub = Stub(channel)
        listed, token, pages = [], "", 0
        while token or not pages:
            request = pb.ListPicksRequest(selection=result.selection, page_size=10_000, page_token=token)
            page = stub.ListPicks(request, timeout=30)
            listed += [pick.id for pick in page.picks]
            token, pages = page.next_page_token, pages + 1
    assert tuple(listed) == result.ids
    assert pages > 5
