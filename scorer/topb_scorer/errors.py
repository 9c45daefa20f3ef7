"""Define the scorer's exceptions. Programs can rely on the `reason` of each.

TopbError
└── ScorerError
    ├── InvalidRequestError       the request is invalid
    ├── NotFoundError             a model, a pool or a file does not exist
    ├── AccessDeniedError         a pool is outside the locations that this scorer may read
    ├── LimitExceededError        the request asks for more than this scorer allows
    │   └── StorageFullError      the disk of the state directory has too little room
    ├── BundleError               a bundle is incomplete, altered or of an unknown layout
    ├── DeviceError               a requested device cannot be used
    ├── InstallationError         the installed packages are incompatible
    ├── NewerVersionError         a catalog or state directory was written by a newer version of topb
    ├── CatalogError              the catalog of selections is damaged
    ├── ListenError               the server cannot listen on its address
    ├── UnreadablePoolError       a pool exists but cannot be read to its end
    ├── UnavailableError          the request cannot be served now: retry later or on another server
    ├── TakenOverError            another call continues the selection
    └── SelectionCancelledError   the caller cancelled the selection or disconnected
"""

from __future__ import annotations

import errno
from typing import TypeGuard

from topb.errors import TopbError


class ScorerError(TopbError):
    """The base class of the scorer's exceptions.

    Attributes:
        reason: a name for the error in UPPER_SNAKE_CASE, stable between versions.
        metadata: the values that caused the error, by name.
        retry_delay: seconds to wait before a retry, or None if a retry would not help.
    """

    def __init__(
        self, message: str, *, reason: str, retry_delay: float | None = None, **metadata: object
    ) -> None:
        values = {name: str(value) for name, value in metadata.items()}
        super().__init__(message, reason=reason, metadata=values, retry_delay=retry_delay)


class InvalidRequestError(ScorerError):
    """The request is invalid."""


class NotFoundError(ScorerError):
    """A model, a pool or a file does not exist."""


class AccessDeniedError(ScorerError):
    """A pool is outside the locations that this scorer may read."""


class LimitExceededError(ScorerError):
    """The request asks for more than this scorer allows."""


class StorageFullError(LimitExceededError):
    """The disk of the state directory has too little room. The selection stays open until there is room."""


class BundleError(ScorerError):
    """A bundle is incomplete, altered or of an unknown layout."""


class DeviceError(ScorerError):
    """A requested device cannot be used."""


class InstallationError(ScorerError):
    """The installed packages are incompatible."""


class NewerVersionError(ScorerError):
    """A catalog or state directory was written by a newer version of topb."""


class CatalogError(ScorerError):
    """The catalog of selections is damaged."""


class ListenError(ScorerError):
    """The server cannot listen on its address."""


class UnreadablePoolError(ScorerError):
    """A pool exists but cannot be read to its end."""


class UnavailableError(ScorerError):
    """The request cannot be served now: retry later or on another server."""

    def __init__(self, message: str, *, reason: str, retry_delay: float = 5.0, **metadata: object) -> None:
        super().__init__(message, reason=reason, retry_delay=retry_delay, **metadata)


class TakenOverError(ScorerError):
    """Another call continues the selection. A retry of this one would stop that one in turn."""


class SelectionCancelledError(ScorerError):
    """The caller cancelled the selection or disconnected."""

    def __init__(self) -> None:
        super().__init__("the selection was cancelled", reason="SELECTION_CANCELLED")


def is_storage_fault(error: Exception) -> TypeGuard[OSError]:
    """Return whether an error comes from the operating system, such as that of a full or failing disk.

    Libraries also raise an OSError for malformed contents, but without the number of a system error.
    """
    return isinstance(error, OSError) and error.errno is not None


def storage_error(error: OSError) -> ScorerError:
    """Return the error to report when the disk of the state directory fails. The selection stays open."""
    # The file is named in the server's log only, because callers must not learn the server's paths.
    fault = f"{error.strerror or type(error).__name__} in the server's storage"
    advice = "completed scores are kept: repair the storage and repeat the request with the same request id"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(f"{fault}; {advice}", reason="STORAGE_FULL")
    return ScorerError(f"{fault}; {advice}", reason="STORAGE_FAILED")


def unexpected_error(error: Exception) -> ScorerError:
    """Return the error to report for an exception that nobody expected. Its text is for the log only."""
    return ScorerError(
        f"an unexpected {type(error).__name__} occurred; the server's log shows where", reason="INTERNAL"
    )
