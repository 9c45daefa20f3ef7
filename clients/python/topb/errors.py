"""What can go wrong in a call, each with a reason that a program can read.

TopbError
├── InvalidRequestError       the request cannot be served as it is
├── NotFoundError             a model, a pool or a file is not there
├── AccessDeniedError         the pool or the call is not allowed to this caller
├── LimitExceededError        the request asks for more than the server, or a message, can hold
├── PreconditionError         the server is not in a state in which it can serve the request
├── DeadlineExceededError     the call took longer than its timeout
├── RequestCancelledError     the call or the selection was cancelled before it was done
├── SelectionFailedError      the selection that was asked after had failed
├── ServerUnavailableError    no server answers, or it is going away: the call may be made again
├── UnsupportedError          the server does not know the call
├── ServerError               the server failed
└── ProtocolError             the server's answer makes no sense, or was cut short
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class TopbError(Exception):
    """Root of the SDK's errors.

    Attributes:
        reason: what went wrong, in UPPER_SNAKE_CASE, stable between versions. The server's own reason
            where it gave one, else the name of the gRPC status code or the client's own reason.
        metadata: the values at fault, by name.
        retry_delay: seconds after which the server asks to be called again, where it said so.
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
    """The request cannot be served as it is: what it says has to change."""


class NotFoundError(TopbError):
    """A model, a pool or a file is not there."""


class AccessDeniedError(TopbError):
    """The pool lies outside what the server may read, or the call is not allowed to this caller."""


class LimitExceededError(TopbError):
    """The request asks for more than the server allows, or for more than one message can hold."""


class PreconditionError(TopbError):
    """The server is not in a state in which it can serve the request, and must be brought into one."""


class DeadlineExceededError(TopbError):
    """The call took longer than its timeout; the server stops working on it."""


class RequestCancelledError(TopbError):
    """The call, or the selection, was cancelled before it was done, or the client was closed."""


class SelectionFailedError(TopbError):
    """The selection that was asked after had failed; its reason is the error's."""


class ServerUnavailableError(TopbError):
    """No server answers at the address, or the one that did is going away. The call may be made again."""


class UnsupportedError(TopbError):
    """The server does not know the call: it may be of another version."""


class ServerError(TopbError):
    """The server failed; its own log says why."""


class ProtocolError(TopbError):
    """The server's answer makes no sense, or was cut short."""
