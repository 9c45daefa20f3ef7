"""Vectors at a server: read by it, sent to it, with a model and without one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import topb
from support.bundles import write_bundle
from support.command_line import topb as command
from support.rpc import Request, Stub, end, refusal
from support.servers import RunningServer, running_server
from support.vectors import fixed_lists, ids, random_probabilities, random_vectors, write_vectors
from topb.v1 import selection_pb2 as pb
from topb_scorer.in_process import select_batch

pytestmark = pytest.mark.scorer

ROWS = 400
VECTORS, PROBABILITIES = random_vectors(ROWS), random_probabilities(ROWS)
STRATEGIES = (
    "random",
    "core_set",
    "typiclust",
    "prob_cover",
    "entropy",
    "margin",
    "least_confidence",
    "badge",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `models/`, which is empty, and pools of vectors."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "models").mkdir()
    write_vectors(folder / "full.parquet", VECTORS, PROBABILITIES)
    np.save(folder / "full.npy", VECTORS)
    np.save(folder / "full.probabilities.npy", PROBABILITIES)
    (folder / "full.ids.txt").write_text("\n".join(ids(ROWS)))
    columns = {"key": ids(ROWS), "text": fixed_lists(VECTORS), "p": fixed_lists(PROBABILITIES)}
    pq.write_table(pa.table(columns), folder / "named.parquet")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """Return a server with a model that has no encoder, and the model's bundle."""
    root = tmp_path_factory.mktemp("models")
    bundle = write_bundle(root, encoder=False)
    with running_server(root) as running:
        yield running, bundle


def rows(*, with_probabilities: bool = True, dtype: str = "f4") -> Iterator[tuple[Any, ...]]:
    for id_, vector, probabilities in zip(ids(ROWS), VECTORS.astype(dtype), PROBABILITIES, strict=True):
        yield (id_, vector, probabilities) if with_probabilities else (id_, vector)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_without_a_model_all_ways_give_the_same_picks(strategy: str, client: topb.Client, data: Path) -> None:
    here = select_batch(data / "full.parquet", 20, strategy=strategy)
    named = topb.Pool(
        data / "named.parquet", id_column="key", embedding_column="text", probabilities_column="p"
    )
    for pool in (data / "full.parquet", data / "full.npy", named, rows()):
        there = client.select_batch(pool, 20, strategy=strategy, model="none")
        assert (there.picks, there.accounts, there.model) == (here.picks, here.accounts, "none")


def test_the_record_of_a_selection_without_a_model_says_so(client: topb.Client, data: Path) -> None:
    request_id = "without-a-model"
    arguments: dict[str, Any] = {"strategy": "random", "model": "none", "request_id": request_id}
    result = client.select_batch(data / "full.parquet", 2, **arguments)
    assert client.selection(request_id).describe().model == result.model == "none"
    assert request_id in {selection.request_id for selection in client.list_selections(model="none")}
    assert (
        client.select_batch(data / "full.parquet", 2, strategy="random", model="none", request_id=request_id)
        == result
    )


def test_a_stream_of_vectors_resumes_under_its_request_id(client: topb.Client) -> None:
    def broken() -> Iterator[tuple[Any, ...]]:
        yield from list(rows())[:100]
        raise OSError("the disk is gone")

    arguments: dict[str, Any] = {"strategy": "core_set", "model": "none", "request_id": "resumed"}
    with pytest.raises(OSError, match="the disk is gone"):
        client.select_batch(broken(), 20, **arguments)
    result = client.select_batch(rows(), 20, **arguments)
    assert result.picks == client.select_batch(rows(), 20, strategy="core_set", model="none").picks
    assert client.select_batch(rows(), 20, **arguments) == result
    other = ((id_, vector[:4]) for id_, vector, _ in rows())
    with pytest.raises(topb.InvalidRequestError, match="another vectors") as caught:
        client.select_batch(other, 20, **arguments)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_a_model_without_an_encoder_scores_vectors(
    models: tuple[RunningServer, Path], tmp_path: Path
) -> None:
    server, bundle = models
    path = write_vectors(tmp_path / "v.parquet", VECTORS)
    with topb.Client(server.address, timeout=60) as client:
        for strategy in ("aalu", "entropy", "badge"):
            here = select_batch(path, 20, strategy=strategy, bundle=bundle)
            for dtype in ("f4", "f8"):
                there = client.select_batch(
                    rows(with_probabilities=False, dtype=dtype), 20, strategy=strategy
                )
                assert (there.picks, there.model) == (here.picks, bundle.name)
        with pytest.raises(topb.InvalidRequestError) as caught:
            client.select_batch([("a", np.zeros((4, 4, 3), np.uint8))], 1)
        assert caught.value.reason == "MODEL_WITHOUT_ENCODER"
        with pytest.raises(topb.InvalidRequestError, match="9 numbers") as caught:
            client.select_batch([("a", np.zeros(9, np.float32))], 1)
        assert caught.value.reason == "VECTOR_WIDTH"


def test_rows_that_cannot_be_used_are_skipped(client: topb.Client) -> None:
    good = np.ones(3, np.float32)
    pool = [("a", good), ("b", np.array([1, np.nan, 1])), ("c", np.array([1, 1e300, 1])), ("d", 2 * good)]
    result = client.select_batch(pool, 4, strategy="core_set", model="none")
    assert set(result.ids) == {"a", "d"}
    assert dict(result.accounts.skipped) == {"VECTOR_NOT_FINITE": 2}


def test_an_empty_pool_of_vectors_gives_an_empty_result(client: topb.Client) -> None:
    result = client.select_batch([], 4, strategy="typiclust", model="none")
    assert (len(result), result.accounts.read) == (0, 0)


@pytest.mark.parametrize(
    ("pool", "strategy", "reason"),
    [
        ([("a", b"an image")], "random", "MODEL_NEEDED"),
        ([("a", np.ones(3))], "aalu", "MODEL_NEEDED"),
        ([("a", np.ones(3))], "entropy", "STRATEGY_NOT_SERVED"),
        ([("a", np.ones(3)), ("b", np.ones(4))], "random", "VECTOR_WIDTH"),
        ([("a", np.ones(3)), ("b", b"an image")], "random", "MODEL_WITHOUT_ENCODER"),
        ([("a", np.ones(3, int))], "random", "POOL_ROW_INVALID"),
        ([("a", np.ones(3), [0.5, 0.5])], "random", "POOL_ROW_INVALID"),
        ([("a", np.ones(3_000_000))], "random", "VECTOR_TOO_LARGE"),
    ],
)
def test_a_stream_that_cannot_be_selected_from_without_a_model_is_refused(
    pool: list[Any], strategy: str, reason: str, client: topb.Client
) -> None:
    with pytest.raises(topb.TopbError) as caught:
        client.select_batch(pool, 1, strategy=strategy, model="none")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "vectors",
    [
        {"data": bytes(8), "width": 3},
        {"data": bytes(12), "width": 3, "probabilities": bytes(4), "classes": 2},
        {"data": b"", "width": 0},
    ],
)
def test_a_malformed_chunk_of_vectors_is_refused(vectors: dict[str, Any], stub: Stub) -> None:
    spec = pb.SelectionSpec(budget=1, strategy="random", model="none")
    start = Request(start={"spec": spec, "vectors": {"width": 3}})
    crc32 = zlib.crc32(vectors["data"] + vectors.get("probabilities", b""))
    chunk = Request(chunk={"ids": ["a"], "vectors": vectors, "crc32": crc32})
    refused = refusal(stub.SelectBatchFromStream(iter([start, chunk, end(1)])))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_MALFORMED")


def test_the_command_selects_from_vectors_without_a_model(
    data: Path, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOPB_SERVER", raising=False)
    select = ("select", data / "full.parquet", "-b", 5, "--strategy", "typiclust")
    here, there = command(*select), command(*select, "--server", server.address, "--model", "none")
    # What follows the picks differs in the time and the request id.
    picks = here.printed.split(" in ")[0]
    assert there.printed.startswith(picks)
    named = ("--id-column", "key", "--embedding-column", "text", "--probabilities-column", "p")
    assert command("select", data / "named.parquet", *select[2:], *named).printed.startswith(picks)
    refused = command("select", data / "full.parquet", "-b", 5)
    assert refused.exit_code != 0
    assert "--bundle or --server" in refused.err
