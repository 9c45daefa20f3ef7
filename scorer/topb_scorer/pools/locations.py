"""Where a pool's files may stand: on this machine, on S3, or on the web; and how that is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from topb_scorer.errors import InvalidRequestError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What RFC 3986 lets stand in a path and in a query; what is escaped already stays so.
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_QUERY_SAFE = _PATH_SAFE + "?[]|"
_MAX_UNQUOTES = 8


@dataclass(frozen=True, slots=True)
class S3Path:
    """An object, or all below a prefix; without empty, `.` or `..` segments."""

    bucket: str
    key: str
    """Without a slash at either end; empty for the whole bucket."""

    def __str__(self) -> str:
        return f"s3://{self.path}"

    @property
    def path(self) -> str:
        """Bucket and key, as pyarrow takes them."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def name(self) -> str:
        """The last segment."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> S3Path:
        """What the last segment stands below."""
        return S3Path(self.bucket, self.key.rpartition("/")[0])

    def below(self, id_: str) -> S3Path:
        """The object whose key goes on with `id_`, as a listing told it."""
        return S3Path(self.bucket, f"{self.key}/{id_}" if self.key else id_)


@dataclass(frozen=True, slots=True)
class WebUrl:
    """An http or https URL: lower-case host, no default port, user or fragment, no `.` or `..` segments."""

    url: str

    def __str__(self) -> str:
        return self.url


Location = Path | S3Path | WebUrl
Place = Path | S3Path
"""What can be listed and opened."""


def parse_location(uri: str, base: Place | None = None) -> Location:
    """What a path or URI means; a local path is not yet freed of links and `..`.

    Args:
        uri: a path, or a file://, s3://, http:// or https:// URI.
        base: what a relative path starts from; None: the working directory.

    Raises:
        InvalidRequestError: it is none of these.
    """
    if "://" not in uri:
        if isinstance(base, S3Path) and not uri.startswith("/"):
            return _s3_path(f"{base}/{uri}")
        if not uri or "\0" in uri:
            raise _refusal(uri, "is no path or URI")
        return Path(uri) if base is None or isinstance(base, S3Path) else base / uri
    scheme = uri.partition("://")[0].lower()
    if scheme == "s3":
        return _s3_path(uri)
    if scheme in _DEFAULT_PORTS:
        return _web_url(uri)
    return Path(_file_path(uri))


def local_path(uri: str, base: Place | None) -> Path | None:
    """The local path that `uri` means, links and `..` not followed; None where it means no such thing."""
    try:
        location = parse_location(uri, base)
    except InvalidRequestError:
        return None
    return location if isinstance(location, Path) else None


def is_remote(uri: str, base: Place) -> bool:
    """Whether reading it means asking another machine, as far as the text tells."""
    if "://" in uri:
        return not uri[:7].lower().startswith("file://")
    return isinstance(base, S3Path) and not uri.startswith("/")


def _s3_path(uri: str) -> S3Path:
    # Escapes stand for themselves, as for the AWS command line; `?` and `#` are parts of a key.
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise _refusal(uri, "names no S3 bucket")
    if _CONTROL.search(key):
        raise _refusal(uri, "has control characters")
    key = key.removesuffix("/")
    if key.startswith("/") or "//" in key:
        raise _refusal(uri, "has an empty segment")
    return S3Path(bucket, _without_dots(uri, key))


def _web_url(uri: str) -> WebUrl:
    # Read strictly and written anew, so that whoever reads it next cannot read anything else.
    if _CONTROL.search(uri) or "\\" in uri:
        raise _refusal(uri, "has control characters or backslashes")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise _refusal(uri, f"is no URL: {error}") from error
    scheme = parts.scheme.lower()
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if not _HOST.fullmatch(host):
        raise _refusal(uri, "names no host; a user and a password are not taken")
    where = host.lower() if port in (None, _DEFAULT_PORTS[scheme]) else f"{host.lower()}:{port}"
    path = quote(_without_dots(uri, parts.path), safe=_PATH_SAFE)
    query = f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
    return WebUrl(f"{scheme}://{where}{path if path.startswith('/') else '/' + path}{query}")


def _without_dots(uri: str, path: str) -> str:
    """`path` with its `.` and `..` segments followed.

    HTTP clients and servers follow them too, some after undoing escapes: those that are escaped are refused.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not any(kept):
                raise _refusal(uri, "leads out at the top")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    followed = "/".join(kept)
    decoded = followed
    for _ in range(_MAX_UNQUOTES):
        if any(segment in {".", ".."} for segment in re.split(r"[/\\]", decoded)):
            raise _refusal(uri, "has escaped `.` or `..` segments")
        before, decoded = decoded, unquote(decoded)
        if before == decoded:
            return followed
    raise _refusal(uri, "is escaped over and over")


def _file_path(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _refusal(uri, f"is no URI: {error}") from error
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise _refusal(uri, "is no path, file:// URI of this machine, s3:// URI or http(s):// URL")
    if parts.query or parts.fragment:
        raise _refusal(uri, "has a query or a fragment, which no file has; write ? as %3F and # as %23")
    path = unquote(parts.path)
    if not path or "\0" in path:
        raise _refusal(uri, "is no path or URI")
    return path


def _refusal(uri: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"{uri!r} {fault}", reason="POOL_URI", uri=uri)
