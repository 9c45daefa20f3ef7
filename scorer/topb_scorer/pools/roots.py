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
        resolved = _local_path(uri).resolve()
        if self.roots is None or any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        allowed = ", ".join(map(str, self.roots)) or "none; the server was started without --allow-root"
        raise AccessDeniedError(
            f"{uri} lies outside the allowed roots ({allowed})", reason="POOL_NOT_ALLOWED", uri=uri
        )


def _local_path(uri: str) -> Path:
    if not uri or "\0" in uri:
        raise InvalidRequestError(f"{uri!r} is no path or file:// URI", reason="POOL_URI", uri=uri)
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise InvalidRequestError(
            f"{uri}: only paths and file:// URIs of this machine are read", reason="POOL_URI", uri=uri
        )
    return Path(unquote(parts.path))
