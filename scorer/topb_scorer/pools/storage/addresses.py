"""Parse paths and URIs strictly into addresses, with one canonical form for each file or folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from topb_scorer.errors import InvalidRequestError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRETS = re.compile(r"[?#]")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The characters that RFC 3986 allows in a path and in a query. Existing escapes are kept.
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_QUERY_SAFE = _PATH_SAFE + "?[]|"
_MAX_UNQUOTES = 8


class BaseAddress:
    """The base class of addresses."""

    __slots__ = ()

    @property
    def prefix(self) -> str:
        """The address with a trailing slash, for comparison with allowed roots."""
        return _with_slash(str(self))

    def resolved(self) -> Self:
        """Return the address without links and `..`. S3 and web addresses are resolved when parsed.

        Raises:
            OSError: a local path cannot be resolved.
            RuntimeError: a local path contains a loop of links (before Python 3.13).
        """
        return self


@dataclass(frozen=True, slots=True)
class LocalAddress(BaseAddress):
    """A path on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def resolved(self) -> Self:
        """Return the absolute path without links and `..`."""
        return replace(self, path=self.path.resolve())

    def beside(self, path: str) -> LocalAddress:
        """Return the address of a path that this file contains."""
        return LocalAddress(self.path.parent / path)


@dataclass(frozen=True, slots=True)
class S3Address(BaseAddress):
    """An object or a prefix on S3, without empty, `.` or `..` segments."""

    bucket: str
    key: str
    """The key or prefix without a slash at either end; empty for the whole bucket."""

    def __str__(self) -> str:
        return f"s3://{self.path}"

    @property
    def path(self) -> str:
        """The bucket and the key, in the form that pyarrow takes: `bucket/key`."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def beside(self, path: str) -> LocalAddress | S3Address:
        """Return the address of a path that this file contains. Absolute paths refer to this machine."""
        if path.startswith("/"):
            return LocalAddress(Path(path))
        return _s3_address(f"s3://{self.path.rpartition('/')[0]}/{path}")


@dataclass(frozen=True, slots=True)
class WebAddress(BaseAddress):
    """An http or https URL with a lower-case host and without default port, user, fragment, `.` or `..`."""

    url: str

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def prefix(self) -> str:
        """The URL without its query and with a trailing slash, for comparison with allowed roots."""
        return _with_slash(self.url.partition("?")[0])


StoredAddress = LocalAddress | S3Address
"""An address that can be listed and opened."""
Address = StoredAddress | WebAddress


def shown(uri: str) -> str:
    """Return a path or URI in the form for messages, logs and results, without the secrets of a URL.

    The query of a URL may be a signature, and a password may stand before its host.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() in {"file", "s3"}:
        return uri
    path, *secret = _SECRETS.split(rest, maxsplit=1)
    host, slash, path = path.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?…' if secret else ''}"


def parse_address(uri: str, file: StoredAddress | None = None) -> Address:
    """Parse a path or URI, without resolving links and `..` in local paths.

    Args:
        uri: a path, or a file://, s3://, http:// or https:// URI.
        file: the file that contains `uri`; a relative path is relative to its folder. None for a path
            relative to the working directory.

    Raises:
        InvalidRequestError: `uri` is none of these or is ambiguous (escaped dots, empty segments, a user, …).
    """
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.lower() == "s3":
        return _s3_address(uri)
    if separator and scheme.lower() in _DEFAULT_PORTS:
        return _web_address(uri)
    path = _file_path(uri) if separator else uri
    if not path or "\0" in path:
        raise _refusal(uri, "is not a path or URI")
    return file.beside(path) if file else LocalAddress(Path(path))


def _s3_address(uri: str) -> S3Address:
    # Percent signs, `?` and `#` are part of the key, as in the AWS command line.
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise _refusal(uri, "does not name an S3 bucket")
    if _CONTROL.search(key):
        raise _refusal(uri, "contains control characters")
    key = key.removesuffix("/")
    if key.startswith("/") or "//" in key:
        raise _refusal(uri, "contains an empty segment")
    return S3Address(bucket, _without_dots(uri, key))


def _web_address(uri: str) -> WebAddress:
    # The URL is parsed strictly and rebuilt, so no later parser can read it differently.
    if _CONTROL.search(uri) or "\\" in uri:
        raise _refusal(uri, "contains control characters or backslashes")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise _refusal(uri, "is not a URL") from error
    scheme = parts.scheme.lower()
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if not _HOST.fullmatch(host):
        raise _refusal(uri, "has no valid host; a user or password in a URL is not accepted")
    where = host.lower() if port in (None, _DEFAULT_PORTS[scheme]) else f"{host.lower()}:{port}"
    path = _quoted(_without_dots(uri, parts.path), _PATH_SAFE)
    query = f"?{_quoted(parts.query, _QUERY_SAFE)}" if parts.query else ""
    return WebAddress(f"{scheme}://{where}{path if path.startswith('/') else '/' + path}{query}")


def _quoted(text: str, safe: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", text), safe=safe)


def _without_dots(uri: str, path: str) -> str:
    """Resolve the `.` and `..` segments of `path`, and refuse escaped ones.

    HTTP clients and servers resolve them too, and some decode escapes first.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not any(kept):
                raise _refusal(uri, "leads above the top with `..`")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    resolved = "/".join(kept)
    decoded = resolved
    for _ in range(_MAX_UNQUOTES):
        if any(segment in {".", ".."} for segment in re.split(r"[/\\]", decoded)):
            raise _refusal(uri, "contains escaped `.` or `..` segments")
        before, decoded = decoded, unquote(decoded)
        if before == decoded:
            return resolved
    raise _refusal(uri, f"is escaped more than {_MAX_UNQUOTES} times")


def _file_path(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _refusal(uri, "is not a URI") from error
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise _refusal(uri, "is not a path, a file:// URI of this machine, an s3:// URI or an http(s):// URL")
    if parts.query or parts.fragment:
        raise _refusal(uri, "has a query or fragment; in a file:// URI, write ? as %3F and # as %23")
    return unquote(parts.path)


def _with_slash(text: str) -> str:
    return text if text.endswith("/") else text + "/"


def _refusal(uri: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"{shown(uri)!r} {fault}", reason="POOL_URI", uri=shown(uri))
