"""What the service answers, over the wire, to requests good and bad."""

from __future__ import annotations

import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import topb
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from support.bundles import convolutional_graph, write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from support.servers import RunningServer, running_server
from topb.v1 import model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc

pytestmark = pytest.mark.scorer

Request = selection_pb2.SelectBatchFromStreamRequest
Spec = selection_pb2.SelectionSpec


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def refusal(call: Iterator[object]) -> tuple[grpc.StatusCode, str]:
    """The code and reason with which a call ends."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return code_and_reason(caught.value)


def code_and_reason(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "topb"
    return error.code(), info.reason


@pytest.mark.parametrize(
    ("spec", "code", "reason"),
    [
        (Spec(budget=0), grpc.StatusCode.INVALID_ARGUMENT, "BUDGET_NOT_POSITIVE"),
        (Spec(budget=-3), grpc.StatusCode.INVALID_ARGUMENT, "BUDGET_NOT_POSITIVE"),
        (Spec(budget=10**7), grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_TOO_LARGE"),
        (Spec(budget=1, strategy="best"), grpc.StatusCode.INVALID_ARGUMENT, "STRATEGY_UNKNOWN"),
        (Spec(budget=1, model="0" * 16), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        (Spec(budget=1, model="../models"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        (
            Spec(budget=1, strategy_options={"k": "2"}),
            grpc.StatusCode.INVALID_ARGUMENT,
            "STRATEGY_OPTION_UNKNOWN",
        ),
        (
            Spec(budget=1, exclude=selection_pb2.Exclusion(uri="/etc/passwd")),
            grpc.StatusCode.PERMISSION_DENIED,
            "POOL_NOT_ALLOWED",
        ),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused_on_both_paths(
    spec: Spec, code: grpc.StatusCode, reason: str, data: Path, channel: grpc.Channel
) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    pool = selection_pb2.Pool(uri=str(data / "pool.parquet"))

    assert refusal(stub.SelectBatch(selection_pb2.SelectBatchRequest(spec=spec, pool=pool))) == (code, reason)
    start = Request(start=selection_pb2.StreamStart(spec=spec))
    assert refusal(stub.SelectBatchFromStream(iter([start]))) == (code, reason)


@pytest.mark.parametrize(
    ("pool", "code", "reason"),
    [
        ("/etc", grpc.StatusCode.PERMISSION_DENIED, "POOL_NOT_ALLOWED"),
        ("{data}/../../..", grpc.StatusCode.PERMISSION_DENIED, "POOL_NOT_ALLOWED"),
        ("{data}/gone.parquet", grpc.StatusCode.NOT_FOUND, "POOL_NOT_FOUND"),
        ("s3://bucket/pool", grpc.StatusCode.INVALID_ARGUMENT, "POOL_URI"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "POOL_URI"),
        ("{data}/torn.parquet", grpc.StatusCode.FAILED_PRECONDITION, "POOL_UNREADABLE"),
        ("{data}/nothing", grpc.StatusCode.INVALID_ARGUMENT, "POOL_FORMAT"),
        ("{data}/columns.parquet", grpc.StatusCode.INVALID_ARGUMENT, "POOL_COLUMN_MISSING"),
    ],
)
def test_a_pool_that_cannot_be_read_is_refused(
    pool: str, code: grpc.StatusCode, reason: str, data: Path, channel: grpc.Channel
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (data / "torn.parquet").write_bytes((data / "pool.parquet").read_bytes()[:5000])
    (data / "nothing").mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ["a"], "picture": [b""]}), data / "columns.parquet")
    request = selection_pb2.SelectBatchRequest(
        spec=Spec(budget=1), pool=selection_pb2.Pool(uri=pool.format(data=data))
    )
    stub = selection_pb2_grpc.SelectionServiceStub(channel)

    assert refusal(stub.SelectBatch(request)) == (code, reason)


def encoded_chunk(seq: int, *, ids: tuple[str, ...] = ("a",), crc32: int | None = None) -> Request:
    images = [encode(random_image(i)) for i in range(len(ids))]
    actual = zlib.crc32(b"".join(images))
    return Request(
        chunk=selection_pb2.PoolChunk(
            seq=seq,
            crc32=actual if crc32 is None else crc32,
            ids=ids,
            encoded=selection_pb2.EncodedImages(data=images),
        )
    )


def packed_chunk(data: bytes, *, height: int, width: int, ids: tuple[str, ...] = ("a",)) -> Request:
    packed = selection_pb2.PackedImages(data=data, height=height, width=width)
    return Request(chunk=selection_pb2.PoolChunk(seq=0, crc32=zlib.crc32(data), ids=ids, packed=packed))


START = Request(start=selection_pb2.StreamStart(spec=Spec(budget=2)))


def end(chunks: int) -> Request:
    return Request(end=selection_pb2.StreamEnd(chunks=chunks))


@pytest.mark.parametrize(
    ("requests", "code", "reason"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([encoded_chunk(0)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, START], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, Request()], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, encoded_chunk(1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_OUT_OF_SEQUENCE"),
        (
            [START, encoded_chunk(0), encoded_chunk(0)],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_OUT_OF_SEQUENCE",
        ),
        ([START, encoded_chunk(0, crc32=1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_CHECKSUM"),
        ([START, encoded_chunk(0), end(2)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_CUT_SHORT"),
        ([START, encoded_chunk(0)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_CUT_SHORT"),
        (
            [START, packed_chunk(b"12", height=1, width=1)],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_MALFORMED",
        ),
        ([START, packed_chunk(b"", height=0, width=1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_MALFORMED"),
        (
            [START, packed_chunk(bytes(9 * 2**20), height=1, width=3 * 2**20)],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CHUNK_TOO_LARGE",
        ),
        (
            [START, Request(chunk=selection_pb2.PoolChunk(ids=["a"]))],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_MALFORMED",
        ),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_refused(
    requests: list[Request], code: grpc.StatusCode, reason: str, channel: grpc.Channel
) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)

    assert refusal(stub.SelectBatchFromStream(iter(requests))) == (code, reason)


def test_each_chunk_is_acknowledged_in_order_before_the_summary(channel: grpc.Channel) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    requests = [START, encoded_chunk(0, ids=("a", "b", "c")), encoded_chunk(1, ids=("d",)), end(2)]
    responses = list(stub.SelectBatchFromStream(iter(requests)))
    kinds = [response.WhichOneof("event") for response in responses]

    assert kinds[0] == "accepted"
    assert [r.acknowledged.seq for r in responses if r.WhichOneof("event") == "acknowledged"] == [0, 1]
    assert kinds[-2:] == ["summary", "picks"]


def test_a_chunk_is_acknowledged_though_the_caller_waits_with_the_next(channel: grpc.Channel) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    acknowledged = threading.Event()

    def requests() -> Iterator[Request]:
        yield START
        yield encoded_chunk(0)
        assert acknowledged.wait(30), "chunk 0 was not acknowledged while chunk 1 was held back"
        yield encoded_chunk(1, ids=("z",))
        yield end(2)

    summary = None
    for response in stub.SelectBatchFromStream(requests()):
        if response.WhichOneof("event") == "acknowledged":
            acknowledged.set()
        if response.WhichOneof("event") == "summary":
            summary = response.summary
    assert summary is not None
    assert summary.accounts.scored == 2


def test_an_empty_pool_is_answered_with_no_picks(data: Path, client: topb.Client) -> None:
    empty = write_parquet(data / "empty.parquet", [])
    (data / "empty-folder").mkdir(exist_ok=True)

    for result in (
        client.select_batch(empty, 3),
        client.select_batch(iter([]), 3),
        client.select_batch(data / "empty-folder", 3, format="image-folder"),
    ):
        assert (result.ids, result.fell_short, result.accounts.read) == ((), True, 0)


def test_every_row_is_accounted_for_on_both_paths(data: Path, client: topb.Client) -> None:
    rows = random_pool(40)
    rows += [("corrupt", b"no image"), ("torn", rows[0][1][:60]), ("none", b""), ("img-00003", rows[9][1])]
    pool = write_parquet(data / "mixed.parquet", rows)
    served = client.select_batch(pool, 100, exclude=["img-00001", "img-00002", "unheard-of"])
    streamed = client.select_batch(iter(rows), 100, exclude=["img-00001", "img-00002", "unheard-of"])
    accounts = served.accounts

    assert served.picks == streamed.picks
    assert accounts == streamed.accounts
    assert (accounts.read, accounts.scored, accounts.duplicate, accounts.excluded) == (44, 38, 1, 2)
    assert dict(accounts.skipped) == {"IMAGE_CORRUPT": 1, "IMAGE_EMPTY": 1, "IMAGE_FORMAT_UNKNOWN": 1}
    assert [row.id for row in accounts.skipped_examples] == ["corrupt", "none", "torn"]
    assert served.fell_short
    assert len(set(served.ids)) == len(served.ids) == 38


def test_ids_in_a_parquet_file_are_excluded(data: Path, client: topb.Client) -> None:
    labelled = write_parquet(data / "labelled.parquet", random_pool(100))
    result = client.select_batch(data / "pool.parquet", 300, exclude=topb.ExcludeFile(str(labelled)))

    assert result.accounts.excluded == 100
    assert min(result.ids) == "img-00100"


def test_scoring_a_few_images_tells_what_could_not_be_scored(data: Path, client: topb.Client) -> None:
    picks = {pick.id: pick for pick in client.select_batch(data / "pool.parquet", 300).picks}
    image, broken = client.score_images([encode(random_image(5)), b"no image"], include_features=True)

    assert isinstance(image, topb.ImageScores)
    assert image.score == picks["img-00005"].score
    assert image.entropy == picks["img-00005"].entropy
    assert image.features is not None
    assert image.features.shape == (8,)
    assert isinstance(broken, topb.SkippedImage)
    assert broken.reason == "IMAGE_FORMAT_UNKNOWN"


def test_models_are_listed_in_pages_and_the_newest_is_the_default(tmp_path: Path) -> None:
    written = [
        write_bundle(tmp_path, convolutional_graph(seed=seed), created_seconds=seed).name
        for seed in (3, 1, 2)
    ]
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")
    with running_server(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        first = stub.ListModels(model_pb2.ListModelsRequest(page_size=2), timeout=30)
        second = stub.ListModels(
            model_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token), timeout=30
        )
        default = stub.GetModel(model_pb2.GetModelRequest(), timeout=30).model
        added = write_bundle(tmp_path, convolutional_graph(seed=9), created_seconds=9).name
        found_later = stub.GetModel(model_pb2.GetModelRequest(model=added), timeout=30).model

    listed = [model.bundle.model_id for model in (*first.models, *second.models)]
    assert listed == sorted(written)
    assert second.next_page_token == ""
    assert (default.bundle.model_id, default.is_default) == (written[0], True)
    assert found_later.is_default


def test_health_and_reflection_answer(server: RunningServer, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "topb.v1.SelectionService", "topb.v1.ModelService"):
        response = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"topb.v1.SelectionService", "topb.v1.ModelService", "grpc.health.v1.Health"} <= set(services)


def slow_rows(seconds: float = 30.0) -> Iterator[tuple[str, bytes]]:
    """A pool that trickles in."""
    deadline = time.monotonic() + seconds
    image = encode(random_image(0))
    row = 0
    while time.monotonic() < deadline:
        yield f"row-{row}", image
        row += 1
        time.sleep(0.01)


def test_a_deadline_ends_a_selection_and_frees_its_place(data: Path) -> None:
    options = ("--max-concurrent-selections=1",)
    with (
        running_server(data / "models", data, options=options) as server,
        topb.Client(server.address) as client,
    ):
        with pytest.raises(topb.DeadlineExceededError):
            client.select_batch(slow_rows(), 3, timeout=0.5)
        result = once_free(lambda: client.select_batch(data / "pool.parquet", 3, timeout=30))
    assert len(result.ids) == 3


def once_free(select: Callable[[], topb.SelectionResult]) -> topb.SelectionResult:
    """What `select` gives once the server has room, which it must have within seconds."""
    for _ in range(200):
        try:
            return select()
        except topb.ServerUnavailableError:
            time.sleep(0.05)
    raise AssertionError("the place was not freed")


def test_a_stream_that_finds_the_server_busy_is_told_when_to_try_again(data: Path) -> None:
    options = ("--max-concurrent-selections=1",)
    with (
        running_server(data / "models", data, options=options) as server,
        topb.Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        started = threading.Event()

        def rows() -> Iterator[tuple[str, bytes]]:
            started.set()
            yield from slow_rows(1.0)

        first = threading.Thread(target=lambda: client.select_batch(rows(), 3, timeout=30))
        first.start()
        assert started.wait(10)
        stub = selection_pb2_grpc.SelectionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.SelectBatchFromStream(iter([START])))
        waited_for_its_turn = client.select_batch(data / "pool.parquet", 3, timeout=30)
        first.join()
    assert code_and_reason(caught.value) == (grpc.StatusCode.UNAVAILABLE, "SELECTIONS_BUSY")
    assert retry_seconds(caught.value) == 5
    assert len(waited_for_its_turn.ids) == 3


def retry_seconds(error: grpc.RpcError) -> float:
    """What an error says of when to try again."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()


def test_a_server_that_drains_finishes_what_runs(data: Path) -> None:
    results = []
    with running_server(data / "models", data) as server, topb.Client(server.address) as client:
        started = threading.Event()

        def rows() -> Iterator[tuple[str, bytes]]:
            started.set()
            yield from slow_rows(1.0)

        running = threading.Thread(target=lambda: results.append(client.select_batch(rows(), 3, timeout=30)))
        running.start()
        assert started.wait(10)
        server.process.send_signal(signal.SIGTERM)
        running.join()
        assert server.process.wait(10) == 0
    assert len(results[0].ids) == 3


def test_a_server_whose_grace_ends_says_unavailable_and_when_to_try_again(data: Path) -> None:
    with (
        running_server(data / "models", data, options=("--grace-seconds=0.2",)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):

        def requests() -> Iterator[Request]:
            yield START
            for seq in range(1000):
                if seq == 20:
                    server.process.send_signal(signal.SIGTERM)
                yield encoded_chunk(seq, ids=(f"row-{seq}",))
                time.sleep(0.02)

        stub = selection_pb2_grpc.SelectionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.SelectBatchFromStream(requests()))
        assert server.process.wait(10) == 0
    assert code_and_reason(caught.value) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert retry_seconds(caught.value) == 5


def test_a_taken_address_is_an_error_at_the_start(server: RunningServer, data: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "topb", "serve", "--models", str(data / "models")]
    ended = subprocess.run([*command, "--listen", server.address], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "LISTEN_FAILED" in ended.stderr
    assert "Traceback" not in ended.stderr
