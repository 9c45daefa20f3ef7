"""Which paths a scorer may read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from topb_scorer.errors import AccessDeniedError, InvalidRequestError


@dataclass(frozen=True)
class AllowedRoots:
    """Directories below which everything may be read, links and `..` followed first; None: anywhere."""

    roots: tuple[Path, ...] | None

    @classmethod
    def anywhere(cls) -> AllowedRoots:
        """No limit: for callers that read with their own rights."""
        return cls(None)

    @classmethod
    def below(cls, roots: Iterable[Path]) -> AllowedRoots:
        """Only what lies below one of `roots`."""
        return cls(tuple(root.resolve() for root in roots))

    def path_of(self, uri: str) -> Path:
        """The absolute path, free of links, that a path or file:// URI means.

        Raises:
            InvalidRequestError: the URI is empty or of another scheme.
            AccessDeniedError: it lies outside the allowed roots.
        """
        try:
            resolved = _local_path(uri).resolve()
        except (OSError, RuntimeError) as error:
            # RuntimeError is what a loop of links is before Python 3.13.
            raise InvalidRequestError(f"{uri} leads nowhere: {error}", reason="POOL_URI", uri=uri) from error
        if self.roots is None or any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        allowed = ", ".join(map(str, self.roots)) or "none; the server was started without --allow-root"
        raise AccessDeniedError(
            f"{uri} lies outside the allowed roots ({allowed})", reason="POOL_NOT_ALLOWED", uri=uri
        )


def _local_path(uri: str) -> Path:
    path = _path_of_uri(uri) if "://" in uri else uri
    if not path or "\0" in path:
        raise InvalidRequestError(f"{uri!r} is no path or file:// URI", reason="POOL_URI", uri=uri)
    return Path(path)


def _path_of_uri(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidRequestError(f"{uri!r} is no URI: {error}", reason="POOL_URI", uri=uri) from error
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise InvalidRequestError(
            f"{uri}: only paths and file:// URIs of this machine are read", reason="POOL_URI", uri=uri
        )
    if parts.query or parts.fragment:
        raise InvalidRequestError(
            f"{uri}: a file has no query and no fragment; write ? as %3F and # as %23",
            reason="POOL_URI",
            uri=uri,
        )
    return unquote(parts.path)
