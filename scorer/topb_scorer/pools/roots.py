"""Which paths and URIs a scorer may read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.locations import Location, Place, S3Path, WebUrl, parse_location


@dataclass(frozen=True)
class AllowedRoots:
    """Directories, links and `..` followed first, and S3 and web prefixes, below which all may be read."""

    roots: tuple[Path, ...] | None
    """Directories; None: anything may be read, anywhere."""
    prefixes: tuple[str, ...] = ()
    """s3://bucket/key/ and https://host/path/, each with a slash at its end."""

    @classmethod
    def anywhere(cls) -> AllowedRoots:
        """No limit: for callers that read with their own rights."""
        return cls(None)

    @classmethod
    def below(cls, roots: Iterable[str | Path]) -> AllowedRoots:
        """Only what lies below one of `roots`: directories, s3://bucket[/key] or http(s)://host[/path].

        Raises:
            InvalidRequestError: one of them is none of these, or is a URL with a query.
        """
        directories: list[Path] = []
        prefixes: list[str] = []
        for root in roots:
            location = parse_location(str(root))
            if isinstance(location, Path):
                directories.append(location.resolve())
                continue
            if isinstance(location, WebUrl) and "?" in location.url:
                raise InvalidRequestError(
                    f"{root}: an allowed root has no query", reason="ROOT_INVALID", root=root
                )
            prefixes.append(_with_slash(str(location)))
        return cls(tuple(directories), tuple(prefixes))

    def path_of(self, uri: str) -> Path:
        """The absolute path, free of links, that a path or file:// URI means.

        Raises:
            InvalidRequestError: the URI is empty or of another scheme.
            AccessDeniedError: it lies outside the allowed roots.
        """
        location = parse_location(uri)
        if not isinstance(location, Path):
            raise InvalidRequestError(
                f"{uri}: only paths and file:// URIs of this machine are read here",
                reason="POOL_URI",
                uri=uri,
            )
        return self._allowed_path(uri, location)

    def location_of(self, uri: str, base: Place | None = None) -> Location:
        """What a path or URI means; a local path is absolute and free of links.

        Args:
            uri: a path, or a file://, s3://, http:// or https:// URI.
            base: what a relative path starts from; None: the working directory.

        Raises:
            InvalidRequestError: it is none of these.
            AccessDeniedError: it lies outside the allowed roots.
        """
        location = parse_location(uri, base)
        if isinstance(location, Path):
            return self._allowed_path(uri, location)
        if self.roots is None or any(_lies_below(location, prefix) for prefix in self.prefixes):
            return location
        raise self._refusal(uri)

    def place_of(self, uri: str) -> Place:
        """What a path, file:// or s3:// URI means: something that can be listed or opened.

        Raises:
            InvalidRequestError: it is none of these.
            AccessDeniedError: it lies outside the allowed roots.
        """
        location = self.location_of(uri)
        if isinstance(location, WebUrl):
            raise InvalidRequestError(
                f"{uri}: only the images in a list are read over http; the list is a path or an s3:// URI",
                reason="POOL_URI",
                uri=uri,
            )
        return location

    def _allowed_path(self, uri: str, path: Path) -> Path:
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:
            # RuntimeError is what a loop of links is before Python 3.13.
            raise InvalidRequestError(f"{uri} leads nowhere: {error}", reason="POOL_URI", uri=uri) from error
        if self.roots is None or any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        raise self._refusal(uri)

    def _refusal(self, uri: str) -> AccessDeniedError:
        allowed = ", ".join([*map(str, self.roots or ()), *self.prefixes])
        return AccessDeniedError(
            f"{uri} lies outside the allowed roots "
            f"({allowed or 'none; the server was started without --allow-root'})",
            reason="POOL_NOT_ALLOWED",
            uri=uri,
        )


def _lies_below(location: S3Path | WebUrl, prefix: str) -> bool:
    without_query = str(location).partition("?")[0] if isinstance(location, WebUrl) else str(location)
    return _with_slash(without_query).startswith(prefix)


def _with_slash(text: str) -> str:
    return text if text.endswith("/") else text + "/"
