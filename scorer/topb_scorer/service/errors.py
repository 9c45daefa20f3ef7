"""Translate the scorer's errors into google.rpc.Status."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from topb_scorer.errors import (
    AccessDeniedError,
    BundleError,
    CatalogError,
    DeviceError,
    InvalidRequestError,
    LimitExceededError,
    NewerVersionError,
    NotFoundError,
    ScorerError,
    SelectionCancelledError,
    TakenOverError,
    UnavailableError,
    UnreadablePoolError,
    storage_error,
    unexpected_error,
)
from topb_scorer.service.interceptors import Context

DOMAIN = "topb"

# A status is sent in headers. If they exceed 8 KiB, gRPC may refuse the whole response.
_MESSAGE_BYTES = 1000
_VALUE_BYTES = 200

_log = logging.getLogger(__name__)

_CODES: dict[type[ScorerError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AccessDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    LimitExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BundleError: grpc.StatusCode.FAILED_PRECONDITION,
    DeviceError: grpc.StatusCode.FAILED_PRECONDITION,
    CatalogError: grpc.StatusCode.FAILED_PRECONDITION,
    NewerVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    UnreadablePoolError: grpc.StatusCode.FAILED_PRECONDITION,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    TakenOverError: grpc.StatusCode.ABORTED,
    SelectionCancelledError: grpc.StatusCode.CANCELLED,
}


@asynccontextmanager
async def errors_as_status(method: str, context: Context) -> AsyncIterator[None]:
    """Abort the call with a status if it raises an error.

    Unexpected errors are logged and reported as INTERNAL. Cancellation is not translated.
    """
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except ScorerError as error:
        await _abort(context, error)
    except OSError as error:
        _log.exception("storage error in %s", method)
        await _abort(context, storage_error(error))
    except Exception as error:
        _log.exception("unexpected error in %s", method)
        await _abort(context, unexpected_error(error))


async def _abort(context: Context, error: ScorerError) -> None:
    await context.abort_with_status(rpc_status.to_status(status_of(error)))


def status_of(error: ScorerError) -> status_pb2.Status:
    """Return the status of an error: a code, an ErrorInfo, and a RetryInfo if the request may be retried."""
    values = {name: _shortened(value, _VALUE_BYTES) for name, value in error.metadata.items()}
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=values))]
    if error.retry_delay is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_delay * 1000))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    codes = (code for kind, code in _CODES.items() if isinstance(error, kind))
    return status_pb2.Status(
        code=next(codes, grpc.StatusCode.INTERNAL).value[0],
        message=_shortened(str(error), _MESSAGE_BYTES),
        details=details,
    )


def _shortened(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return f"{encoded[:max_bytes].decode(errors='ignore')}… ({len(encoded)} bytes in all)"


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
