"""Which paths and URIs a scorer may read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.storage.addresses import (
    Address,
    S3Address,
    StoredAddress,
    WebAddress,
    parse_address,
)


@dataclass(frozen=True)
class AllowedRoots:
    """The directories and the S3 and web prefixes below which everything may be read."""

    roots: tuple[Path, ...] | None
    """Directories without links and `..`. None allows everything everywhere."""
    prefixes: tuple[str, ...] = ()
    """s3://bucket/key/ and https://host/path/, each with a trailing slash."""

    @classmethod
    def anywhere(cls) -> AllowedRoots:
        """Return roots without limits, for callers that read with their own rights."""
        return cls(None)

    @classmethod
    def below(cls, roots: Iterable[str | Path]) -> AllowedRoots:
        """Return roots that allow only what is below one of `roots`.

        Args:
            roots: Directories, s3://bucket[/key] or http(s)://host[/path].

        Raises:
            InvalidRequestError: One of them is none of these, or is a URL with a query.
        """
        directories: list[Path] = []
        prefixes: list[str] = []
        for root in roots:
            address = parse_address(str(root))
            if isinstance(address, Path):
                directories.append(address.resolve())
                continue
            if isinstance(address, WebAddress) and "?" in address.url:
                raise InvalidRequestError(
                    f"{root} has a query; an allowed root must be a prefix without one",
                    reason="ROOT_INVALID",
                    root=root,
                )
            prefixes.append(_with_slash(str(address)))
        return cls(tuple(directories), tuple(prefixes))

    def allowed_address(self, uri: str, folder: StoredAddress | None = None) -> Address:
        """Parse a path or URI and check that it may be read, after resolving links and `..` in a local path.

        Args:
            uri: A path, or a file://, s3://, http:// or https:// URI.
            folder: What a relative path is relative to; None is the working directory.

        Raises:
            InvalidRequestError: It is none of these.
            AccessDeniedError: It is outside the allowed roots.
        """
        address = parse_address(uri, folder)
        if isinstance(address, Path):
            return self.allowed_path(address, uri)
        if self.roots is None or any(_is_below(address, prefix) for prefix in self.prefixes):
            return address
        raise self._refusal(uri)

    def allowed_path(self, path: Path, uri: str) -> Path:
        """Resolve the links and `..` of a path and check that it may be read; errors name it as `uri`.

        Raises:
            InvalidRequestError: It contains a loop of links.
            AccessDeniedError: It is outside the allowed roots.
        """
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:
            # Before Python 3.13, a loop of links raises RuntimeError.
            raise InvalidRequestError(
                f"{uri} cannot be resolved: {error}", reason="POOL_URI", uri=uri
            ) from error
        if self.roots is None or any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        raise self._refusal(uri)

    def _refusal(self, uri: str) -> AccessDeniedError:
        allowed = ", ".join([*map(str, self.roots or ()), *self.prefixes])
        return AccessDeniedError(
            f"{uri} is outside the allowed roots "
            f"({allowed or 'none: the server was started without --allow-root'})",
            reason="POOL_NOT_ALLOWED",
            uri=uri,
        )


def _is_below(address: S3Address | WebAddress, prefix: str) -> bool:
    text = str(address)
    if isinstance(address, WebAddress):
        text = text.partition("?")[0]
    return _with_slash(text).startswith(prefix)


def _with_slash(text: str) -> str:
    return text if text.endswith("/") else text + "/"
