"""Answers of the service to valid and invalid requests."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

import topb
from support.bundles import write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from support.rpc import Request, Spec, Stub, code_and_reason, refusal
from support.servers import running_server
from topb.v1 import selection_pb2

pytestmark = pytest.mark.scorer


@pytest.mark.parametrize(
    ("spec", "code", "reason"),
    [
        (Spec(budget=0), StatusCode.INVALID_ARGUMENT, "BUDGET_NOT_POSITIVE"),
        (Spec(budget=10**7), StatusCode.RESOURCE_EXHAUSTED, "BUDGET_TOO_LARGE"),
        (Spec(budget=1, model="../models"), StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        (Spec(budget=1, exclude={"uri": "/etc/passwd"}), StatusCode.PERMISSION_DENIED, "POOL_NOT_ALLOWED"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused_on_both_paths(
    spec: Spec, code: StatusCode, reason: str, data: Path, stub: Stub
) -> None:
    pool = selection_pb2.Pool(uri=str(data / "pool.parquet"))
    start = Request(start=selection_pb2.StreamStart(spec=spec))

    assert refusal(stub.SelectBatch(selection_pb2.SelectBatchRequest(spec=spec, pool=pool))) == (code, reason)
    assert refusal(stub.SelectBatchFromStream(iter([start]))) == (code, reason)


@pytest.mark.parametrize(
    ("pool", "code", "reason"),
    [
        ("/etc", StatusCode.PERMISSION_DENIED, "POOL_NOT_ALLOWED"),
        ("{data}/gone.parquet", StatusCode.NOT_FOUND, "POOL_NOT_FOUND"),
        ("", StatusCode.INVALID_ARGUMENT, "POOL_URI"),
        ("{data}/torn.parquet", StatusCode.FAILED_PRECONDITION, "POOL_UNREADABLE"),
    ],
)
def test_a_pool_that_cannot_be_read_is_refused(
    pool: str, code: StatusCode, reason: str, data: Path, stub: Stub
) -> None:
    (data / "torn.parquet").write_bytes((data / "pool.parquet").read_bytes()[:5000])
    request = selection_pb2.SelectBatchRequest(
        spec=Spec(budget=1), pool=selection_pb2.Pool(uri=pool.format(data=data))
    )

    assert refusal(stub.SelectBatch(request)) == (code, reason)


def test_the_id_of_a_selection_is_no_request_id(data: Path, client: topb.Client, stub: Stub) -> None:
    """Ids are listed to everyone, so anyone could otherwise reach another caller's selection by its id."""
    handle = client.submit(data / "pool.parquet", 2)
    handle.result()
    spec, pool = Spec(budget=1), selection_pb2.Pool(uri=str(data / "pool.parquet"))
    request = selection_pb2.SelectBatchRequest(spec=spec, pool=pool, request_id=handle.id)
    start = Request(start=selection_pb2.StreamStart(spec=spec, request_id=handle.id))
    reserved = (StatusCode.INVALID_ARGUMENT, "REQUEST_ID_RESERVED")

    assert refusal(stub.SelectBatch(request)) == reserved
    assert refusal(stub.SelectBatchFromStream(iter([start]))) == reserved
    for name in (handle.id, handle.request_id):
        message = stub.GetSelection(selection_pb2.GetSelectionRequest(selection=name), timeout=30).selection
        assert (message.id, message.request_id) == (handle.id, handle.request_id)
        cancelled = stub.CancelSelection(selection_pb2.CancelSelectionRequest(selection=name), timeout=30)
        assert cancelled.selection == message
        assert len(stub.ListPicks(selection_pb2.ListPicksRequest(selection=name), timeout=30).picks) == 2


def test_a_generated_request_id_repeats_its_request(data: Path, stub: Stub) -> None:
    pool = selection_pb2.Pool(uri=str(data / "pool.parquet"))
    request = selection_pb2.SelectBatchRequest(spec=Spec(budget=1), pool=pool)
    ids = set()
    for _ in range(2):
        started, *_ = list(stub.SelectBatch(request, timeout=60))
        asked = selection_pb2.GetSelectionRequest(selection=started.started.selection)
        request.request_id = stub.GetSelection(asked, timeout=30).selection.request_id
        ids |= {asked.selection, request.request_id}
    assert len(ids) == 2


def test_text_with_nul_is_refused_and_names_neither_sql_nor_paths(data: Path, stub: Stub) -> None:
    pool = selection_pb2.Pool(uri=str(data / "pool.parquet"))
    list_request = selection_pb2.ListSelectionsRequest
    for method, request in (
        (stub.GetSelection, selection_pb2.GetSelectionRequest(selection="a\0")),
        (stub.CancelSelection, selection_pb2.CancelSelectionRequest(selection="a\0")),
        (stub.ListPicks, selection_pb2.ListPicksRequest(selection="a\0")),
        (stub.ListSelections, list_request(model="a\0")),
        (stub.ListSelections, list_request(page_token="a\0")),
        (stub.SelectBatch, selection_pb2.SelectBatchRequest(spec=Spec(budget=1), pool=pool, request_id="\0")),
        (stub.SelectBatch, selection_pb2.SelectBatchRequest(spec=Spec(budget=1), pool={"uri": "/a\0"})),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(method(request) if method == stub.SelectBatch else [method(request)])
        assert code_and_reason(caught.value)[0] in {
            StatusCode.INVALID_ARGUMENT,
            StatusCode.PERMISSION_DENIED,
            StatusCode.NOT_FOUND,
        }, caught.value
        assert "SELECT" not in caught.value.details()


def test_an_empty_pool_is_answered_with_no_picks(data: Path, client: topb.Client) -> None:
    empty = write_parquet(data / "empty.parquet", [])
    (data / "empty-folder").mkdir(exist_ok=True)

    for result in (
        client.select_batch(empty, 3),
        client.select_batch(iter([]), 3),
        client.select_batch(topb.Pool(data / "empty-folder", format="image-folder"), 3),
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
    assert accounts.excluded_unmatched == 1
    assert dict(accounts.skipped) == {"IMAGE_CORRUPT": 1, "IMAGE_EMPTY": 1, "IMAGE_FORMAT_UNKNOWN": 1}
    assert [row.id for row in accounts.skipped_examples] == ["corrupt", "none", "torn"]
    assert served.fell_short
    assert len(set(served.ids)) == len(served.ids) == 38


def test_ids_in_a_parquet_file_are_excluded(data: Path, client: topb.Client) -> None:
    labelled = write_parquet(data / "labelled.parquet", random_pool(100))
    result = client.select_batch(data / "pool.parquet", 300, exclude=topb.ExcludeFile(str(labelled)))

    assert result.accounts.excluded == 100
    assert min(result.ids) == "img-00100"


def test_a_selection_that_excludes_many_ids_waits_for_a_slot_and_excludes_them(
    data: Path, tmp_path: Path
) -> None:
    options = ("--max-concurrent-selections=1", "--state", str(tmp_path / "state"))
    excluded = [f"img-{number:05d}" for number in range(290)] + [
        f"other-{number}" for number in range(10_000)
    ]
    blocked, done = threading.Event(), threading.Event()

    def rows() -> Iterator[tuple[str, bytes]]:
        yield from random_pool(1)
        blocked.set()
        done.wait()

    with (
        running_server(data / "models", data, options=options) as server,
        topb.Client(server.address, timeout=60) as client,
        ThreadPoolExecutor(1) as background,
    ):
        blocking = background.submit(client.select_batch, rows(), 1)
        blocked.wait(30)
        handle = client.submit(data / "pool.parquet", 300, exclude=excluded)
        assert handle.state() == "pending"
        assert len(list((tmp_path / "state" / "requests").iterdir())) == 1
        done.set()
        blocking.result()
        result = handle.result()
    assert result.accounts.excluded == 290
    assert len(result.ids) == 10


@pytest.mark.parametrize("content", [b"", b"PAR1" + bytes(40) + b"PAR1"], ids=["empty", "corrupt"])
def test_a_selection_with_a_labelled_set_that_cannot_be_read_fails_at_once(
    content: bytes, data: Path, tmp_path: Path
) -> None:
    """The manifest has the checksum of the file as it is, so the bundle is served."""
    bundle = write_bundle(tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (file,) = [file for file in manifest["files"] if file["name"] == "labelled.parquet"]
    file.update(sizeBytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "labelled.parquet").write_bytes(content)
    with running_server(tmp_path, data) as server, topb.Client(server.address, timeout=60) as client:
        handle = client.submit(data / "pool.parquet", 3, strategy="core_set")
        with pytest.raises(topb.SelectionFailedError) as caught:
            handle.result()
    assert caught.value.reason == "BUNDLE_LABELLED"


def test_one_result_that_cannot_be_read_hides_no_other_selection(data: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        running_server(data / "models", data, options=("--state", str(state))) as server,
        topb.Client(server.address, timeout=60) as client,
    ):
        good, torn, gone, forbidden = (
            client.submit(data / "pool.parquet", 2, seed=seed) for seed in range(4)
        )
        for handle in (good, torn, gone, forbidden):
            handle.result()
        (state / "results" / f"{torn.id}.parquet").write_bytes(b"")
        (state / "results" / f"{gone.id}.parquet").unlink()
        (state / "results" / f"{forbidden.id}.parquet").unlink()
        (state / "results" / f"{forbidden.id}.parquet").mkdir()
        listed = {selection.id: selection for selection in client.list_selections()}
        with pytest.raises(topb.ServerError) as caught:
            torn.result()

    assert caught.value.reason == "RESULT_UNREADABLE"
    assert {selection.state for selection in listed.values()} == {"succeeded"}
    assert (listed[good.id].pick_count, listed[good.id].error_reason) == (2, "")
    assert listed[torn.id].error_reason == "RESULT_UNREADABLE"
    assert listed[gone.id].error_reason == "RESULT_NOT_FOUND"
    assert listed[forbidden.id].error_reason in {"STORAGE_FAILED", "RESULT_UNREADABLE"}
    assert listed[torn.id].pick_count is None


def test_a_selection_in_a_state_of_a_newer_version_is_listed_but_not_continued(
    data: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with (
        running_server(data / "models", data, options=("--state", str(state))) as server,
        topb.Client(server.address, timeout=60) as client,
    ):
        known = client.submit(data / "pool.parquet", 2)
        known.result()
        client.select_batch(data / "pool.parquet", 2, request_id="read")
        client.select_batch(iter(random_pool(3)), 2, request_id="sent")
        with closing(sqlite3.connect(state / "selections.sqlite")) as catalog, catalog:
            catalog.execute("UPDATE selections SET state = 'paused' WHERE request_id IN ('read', 'sent')")
        listed = {selection.request_id: selection.state for selection in client.list_selections()}
        for pool, request_id in ((data / "pool.parquet", "read"), (iter(random_pool(3)), "sent")):
            with pytest.raises(topb.PreconditionError) as caught:
                client.select_batch(pool, 2, request_id=request_id)
            assert caught.value.reason == "SELECTION_STATE_UNKNOWN"

    assert listed == {known.request_id: "succeeded", "read": "unspecified", "sent": "unspecified"}


def test_score_images_reports_images_that_cannot_be_scored(data: Path, client: topb.Client) -> None:
    picks = {pick.id: pick for pick in client.select_batch(data / "pool.parquet", 300).picks}
    image, broken = client.score_images([encode(random_image(5)), b"no image"], include_features=True)

    assert isinstance(image, topb.ImageScores)
    assert image.score == picks["img-00005"].score
    assert image.entropy == picks["img-00005"].entropy
    assert image.features is not None
    assert image.features.shape == (8,)
    assert isinstance(broken, topb.SkippedImage)
    assert broken.reason == "IMAGE_FORMAT_UNKNOWN"
