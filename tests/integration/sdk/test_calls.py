"""Calls over gRPC, by a client of either kind."""

from __future__ import annotations

import logging
import math
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import topb
from support.scripted_server import (
    ScriptedServer,
    StreamServer,
    abort,
    error_details,
    server_info_message,
    stall,
    whole_answer,
)
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse


def test_select_batch_sends_every_argument_and_returns_the_result(server, new_client):
    requests = []

    def serve(request, _context):
        requests.append(request)
        return whole_answer(Response, pick_count=5)

    server.select_batch = serve
    spec = {
        "budget": 5,
        "strategy": "random",
        "model": "m",
        "seed": 2**64 - 1,
        "strategy_options": {"k": "v"},
    }
    pool = topb.Pool(Path("/pools/a.parquet"), id_column="key")
    exclude = topb.ExcludeFile("/pools/labelled.parquet", column="name")
    with new_client(server.address) as client:
        result = client.select_batch(pool, **spec, exclude=exclude, request_id="round-3", detached=True)
        client.select_batch("file:///pools/b", 1, exclude=["a", 7])
        client.select_batch("/p", 1, exclude=result, include_labelled=True)
        client.select_batch("/p", 1, exclude={"a": bytes(16), 7: b""})
    full, bare, after, known = requests
    assert after.spec.exclude == selection_pb2.Exclusion(ids=result.ids)
    assert after.spec.include_labelled
    assert not known.spec.include_labelled
    assert known.spec.exclude == selection_pb2.Exclusion(ids=["a", "7"], digests=[bytes(16), b""])
    assert full == selection_pb2.SelectBatchRequest(
        spec={**spec, "exclude": {"uri": "/pools/labelled.parquet", "column": "name"}},
        pool={"uri": "/pools/a.parquet", "id_column": "key"},
        request_id="round-3",
        detached=True,
    )
    assert bare.request_id
    assert bare == selection_pb2.SelectBatchRequest(
        spec={"budget": 1, "strategy": "aalu", "exclude": {"ids": ["a", "7"]}},
        pool={"uri": "file:///pools/b"},
        request_id=bare.request_id,
    )
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 6))


def test_the_timeout_of_a_call_overrides_that_of_the_client(server, new_client):
    server.select_batch = server.select_batch_from_stream = stall
    server.get_server_info = server_info_message()
    with new_client(server.address, timeout=60) as client:
        for pool in ("/p", [("a", b"x")]):
            with pytest.raises(topb.DeadlineExceededError, match=r"0\.2 s") as caught:
                client.select_batch(pool, 1, timeout=0.2)
            assert caught.value.reason == "DEADLINE_EXCEEDED"
        client.server_info()
        client.server_info(timeout=10)
        client.server_info(timeout=math.inf)
    of_client, of_call, endless = server.timeouts[2:]
    assert (round(of_client, -1), round(of_call, -1)) == (60, 10)
    assert endless is None or endless > 1e6


def test_a_call_on_a_closed_client_is_refused(server, new_client):
    with new_client(server.address) as client:
        client.close()
        with pytest.raises(topb.InvalidRequestError) as caught:
            client.server_info()
    assert caught.value.reason == "CLIENT_CLOSED"


def test_score_images_returns_one_outcome_per_image(server, new_client):
    requests = []

    def serve(request, _context):
        requests.append(request)
        skipped = selection_pb2.ImageScores.Skipped(reason="IMAGE_CORRUPT")
        return selection_pb2.ScoreImagesResponse(results=[{"skipped": skipped}] * len(request.images))

    server.score_images = serve
    with new_client(server.address) as client:
        scores = client.score_images([b"a", bytearray(b"b")], model="m", include_features=True)
        assert len(client.score_images(iter([b"a"]))) == 1
    assert scores == [topb.SkippedImage("IMAGE_CORRUPT", "")] * 2
    assert requests[0] == selection_pb2.ScoreImagesRequest(
        model="m", images=[b"a", b"b"], include_features=True
    )


def test_images_too_large_for_one_message_exceed_a_limit(server, new_client):
    server.score_images = selection_pb2.ScoreImagesResponse()
    with new_client(server.address) as client, pytest.raises(topb.LimitExceededError):
        client.score_images([bytes(65 * 2**20)])


def test_models_are_listed_over_pages_and_found_by_id(server, new_client):
    asked = []

    def list_models(request, _context):
        first = int(request.page_token or 0)
        page = model_pb2.ListModelsResponse(next_page_token=str(first + 2) if first < 4 else "")
        for number in range(first, min(first + 2, 5)):
            page.models.add().bundle.model_id = str(number)
        return page

    def get_model(request, _context):
        asked.append(request.model)
        return model_pb2.GetModelResponse()

    server.list_models, server.get_model = list_models, get_model
    with new_client(server.address) as client:
        assert [model.id for model in client.list_models(timeout=5)] == ["0", "1", "2", "3", "4"]
        client.get_model()
        client.get_model("abc")
    assert asked == ["", "abc"]


def test_wait_until_ready_waits_for_a_server_that_starts_later(server, new_client):
    server.stop()
    later = []

    def start():
        later.append(ScriptedServer(server.port))
        later[0].get_server_info = server_info_message()

    starter = threading.Thread(target=start)
    with new_client(server.address) as client:
        with pytest.raises(topb.ServerUnavailableError):
            client.server_info()
        starter.start()
        assert client.wait_until_ready(10).version == "0.1.0"
    starter.join()
    later[0].stop()


def test_wait_until_ready_raises_after_the_timeout(new_client):
    with new_client("127.0.0.1:1") as client, pytest.raises(topb.ServerUnavailableError) as caught:
        client.wait_until_ready(0.3)
    assert caught.value.reason == "SERVER_NOT_READY"


def test_an_error_of_the_server_has_its_class_reason_and_metadata(server, new_client):
    def fail(_request, context):
        details = error_details("SOME_REASON", {"uri": "/p"})
        abort(context, grpc.StatusCode.FAILED_PRECONDITION, "not now", details)

    server.get_model = server.select_batch = server.select_batch_from_stream = fail
    with new_client(server.address) as client:
        for call in (
            client.get_model,
            lambda: client.select_batch("/p", 1),
            lambda: client.select_batch([("a", b"a")], 1),
        ):
            with pytest.raises(topb.PreconditionError, match="not now") as caught:
                call()
            assert (caught.value.reason, caught.value.metadata) == ("SOME_REASON", {"uri": "/p"})


@pytest.fixture
def tls_server(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=scorer.test", "-addext", "subjectAltName=DNS:scorer.test"]
    make += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl, which makes the certificate, is not installed")

    pair = (key.read_bytes(), certificate.read_bytes())
    server = ScriptedServer(credentials=grpc.ssl_server_credentials([pair]))
    server.get_server_info = server_info_message()
    yield server.address, certificate
    server.stop()


def test_a_trusted_server_answers_over_tls_and_an_untrusted_one_is_refused(tls_server, new_client):
    address, certificate = tls_server
    trusting = topb.TlsOptions(ca_file=certificate, server_name="scorer.test")
    with new_client(address, credentials=trusting) as client:
        assert client.server_info().version == "0.1.0"
    untrusting = new_client(address, credentials=topb.TlsOptions())
    with untrusting as client, pytest.raises(topb.ServerUnavailableError, match=address):
        client.server_info()


def test_threads_can_share_a_client(server):
    server.select_batch = whole_answer(Response)
    server.select_batch_from_stream = lambda requests, context: StreamServer(pick_count=2)(requests, context)
    pools = ["/p", [("a", b"x")]] * 4
    with topb.Client(server.address) as client, ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda pool: client.select_batch(pool, 3), pools)
        assert [len(result.picks) for result in results] == [3, 2] * 4


def test_closing_a_client_cancels_the_calls_of_other_threads(server):
    server.select_batch = stall
    client = topb.Client(server.address)
    with ThreadPoolExecutor(1) as threads:
        selecting = threads.submit(client.select_batch, "/p", 1)
        assert server.called.wait(5)
        client.close()
        with pytest.raises(topb.RequestCancelledError):
            selecting.result(5)


def test_closing_a_client_ends_its_wait_before_a_retry(server):
    def fail(_request, context):
        abort(context, grpc.StatusCode.UNAVAILABLE, "", error_details("SERVER_DRAINING", retry_delay=60))

    def close(_record):
        client.close()
        return True

    server.select_batch = fail
    client = topb.Client(server.address)
    log = logging.getLogger("topb.retry")
    # The retry is logged just before the wait.
    log.addFilter(close)
    try:
        with pytest.raises(topb.RequestCancelledError):
            client.select_batch("/p", 1)
    finally:
        log.removeFilter(close)
