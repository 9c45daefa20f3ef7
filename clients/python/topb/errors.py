"""The exceptions of the SDK. Each has a `reason` that programs can act on.

TopbError
├── InvalidRequestError       the request is invalid
├── NotFoundError             a model, a pool or a file does not exist
├── AccessDeniedError         the caller may not use the pool or the call
├── LimitExceededError        the request exceeds a limit of the server or of one message
├── PreconditionError         the server's state does not allow the request
├── DeadlineExceededError     the call took longer than its timeout
├── RequestCancelledError     the call or the selection was cancelled
├── SelectionFailedError      the selection failed
├── ServerUnavailableError    no server answers, or it is shutting down; the call may be retried
├── UnsupportedError          the server does not support the call
├── ServerError               the server failed
└── ProtocolError             the server's answer is contradictory or incomplete
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class TopbError(Exception):
    """Base class of all exceptions of topb, including those of the scorer and the trainer.

    Attributes:
        reason: Code of the error in UPPER_SNAKE_CASE, stable between versions. If neither the server nor the
            client gave one, it is the name of the gRPC status code.
        metadata: The values that the error is about, by name.
        retry_delay: Number of seconds that the server asks to wait before a retry, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self.retry_delay = retry_delay

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have constructors of their own: pickle restores the attributes without calling them.
        return _restored, (type(self), self.args, {**vars(self), "metadata": dict(self.metadata)})


def _restored(kind: type[TopbError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TopbError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes, metadata=MappingProxyType(attributes["metadata"]))
    return error


class InvalidRequestError(TopbError):
    """The request is invalid and has to be changed."""


class NotFoundError(TopbError):
    """A model, a pool or a file does not exist."""


class AccessDeniedError(TopbError):
    """The server may not read the pool, or the caller may not make the call."""


class LimitExceededError(TopbError):
    """The request exceeds a limit of the server, or does not fit into one message."""


class PreconditionError(TopbError):
    """The server's state does not allow the request, and has to be changed first."""


class DeadlineExceededError(TopbError):
    """The call took longer than its timeout. The server pauses its selection, unless it is detached."""


class RequestCancelledError(TopbError):
    """The call or the selection was cancelled, or the client was closed."""


class SelectionFailedError(TopbError):
    """The selection failed. The error has the same reason as the selection."""


class ServerUnavailableError(TopbError):
    """No server answers at the address, or it is shutting down. The call may be retried."""


class UnsupportedError(TopbError):
    """The server does not support the call. It may be of another version."""


class ServerError(TopbError):
    """The server failed. Its log says why."""


class ProtocolError(TopbError):
    """The server's answer is contradictory or incomplete."""
