from __future__ import annotations

import asyncio
import base64
import logging
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from topb_scorer import errors
from topb_scorer.errors import InvalidRequestError, ScorerError, SelectionCancelledError, UnavailableError
from topb_scorer.service.errors import errors_as_status, status_of

pytestmark = pytest.mark.scorer

CODES = {
    "InvalidRequestError": grpc.StatusCode.INVALID_ARGUMENT,
    "NotFoundError": grpc.StatusCode.NOT_FOUND,
    "AccessDeniedError": grpc.StatusCode.PERMISSION_DENIED,
    "LimitExceededError": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "BundleError": grpc.StatusCode.FAILED_PRECONDITION,
    "DeviceError": grpc.StatusCode.FAILED_PRECONDITION,
    "NewerVersionError": grpc.StatusCode.FAILED_PRECONDITION,
    "UnreadablePoolError": grpc.StatusCode.FAILED_PRECONDITION,
    "ScorerError": grpc.StatusCode.INTERNAL,
}


class CallContext:
    """Records the status with which a call ends."""

    status: grpc.Status | None = None

    async def abort_with_status(self, status: grpc.Status) -> None:
        self.status = status
        raise grpc.aio.AbortError


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    (detail,) = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    detail.Unpack(info)
    return info


def status_after(error: BaseException) -> grpc.Status | None:
    """The status with which a call ends that raises the error."""
    context = CallContext()

    async def call() -> None:
        async with errors_as_status("/topb.v1.Service/Call", context):  # type: ignore[arg-type]
            raise error

    with pytest.raises(BaseException) as caught:
        asyncio.run(call())
    assert isinstance(caught.value, type(error) if context.status is None else grpc.aio.AbortError)
    return context.status


@pytest.mark.parametrize("name", CODES)
def test_each_error_has_its_status_code_reason_and_values(name: str) -> None:
    status = status_after(getattr(errors, name)("what was wrong", reason="A_REASON", file="a.parquet", row=3))
    assert (status.code, status.details) == (CODES[name], "what was wrong")
    ((key, value),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    info = error_details_pb2.ErrorInfo(
        reason="A_REASON", domain="topb", metadata={"file": "a.parquet", "row": "3"}
    )
    content = status_pb2.Status.FromString(value)
    assert info_of(content) == info
    assert len(content.details) == 1


def test_a_subclass_of_an_error_has_the_status_code_of_its_class() -> None:
    class BudgetError(InvalidRequestError):
        """A more specific error."""

    status = status_of(BudgetError("b", reason="B"))
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize(
    ("error", "code", "reason", "retry_seconds"),
    [
        (SelectionCancelledError(), grpc.StatusCode.CANCELLED, "SELECTION_CANCELLED", None),
        (UnavailableError("busy", reason="BUSY", retry_delay=2.5), grpc.StatusCode.UNAVAILABLE, "BUSY", 2.5),
    ],
)
def test_an_error_asks_for_a_retry_only_if_one_can_succeed(
    error: ScorerError, code: grpc.StatusCode, reason: str, retry_seconds: float | None
) -> None:
    status = status_of(error)
    assert (status.code, info_of(status).reason) == (code.value[0], reason)
    delays = [error_details_pb2.RetryInfo.FromString(detail.value) for detail in status.details[1:]]
    assert [delay.retry_delay.ToTimedelta().total_seconds() for delay in delays] == (
        [] if retry_seconds is None else [retry_seconds]
    )


@pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
def test_a_long_message_is_truncated_to_fit_the_headers(letter: str) -> None:
    error = InvalidRequestError(letter * 50_000, reason="POOL_URI", uri=letter * 50_000, file="a" * 9_000)
    status = status_after(error)
    size = len(f"{letter}".encode()) * 50_000
    assert status.details.endswith(f"{letter}… ({size} bytes in all)")
    ((_, value),) = status.trailing_metadata
    assert info_of(status_pb2.Status.FromString(value)).metadata["uri"].endswith(f"… ({size} bytes in all)")
    # Headers hold the message percent-encoded and the details in base64.
    assert len(quote(status.details)) + len(base64.b64encode(value)) < 6_500


def test_text_that_is_not_unicode_is_escaped() -> None:
    status = status_of(InvalidRequestError("\udcff.png", reason="POOL_URI", uri="\udcff"))
    assert status.message == "\\udcff.png"
    assert info_of(status).metadata == {"uri": "\\udcff"}


def test_an_unexpected_error_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_after(ZeroDivisionError("by zero"))
    assert status.code is grpc.StatusCode.INTERNAL
    # The text of an exception may hold paths or parts of other requests, so only the log has it.
    assert "ZeroDivisionError" in status.details
    assert "by zero" not in status.details
    assert "ZeroDivisionError: by zero" in caplog.text


def test_an_expected_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    status_after(InvalidRequestError("no", reason="NO"))
    assert caplog.records == []


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), grpc.aio.AbortError()])
def test_no_status_is_set_for_a_call_that_has_ended(error: BaseException) -> None:
    assert status_after(error) is None
