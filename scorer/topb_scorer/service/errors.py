"""From the scorer's errors to google.rpc.Status."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from topb_scorer.errors import (
    AccessDeniedError,
    BundleError,
    DeviceError,
    InvalidRequestError,
    LimitExceededError,
    NewerVersionError,
    NotFoundError,
    ScorerError,
    SelectionCancelledError,
    UnavailableError,
    UnreadablePoolError,
    storage_error,
)

DOMAIN = "topb"

# A status travels in headers, of which gRPC may refuse more than 8 KiB and with them the whole answer.
_MESSAGE_BYTES = 1000
_VALUE_BYTES = 200

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)

_CODES: dict[type[ScorerError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AccessDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    LimitExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BundleError: grpc.StatusCode.FAILED_PRECONDITION,
    DeviceError: grpc.StatusCode.FAILED_PRECONDITION,
    NewerVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    UnreadablePoolError: grpc.StatusCode.FAILED_PRECONDITION,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    SelectionCancelledError: grpc.StatusCode.CANCELLED,
}


async def abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the status that the error means. What nobody foresaw is INTERNAL, and logged."""
    if not isinstance(error, ScorerError):
        _log.exception("unforeseen error", exc_info=error)
    if isinstance(error, OSError):
        error = storage_error(error)
    elif not isinstance(error, ScorerError):
        error = ScorerError(f"{type(error).__name__}: {error}", reason="INTERNAL")
    status = status_of(error)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def status_of(error: ScorerError) -> status_pb2.Status:
    """The google.rpc.Status with ErrorInfo, and RetryInfo where another try may do."""
    values = {name: _shortened(value, _VALUE_BYTES) for name, value in error.metadata.items()}
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=values))]
    code = grpc.StatusCode.INTERNAL
    if error.retry_delay is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_delay * 1000))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    for kind, kind_code in _CODES.items():
        if isinstance(error, kind):
            code = kind_code
    return status_pb2.Status(
        code=code.value[0], message=_shortened(str(error), _MESSAGE_BYTES), details=details
    )


def _shortened(text: str, most_bytes: int) -> str:
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    return f"{encoded[:most_bytes].decode(errors='ignore')}… ({len(encoded)} bytes in all)"


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
