from __future__ import annotations

import pickle

import grpc
import pytest

import topb

pytestmark = pytest.mark.sdk

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: topb.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: topb.InvalidRequestError,
    grpc.StatusCode.ALREADY_EXISTS: topb.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: topb.NotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: topb.AccessDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: topb.AccessDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: topb.LimitExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: topb.PreconditionError,
    grpc.StatusCode.ABORTED: topb.PreconditionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: topb.DeadlineExceededError,
    grpc.StatusCode.CANCELLED: topb.RequestCancelledError,
    grpc.StatusCode.UNAVAILABLE: topb.ServerUnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: topb.UnsupportedError,
    grpc.StatusCode.INTERNAL: topb.ServerError,
    grpc.StatusCode.UNKNOWN: topb.ServerError,
    grpc.StatusCode.DATA_LOSS: topb.ServerError,
}


def test_every_error_code_has_its_exception():
    assert set(CODES) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("call", ["unary", "served", "streamed"])
def test_an_error_comes_with_its_class_reason_metadata_and_delay(server, script, code, call):
    details = script.error_details("SOME_REASON", {"uri": "/p", "limit": "5"}, retry_delay=2.25)

    def fail(request, context):
        script.abort(context, code, "the pool is not there", details)

    server.get_model = server.select_batch = server.select_batch_from_stream = fail
    calls = {
        "unary": lambda client: client.get_model(),
        "served": lambda client: client.select_batch("/p", 1),
        "streamed": lambda client: client.select_batch([("a", b"a")], 1),
    }
    with topb.Client(server.address, retry=None) as client, pytest.raises(topb.TopbError) as caught:
        calls[call](client)
    assert type(caught.value) is CODES[code]
    assert str(caught.value) == "the pool is not there"
    assert caught.value.reason == "SOME_REASON"
    assert caught.value.metadata == {"uri": "/p", "limit": "5"}
    assert caught.value.retry_delay == 2.25


@pytest.mark.parametrize("details", [None, b"\xff\xff\xff"], ids=["none", "torn"])
def test_an_error_without_readable_details_goes_by_its_code(server, script, details):
    server.get_model = lambda _request, context: script.abort(
        context, grpc.StatusCode.NOT_FOUND, "no such model", details
    )
    with (
        topb.Client(server.address, retry=None) as client,
        pytest.raises(topb.NotFoundError, match="no such model") as caught,
    ):
        client.get_model("x")
    assert caught.value.reason == "NOT_FOUND"
    assert caught.value.metadata == {}
    assert caught.value.retry_delay is None


def test_a_server_that_knows_no_such_call_is_named(server):
    with (
        topb.Client(server.address, retry=None) as client,
        pytest.raises(topb.UnsupportedError, match=server.address),
    ):
        client.server_info()


def test_a_failing_handler_is_a_server_error(server):
    def fail(request, context):
        raise RuntimeError("a bug")

    server.get_model = fail
    with topb.Client(server.address, retry=None) as client, pytest.raises(topb.ServerError) as caught:
        client.get_model()
    assert caught.value.reason == "UNKNOWN"


def test_nobody_at_the_address_says_where_and_what_to_do(server):
    address = server.address
    server.stop()
    with topb.Client(address, retry=None) as client:
        for call in (
            client.server_info,
            lambda: client.select_batch("/p", 1),
            lambda: client.select_batch([("a", b"a")], 1),
        ):
            with pytest.raises(topb.ServerUnavailableError, match=rf"{address}.*topb serve"):
                call()


def test_errors_survive_pickling():
    error = topb.LimitExceededError(
        "too much", reason="BUDGET_TOO_LARGE", metadata={"limit": "5"}, retry_delay=1.5
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is topb.LimitExceededError
    assert (str(copy), copy.reason, copy.metadata, copy.retry_delay) == (
        "too much",
        "BUDGET_TOO_LARGE",
        {"limit": "5"},
        1.5,
    )
