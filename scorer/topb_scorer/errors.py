"""What can go wrong in the scorer, each with a reason that a program can read.

ScorerError
├── InvalidRequestError       the request cannot be served as it is
├── NotFoundError             a model, a pool or a file is not there
├── AccessDeniedError         a pool lies outside what this scorer may read
├── LimitExceededError        the request asks for more than this scorer allows
├── BundleError               a bundle is torn, altered or of another layout
├── DeviceError               a device that was asked for cannot be used
├── InstallationError         the installed packages do not fit together
├── UnreadablePoolError       a pool can be found but not read to its end
├── UnavailableError          not now; another try later, or at another server, may do
└── SelectionCancelledError   the caller cancelled, or went away
"""

from __future__ import annotations

import errno


class ScorerError(Exception):
    """Root of the scorer's errors.

    Attributes:
        reason: what went wrong, in UPPER_SNAKE_CASE, stable between versions.
        metadata: the values at fault, by name.
    """

    def __init__(self, message: str, *, reason: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = {name: str(value) for name, value in metadata.items()}


class InvalidRequestError(ScorerError):
    """The request cannot be served as it is."""


class NotFoundError(ScorerError):
    """A model, a pool or a file is not there."""


class AccessDeniedError(ScorerError):
    """A pool lies outside what this scorer may read."""


class LimitExceededError(ScorerError):
    """The request asks for more than this scorer allows."""


class BundleError(ScorerError):
    """A bundle is torn, altered or of another layout."""


class DeviceError(ScorerError):
    """A device that was asked for cannot be used."""


class InstallationError(ScorerError):
    """The installed packages do not fit together."""


class UnreadablePoolError(ScorerError):
    """A pool can be found but not read to its end."""


class UnavailableError(ScorerError):
    """Not now; another try later, or at another server, may do.

    Attributes:
        retry_seconds: after which another try is worth it.
    """

    def __init__(self, message: str, *, reason: str, retry_seconds: float = 5.0, **metadata: object) -> None:
        super().__init__(message, reason=reason, **metadata)
        self.retry_seconds = retry_seconds


class SelectionCancelledError(ScorerError):
    """The caller cancelled, or went away."""

    def __init__(self) -> None:
        super().__init__("the selection was cancelled", reason="SELECTION_CANCELLED")


def storage_error(error: OSError) -> ScorerError:
    """What a caller is told when the disk of the state fails: the selection is open still."""
    advice = "what is scored stays scored: mend the storage and ask again under the same request id"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return LimitExceededError(f"{error}; {advice}", reason="STORAGE_FULL")
    return ScorerError(f"{error}; {advice}", reason="STORAGE_FAILED")
