"""Convert gRPC statuses and their details to the exceptions of `topb.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from topb import errors
from topb._contact import UNREACHABLE
from topb.v1 import error_details_pb2

# The status that grpc.aio itself reports if it cannot send a request because the call or connection ended.
NOT_SENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")

# How the details of gRPC's errors begin if no connection could be made, so that no server saw the request.
_NOT_CONNECTED = ("failed to connect", "errors resolving", "DNS resolution failed")

_DETAILS_KEY = "grpc-status-details-bin"

EXCEPTIONS: dict[grpc.StatusCode, type[errors.TopbError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequestError,
    grpc.StatusCode.ALREADY_EXISTS: errors.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    grpc.StatusCode.ABORTED: errors.PreconditionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    grpc.StatusCode.CANCELLED: errors.RequestCancelledError,
    grpc.StatusCode.UNAVAILABLE: errors.ServerUnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedError,
    grpc.StatusCode.INTERNAL: errors.ServerError,
    grpc.StatusCode.UNKNOWN: errors.ServerError,
    grpc.StatusCode.DATA_LOSS: errors.ServerError,
}


class ConnectionLostError(Exception):
    """The server went away during a call. The call may be retried.

    The subclass distinguishes this error from a ServerUnavailableError that the caller's own callback raises.
    """

    def __init__(self, error: errors.ServerUnavailableError) -> None:
        super().__init__(str(error))
        self.error = error


def client_closed() -> errors.RequestCancelledError:
    """Return the error of a call whose client was closed while it ran."""
    return errors.RequestCancelledError("the client was closed during the call", reason="CANCELLED")


@contextmanager
def mapped_errors(address: str, timeout: float | None) -> Iterator[None]:
    """Convert a gRPC error raised in the body to the matching TopbError.

    Args:
        address: Address of the server, for the message.
        timeout: Timeout of the call in seconds, for the message.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise exception_of(error, address=address, timeout=timeout) from error


def exception_of(error: Any, *, address: str, timeout: float | None) -> errors.TopbError:
    """Return the exception that matches the error of a call.

    Args:
        error: An error of grpc or grpc.aio, with `code()`, `details()` and `trailing_metadata()`.
        address: Address of the server, for the message.
        timeout: Timeout of the call in seconds, for the message.
    """
    code: grpc.StatusCode = error.code()
    if (code, error.details()) == NOT_SENT:
        code = grpc.StatusCode.UNAVAILABLE
    details = _details_of(error)
    exception = EXCEPTIONS.get(code, errors.ServerError)
    message = error.details() or "the server gave no message"
    reason = code.name
    if code is grpc.StatusCode.UNAVAILABLE and message.startswith(_NOT_CONNECTED):
        reason = UNREACHABLE
    if details.reason is None:
        message = _explained(exception, message, address=address, timeout=timeout)
    return exception(
        message,
        reason=details.reason or reason,
        metadata=details.metadata,
        retry_delay=details.retry_delay,
    )


def _explained(
    exception: type[errors.TopbError], message: str, *, address: str, timeout: float | None
) -> str:
    """Return the message of an error that gRPC itself raised, with advice."""
    if exception is errors.ServerUnavailableError:
        return (
            f"no topb server can be reached at {address}: {message}. "
            "Is it running (topb serve --listen HOST:PORT), and is the address correct?"
        )
    if exception is errors.DeadlineExceededError:
        waited = "in time" if timeout is None else f"within {timeout:g} s"
        return f"the call to {address} did not finish {waited}; use a longer timeout, or none"
    if exception is errors.UnsupportedError:
        return f"{address} does not support this call: {message}. Is it a topb server of this version?"
    return message


@dataclass(frozen=True, slots=True)
class _Details:
    """The fields of google.rpc.Status other than the code and the message."""

    reason: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    retry_delay: float | None = None


def _details_of(error: Any) -> _Details:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            # The code and the message still tell the caller more than this error would.
            with suppress(DecodeError):
                return _unpacked(error_details_pb2.ErrorStatus.FromString(value))
    return _Details()


def _unpacked(status: error_details_pb2.ErrorStatus) -> _Details:
    reason = retry_delay = None
    metadata: dict[str, str] = {}
    for detail in status.details:
        # Any.Unpack() would expect the names of our mirror types instead of those on the wire.
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, metadata = info.reason or None, dict(info.metadata)
            case "google.rpc.RetryInfo":
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_delay = delay.seconds + delay.nanos / 1e9
    return _Details(reason, metadata, retry_delay)
