from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace

import grpc
import pytest
from grpc.aio import AioRpcError

import topb
from support.scripted_server import error_details
from topb._async.transport import _FinalStatus
from topb._rpc_errors import EXCEPTIONS, NOT_SENT, exception_of

pytestmark = pytest.mark.sdk


def raised(code, message="the pool is not there", details=None):
    trailing = () if details is None else (("other", b""), ("grpc-status-details-bin", details))
    error = SimpleNamespace(code=lambda: code, details=lambda: message, trailing_metadata=lambda: trailing)
    return exception_of(error, address="scorer:50051", timeout=5)


def test_every_error_code_has_its_exception():
    assert set(EXCEPTIONS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", EXCEPTIONS, ids=lambda code: code.name)
def test_an_error_has_its_class_reason_metadata_and_delay(code):
    error = raised(code, details=error_details("SOME_REASON", {"uri": "/p", "limit": "5"}, retry_delay=2.25))
    assert type(error) is EXCEPTIONS[code]
    assert str(error) == "the pool is not there"
    assert (error.reason, error.metadata, error.retry_delay) == (
        "SOME_REASON",
        {"uri": "/p", "limit": "5"},
        2.25,
    )


@pytest.mark.parametrize("details", [None, b"\xff\xff\xff"], ids=["none", "torn"])
def test_an_error_without_readable_details_has_the_reason_of_its_code(details):
    error = raised(grpc.StatusCode.NOT_FOUND, details=details)
    assert type(error) is topb.NotFoundError
    assert (error.reason, error.metadata, error.retry_delay) == ("NOT_FOUND", {}, None)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.UNAVAILABLE, "scorer:50051.*topb serve"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "scorer:50051.*5 s"),
        (grpc.StatusCode.UNIMPLEMENTED, "scorer:50051"),
    ],
)
def test_an_error_of_grpc_itself_names_the_server(code, said):
    with pytest.raises(EXCEPTIONS[code], match=said):
        raise raised(code)


def test_a_request_that_could_not_be_sent_means_that_the_server_went_away():
    assert type(raised(*NOT_SENT)) is topb.ServerUnavailableError


def test_errors_survive_pickling():
    error = raised(
        grpc.StatusCode.RESOURCE_EXHAUSTED, details=error_details("BUDGET_TOO_LARGE", {"limit": "5"}, 1.5)
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is topb.LimitExceededError
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND], ids=lambda code: code.name)
def test_the_servers_status_replaces_the_status_of_a_request_that_could_not_be_sent(code):
    class EndedCall:
        async def code(self):
            return code

        async def details(self):
            return "the status of the server"

        initial_metadata = trailing_metadata = details

        def add_done_callback(self, note):
            self.ended = note

    async def ask():
        call = EndedCall()
        final_status = _FinalStatus(call)
        not_sent = AioRpcError(NOT_SENT[0], (), (), NOT_SENT[1])
        asking = asyncio.create_task(final_status.error_instead_of(not_sent))
        await asyncio.sleep(0)
        call.ended(call)
        return await asking

    error = asyncio.run(ask())
    assert (error and error.code()) == (None if code is grpc.StatusCode.OK else code)
