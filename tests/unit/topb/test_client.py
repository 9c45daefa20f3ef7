from __future__ import annotations

import datetime
import math
import subprocess
import threading
import time
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest

import topb
from topb.v1 import bundle_pb2, model_pb2, selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse


def test_a_served_pool_is_asked_for_as_it_was_given(server, script):
    requests = []

    def serve(request, context):
        requests.append(request)
        return script.whole_answer(Response, pick_count=5)

    server.select_batch = serve
    with topb.Client(server.address) as client:
        result = client.select_batch(
            topb.Pool(
                Path("/pools/a.parquet"),
                format="parquet",
                id_column="key",
                image_column="picture",
                path_column="file",
            ),
            5,
            strategy="random",
            seed=2**64 - 1,
            exclude=topb.ExcludeFile("/pools/labelled.parquet", column="name"),
            request_id="round-3",
            detached=True,
        )
        client.select_batch("file:///pools/b", 1)
        client.select_batch("file:///pools/b", 1)
    full, bare, again = requests
    assert full == selection_pb2.SelectBatchRequest(
        spec=selection_pb2.SelectionSpec(
            budget=5,
            strategy="random",
            seed=2**64 - 1,
            exclude=selection_pb2.Exclusion(uri="/pools/labelled.parquet", column="name"),
        ),
        pool=selection_pb2.Pool(
            uri="/pools/a.parquet",
            format=selection_pb2.POOL_FORMAT_PARQUET,
            id_column="key",
            image_column="picture",
            path_column="file",
        ),
        request_id="round-3",
        detached=True,
    )
    assert bare == selection_pb2.SelectBatchRequest(
        spec=selection_pb2.SelectionSpec(budget=1, strategy="aalu"),
        pool=selection_pb2.Pool(uri="file:///pools/b"),
        request_id=bare.request_id,
    )
    assert uuid.UUID(bare.request_id) != uuid.UUID(again.request_id)
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 6))
    assert result.picks[0] == topb.Pick("image-1", 1, 1.0, 1, 0.5, 1.25)
    assert not result.fell_short


def test_the_accounts_come_with_the_result(server, script):
    def serve(request, context):
        answer = script.summary(0, budget=3)
        answer.accounts.CopyFrom(selection_pb2.Accounts(read=10, scored=4, duplicate=2, excluded=1))
        answer.accounts.skipped.add(reason="IMAGE_TOO_LARGE", count=1)
        answer.accounts.skipped.add(reason="IMAGE_CORRUPT", count=2)
        answer.accounts.skipped_examples.add(id="x", reason="IMAGE_CORRUPT", detail="no JPEG")
        yield Response(summary=answer)

    server.select_batch = serve
    with topb.Client(server.address) as client:
        result = client.select_batch("/p", 3)
    assert result.fell_short
    assert result.accounts == topb.Accounts(
        read=10,
        scored=4,
        skipped={"IMAGE_CORRUPT": 2, "IMAGE_TOO_LARGE": 1},
        duplicate=2,
        excluded=1,
        skipped_examples=(topb.SkippedRow("x", "IMAGE_CORRUPT", "no JPEG"),),
    )


def test_progress_is_reported_and_events_of_a_later_version_are_passed_over(server, script):
    def serve(request, context):
        yield Response(
            progress=selection_pb2.SelectionProgress(read=5, total=9, elapsed=script.duration(1.25))
        )
        yield Response()
        yield from script.whole_answer(Response)

    server.select_batch = serve
    seen = []
    with topb.Client(server.address) as client:
        client.select_batch("/p", 3, progress=seen.append)
    assert seen == [topb.Progress(read=5, total=9, elapsed_seconds=1.25)]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), grpc.RpcError("mine")])
def test_what_the_progress_callback_raises_comes_out_and_cancels(server, error):
    cancelled = threading.Event()

    def serve(request, context):
        context.add_callback(cancelled.set)
        yield Response(progress=selection_pb2.SelectionProgress(read=5))
        while context.is_active():
            time.sleep(0.01)

    def callback(progress):
        raise error

    server.select_batch = serve
    with topb.Client(server.address) as client:
        with pytest.raises(type(error)) as caught:
            client.select_batch("/p", 3, progress=callback)
        assert caught.value is error
        assert cancelled.wait(5)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda _answer: [], "without a result"),
        (lambda answer: answer[:1], "announced 7 picks and sent 0"),
        (lambda answer: answer[:2], "announced 7 picks and sent 3"),
        (lambda answer: [*answer, answer[-1]], "rank 4 instead of rank 8"),
        (lambda answer: [answer[0], answer[2], answer[1]], "rank 4 instead of rank 1"),
        (lambda answer: answer[1:], "picks before the summary"),
        (lambda answer: [answer[0], *answer], "second summary"),
    ],
)
def test_a_result_that_is_cut_short_or_out_of_order_is_a_protocol_error(server, script, cut, said):
    server.select_batch = lambda _request, _context: cut(script.whole_answer(Response, pick_count=7))
    with topb.Client(server.address) as client, pytest.raises(topb.ProtocolError, match=said):
        client.select_batch("/p", 7)


def test_accounts_that_do_not_add_up_are_a_protocol_error(server, script):
    def serve(request, context):
        answer = script.summary(0)
        answer.accounts.scored -= 1
        yield Response(summary=answer)

    server.select_batch = serve
    with topb.Client(server.address) as client, pytest.raises(topb.ProtocolError, match="do not add up"):
        client.select_batch("/p", 7)


def test_a_server_that_dies_amid_the_answer_is_unavailable(server, script):
    reached = threading.Event()

    def serve(request, context):
        yield script.whole_answer(Response)[0]
        reached.set()
        while context.is_active():
            time.sleep(0.01)

    server.select_batch = serve

    def kill():
        reached.wait(5)
        server.stop()

    killer = threading.Thread(target=kill)
    killer.start()
    with topb.Client(server.address, retry=None) as client, pytest.raises(topb.TopbError) as caught:
        client.select_batch("/p", 3)
    killer.join()
    assert isinstance(caught.value, (topb.ServerUnavailableError, topb.RequestCancelledError))


def stall(request, context):
    while context.is_active():
        time.sleep(0.01)
    yield Response()


def test_the_deadline_of_a_call_goes_before_the_clients(server, server_info_message):
    server.select_batch = stall
    server.get_server_info = lambda _request, _context: server_info_message
    with topb.Client(server.address, timeout=60) as client:
        with pytest.raises(topb.DeadlineExceededError, match=r"did not finish within 0\.2 s") as caught:
            client.select_batch("/p", 1, timeout=0.2)
        client.server_info()
        client.server_info(timeout=10)
        client.server_info(timeout=math.inf)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert [None if left is None or left > 1e6 else round(left, -1) for left in server.timeouts[1:]] == [
        60,
        10,
        None,
    ]


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "soon"])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(topb.InvalidRequestError, match="timeout"):
        topb.Client("localhost:1", timeout=timeout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "5"}, "budget is '5'"),
        ({"budget": 2.0}, "budget is 2.0"),
        ({"budget": True}, "budget is True"),
        ({"budget": 2**63}, "budget is 9223372036854775808"),
        ({"seed": -1}, "seed is -1"),
        ({"strategy": None}, "strategy is None"),
        ({"model": 5}, "model is 5"),
        ({"strategy_options": {"k": 5}}, "strategy option k is 5"),
        ({"exclude": "a.parquet"}, "exclude is 'a.parquet'"),
        ({"exclude": 5}, "exclude is 5"),
        ({"exclude": ["a", 1.5]}, "row 1 of exclude"),
        ({"pool": topb.Pool("/p", format="tar")}, 'format is "tar"'),
        ({"request_id": ""}, "request_id is empty"),
        ({"request_id": 5}, "request_id is 5"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_before_anything_is_sent(arguments, said):
    with topb.Client("127.0.0.1:1") as client, pytest.raises(topb.InvalidRequestError, match=said):
        client.select_batch(**{"pool": "/p", "budget": 1} | arguments)


def test_more_excluded_ids_than_a_message_holds_are_refused_with_what_to_do():
    with topb.Client("127.0.0.1:1") as client, pytest.raises(topb.LimitExceededError, match="ExcludeFile"):
        client.select_batch("/p", 1, exclude=("x" * 2**20 for _ in range(65)))


@pytest.mark.parametrize("address", ["localhost", "", ":50051", "localhost:port", "http://localhost:50051"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(topb.InvalidRequestError, match=r"host:port") as caught:
        topb.Client(address)
    assert caught.value.reason == "ADDRESS_INVALID"


def test_a_closed_client_says_so(server):
    client = topb.Client(server.address)
    client.close()
    with pytest.raises(topb.InvalidRequestError, match="closed"):
        client.server_info()


def test_scores_come_in_order_with_what_was_skipped_in_its_place(server):
    requests = []

    def serve(request, context):
        requests.append(request)
        response = selection_pb2.ScoreImagesResponse(model="m")
        scored = response.results.add().scored
        scored.score, scored.entropy = 0.75, 0.5
        scored.probabilities.extend([0.25, 0.75])
        if request.include_features:
            scored.features.extend([1.0, 2.0, 3.0])
        response.results.add().skipped.CopyFrom(
            selection_pb2.ImageScores.Skipped(reason="IMAGE_CORRUPT", detail="no JPEG")
        )
        return response

    server.score_images = serve
    with topb.Client(server.address) as client:
        scored, skipped = client.score_images([b"a", bytearray(b"b")], model="m", include_features=True)
        bare, _ = client.score_images(iter([b"a", b"b"]))
    assert requests[0] == selection_pb2.ScoreImagesRequest(
        model="m", images=[b"a", b"b"], include_features=True
    )
    assert (scored.score, scored.entropy, scored.model, scored.predicted_class) == (0.75, 0.5, "m", 1)
    assert scored.probabilities.dtype == scored.features.dtype == np.float32
    assert scored.probabilities.tolist() == [0.25, 0.75]
    assert scored.features.tolist() == [1.0, 2.0, 3.0]
    assert not scored.probabilities.flags.writeable
    assert skipped == topb.SkippedImage("IMAGE_CORRUPT", "no JPEG")
    assert bare.features is None


def test_scores_that_do_not_match_the_images_are_a_protocol_error(server):
    server.score_images = lambda request, _context: selection_pb2.ScoreImagesResponse(
        results=[selection_pb2.ImageScores()] * len(request.images[:1])
    )
    with topb.Client(server.address) as client:
        with pytest.raises(topb.ProtocolError, match="2 images with 1"):
            client.score_images([b"a", b"b"])
        with pytest.raises(topb.ProtocolError, match="neither"):
            client.score_images([b"a"])


def test_what_is_no_encoded_image_is_refused():
    with (
        topb.Client("127.0.0.1:1") as client,
        pytest.raises(topb.InvalidRequestError, match=r"image 1 .*ndarray"),
    ):
        client.score_images([b"a", np.zeros((2, 2, 3), np.uint8)])


def test_images_too_large_for_one_message_are_a_limit(server):
    server.score_images = lambda _request, _context: selection_pb2.ScoreImagesResponse()
    with topb.Client(server.address) as client, pytest.raises(topb.LimitExceededError):
        client.score_images([bytes(65 * 2**20)])


def test_what_the_server_is(server, server_info_message):
    server.get_server_info = lambda _request, _context: server_info_message
    with topb.Client(server.address) as client:
        info = client.server_info()
    assert info == topb.ServerInfo(
        version="0.1.0",
        devices=("cpu",),
        default_model="0123456789abcdef",
        strategies=("aalu", "random"),
        limits=topb.Limits(1_000_000, 4 * 2**20, 20 * 2**20, 50_000_000, 64, 2),
    )


def test_a_model_is_described(server, model_message):
    asked = []

    def serve(request, context):
        asked.append(request.model)
        return model_pb2.GetModelResponse(model=model_message)

    server.get_model = serve
    with topb.Client(server.address) as client:
        model = client.get_model()
        client.get_model("abc")
    assert asked == ["", "abc"]
    assert model == topb.Model(
        id="0123456789abcdef",
        is_default=True,
        create_time=datetime.datetime(2025, 3, 4, 5, 6, 7, tzinfo=datetime.UTC),
        method="aalu",
        round=2,
        input=topb.ImageInput(32, 48, "cover_and_center_crop"),
        classes=("cat", "dog", "horse"),
        outputs=(
            topb.ModelOutput("score", "the assistant's", ()),
            topb.ModelOutput("features", "the task model's", (16,)),
        ),
        strategies=("aalu", "random"),
        labelled_count=4500,
        test_accuracy=0.625,
        seed=11,
        configuration={"task": {"epochs": 3.0}},
        library_versions={"torch": "2.9"},
        gates=(topb.GateMeasurement("score_error", 1e-6, 1e-4, "largest difference"),),
    )


def test_a_bare_model_is_described_too(server):
    server.get_model = lambda _request, _context: model_pb2.GetModelResponse()
    with topb.Client(server.address) as client:
        model = client.get_model()
    assert model.create_time is None
    assert model.test_accuracy is None
    assert model.input.resize == "unspecified"


def test_a_resize_rule_of_a_later_release_is_unspecified(server):
    bundle = bundle_pb2.Bundle(input=bundle_pb2.ImageInput(height=8, width=8, resize=77))
    server.get_model = lambda _request, _context: model_pb2.GetModelResponse(
        model=model_pb2.Model(bundle=bundle)
    )
    with topb.Client(server.address) as client:
        assert client.get_model().input.resize is topb.ResizeRule.UNSPECIFIED


def test_all_pages_of_models_are_fetched(server):
    def serve(request, context):
        first = int(request.page_token or 0)
        page = model_pb2.ListModelsResponse(next_page_token=str(first + 2) if first < 4 else "")
        for number in range(first, min(first + 2, 5)):
            page.models.add().bundle.model_id = str(number)
        return page

    server.list_models = serve
    with topb.Client(server.address) as client:
        assert [model.id for model in client.list_models(timeout=5)] == ["0", "1", "2", "3", "4"]


def test_waiting_for_a_server_that_starts_later(server, script, server_info_message):
    server.stop()
    later: list = []

    def start():
        later.append(script.ScriptedServer(server.port))
        later[0].get_server_info = lambda _request, _context: server_info_message

    starter = threading.Timer(0.5, start)
    with topb.Client(server.address) as client:
        with pytest.raises(topb.ServerUnavailableError):
            client.server_info()
        starter.start()
        assert client.wait_until_ready(10).version == "0.1.0"
    starter.join()
    later[0].stop()


def test_waiting_for_a_server_that_never_comes_ends():
    with (
        topb.Client("127.0.0.1:1") as client,
        pytest.raises(topb.ServerUnavailableError, match=r"127\.0\.0\.1:1"),
    ):
        client.wait_until_ready(0.3)


def test_tls_options_go_in_pairs_and_their_files_must_be_there(tmp_path):
    with pytest.raises(topb.InvalidRequestError, match="both, or neither"):
        topb.TlsOptions(certificate_file="own.pem")
    with pytest.raises(topb.InvalidRequestError, match=r"missing\.pem"):
        topb.Client("localhost:1", credentials=topb.TlsOptions(ca_file=tmp_path / "missing.pem"))


@pytest.fixture
def tls_server(tmp_path, server_info_message):
    from concurrent.futures import ThreadPoolExecutor

    from topb.v1 import selection_pb2_grpc

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=scorer.test",
    ]
    make += ["-addext", "subjectAltName=DNS:scorer.test", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")

    class Selections(selection_pb2_grpc.SelectionServiceServicer):
        def GetServerInfo(self, _request, _context):
            return server_info_message

    workers = ThreadPoolExecutor(1)
    server = grpc.server(workers)
    selection_pb2_grpc.add_SelectionServiceServicer_to_server(Selections(), server)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(grace=0).wait()
    workers.shutdown()


def test_a_trusted_server_answers_over_tls_and_an_untrusted_one_is_refused(tls_server):
    address, certificate = tls_server
    trusting = topb.TlsOptions(ca_file=certificate, server_name="scorer.test")
    with topb.Client(address, credentials=trusting) as client:
        assert client.server_info().version == "0.1.0"
    untrusting = topb.Client(address, credentials=topb.TlsOptions())
    with untrusting as client, pytest.raises(topb.ServerUnavailableError, match=address):
        client.server_info()
