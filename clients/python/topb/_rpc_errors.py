"""From a gRPC status and its details to the exceptions of `topb.errors`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from topb import errors
from topb.v1 import error_details_pb2

Event = TypeVar("Event")

# What grpc.aio makes, by itself, of a request that it could not send: the call had ended, or its connection.
NOT_SENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")

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


@dataclass(frozen=True, slots=True)
class _Details:
    """What google.rpc.Status adds to the code and the message."""

    reason: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    retry_delay: float | None = None


class ConnectionLostError(Exception):
    """The server of a call went away: the call may be made again.

    It is told from a ServerUnavailableError that the caller's own code raises while it takes the events.
    """

    def __init__(self, error: errors.ServerUnavailableError) -> None:
        super().__init__(str(error))
        self.error = error


def mapped_events(call: Iterable[Event], *, address: str, timeout: float | None) -> Iterator[Event]:
    """The events of a call; the gRPC error that ends it is raised as the exception it stands for.

    Errors of whoever takes the events are not touched, gRPC errors among them.

    Raises:
        ConnectionLostError: where that is ServerUnavailableError.
        TopbError: another one.
    """
    try:
        with mapped_errors(address, timeout):
            yield from call
    except errors.ServerUnavailableError as error:
        raise ConnectionLostError(error) from error


@contextmanager
def mapped_errors(address: str, timeout: float | None) -> Iterator[None]:
    """Raises the exception that a gRPC error of the body stands for.

    Args:
        address: of the server, for the message.
        timeout: of the call in seconds, for the message.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise exception_of(error, address=address, timeout=timeout) from error


def exception_of(error: Any, *, address: str, timeout: float | None) -> errors.TopbError:
    """The exception that an error of a call stands for.

    Args:
        error: with `code()`, `details()` and `trailing_metadata()`, as errors of grpc and grpc.aio have them.
        address: of the server, for the message.
        timeout: of the call in seconds, for the message.
    """
    code: grpc.StatusCode = error.code()
    if (code, error.details()) == NOT_SENT:
        code = grpc.StatusCode.UNAVAILABLE
    details = _details_of(error)
    exception = EXCEPTIONS.get(code, errors.ServerError)
    message = error.details() or "the server gave no message"
    if details.reason is None:
        message = _explained(exception, message, address=address, timeout=timeout)
    return exception(
        message,
        reason=details.reason or code.name,
        metadata=details.metadata,
        retry_delay=details.retry_delay,
    )


def _explained(
    exception: type[errors.TopbError], message: str, *, address: str, timeout: float | None
) -> str:
    """The message of an error that gRPC itself raised, with what to do about it."""
    if exception is errors.ServerUnavailableError:
        return (
            f"no topb server can be reached at {address}: {message}. "
            "Is it running (topb serve --listen HOST:PORT), and is the address right?"
        )
    if exception is errors.DeadlineExceededError:
        waited = "in time" if timeout is None else f"within {timeout:g} s"
        return f"{address} was not done {waited}; give the call a longer timeout, or none"
    if exception is errors.UnsupportedError:
        return f"{address} does not know this call: {message}. Is it a topb server, of this version?"
    return message


def _details_of(error: Any) -> _Details:
    status = error_details_pb2.ErrorStatus()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                status.ParseFromString(value)
                return _unpacked(status)
            except DecodeError:
                # The code and the message still tell the caller more than this would.
                return _Details()
    return _Details()


def _unpacked(status: error_details_pb2.ErrorStatus) -> _Details:
    reason = retry_delay = None
    metadata: dict[str, str] = {}
    for detail in status.details:
        # By the name on the wire: Any.Unpack() would ask for the mirrors' own names.
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, metadata = info.reason or None, dict(info.metadata)
            case "google.rpc.RetryInfo":
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_delay = delay.seconds + delay.nanos / 1e9
    return _Details(reason, metadata, retry_delay)
