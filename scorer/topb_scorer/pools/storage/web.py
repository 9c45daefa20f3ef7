"""Fetch images over http and https."""

from __future__ import annotations

import string
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry, make_headers, parse_url

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.storage.addresses import WebAddress, shown
from topb_scorer.pools.storage.roots import AllowedRoots

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_GONE = {404, 410}
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
# Connections per host: more than one shard reads at once, because shards may be read in parallel.
_KEPT_CONNECTIONS = 64
_PIECE_BYTES = 1 << 16
_HEADERS = {"User-Agent": "topb", "Accept": "image/*,*/*;q=0.5"}


@dataclass(frozen=True)
class Patience:
    """The timeouts and the number of attempts of a download."""

    socket_seconds: float = 10.0
    """Timeout of connecting and of each read."""
    total_seconds: float = 30.0
    """Timeout of all attempts together, including the pauses between them."""
    attempts: int = 3
    pause_seconds: float = 0.5
    """Pause before the second attempt, unless the server sends Retry-After. The next is twice as long."""


@dataclass(frozen=True)
class WebStore:
    """An HTTP client with pools of connections. Threads can share an instance."""

    roots: AllowedRoots
    max_bytes: int
    """The size of the largest image that is read, in bytes."""
    patience: Patience = field(default_factory=Patience)
    _clients: dict[str | None, urllib3.PoolManager] = field(default_factory=dict, init=False, repr=False)
    """Clients by the URL of their proxy; None for the client without a proxy."""

    def fetch(self, url: str) -> bytes | Unreadable:
        """Return the body of the response, or the reason why there is none.

        Redirects are followed if the allowed roots contain each target. Temporary faults are retried within
        the total time, after the pause given by the server's Retry-After header, if there is one.
        """
        deadline = time.monotonic() + self.patience.total_seconds
        attempt = 1
        while True:
            try:
                return self._fetch_once(url, deadline)
            except (HTTPError, OSError) as error:
                wanted = error.pause if isinstance(error, _TemporaryError) else None
                pause = self.patience.pause_seconds * attempt if wanted is None else wanted
                if attempt == self.patience.attempts or time.monotonic() + pause >= deadline:
                    return Unreadable(
                        "FILE_UNREADABLE", f"{shown(url)}: {str(error) or type(error).__name__}"
                    )
            time.sleep(pause)
            attempt += 1

    def _fetch_once(self, url: str, deadline: float) -> bytes | Unreadable:
        asked = url
        for _ in range(_MAX_REDIRECTS + 1):
            with self._ask(asked, deadline) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or target is None:
                    return self._outcome(url, response, deadline)
                _release(response)
            try:
                asked = self._target(asked, target).url
            except ValueError as error:
                return Unreadable("FILE_UNREADABLE", f"{shown(url)} redirects to {shown(target)}: {error}")
            except (AccessDeniedError, InvalidRequestError) as error:
                return Unreadable("FILE_NOT_ALLOWED", f"{shown(url)} redirects elsewhere: {error}")
        return Unreadable("FILE_UNREADABLE", f"{shown(url)} redirects more than {_MAX_REDIRECTS} times")

    def _target(self, url: str, target: str) -> WebAddress:
        address = self.roots.allowed_address(_redirected(url, target))
        assert isinstance(address, WebAddress)
        return address

    def _ask(self, url: str, deadline: float) -> urllib3.BaseHTTPResponse:
        seconds = max(min(self.patience.socket_seconds, deadline - time.monotonic()), 0.001)
        return self._client_for(url).request(
            "GET",
            url,
            headers=_HEADERS,
            timeout=urllib3.Timeout(connect=seconds, read=seconds),
            # The callers count attempts and check the target of each redirect.
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _outcome(self, url: str, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes | Unreadable:
        fault = f"HTTP {response.status}"
        if response.status in _GONE:
            _release(response)
            return Unreadable("FILE_MISSING", f"{shown(url)}: {fault}")
        if response.status in _TEMPORARY:
            raise _TemporaryError(fault, _retry_after(response))
        if not 200 <= response.status < 300:
            return Unreadable("FILE_UNREADABLE", f"{shown(url)}: {fault}")
        content = bytearray()
        # read1 returns what has arrived, so the deadline also holds if a server sends one byte at a time.
        while piece := response.read1(_PIECE_BYTES, decode_content=False):
            content += piece
            if len(content) > self.max_bytes:
                return Unreadable("IMAGE_TOO_LARGE", f"{shown(url)} has more than {self.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise _TemporaryError(f"no complete response within {self.patience.total_seconds:.0f} s")
        return bytes(content)

    def _client_for(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        is_direct = urllib.request.proxy_bypass(parts.netloc)
        proxy = None if is_direct else urllib.request.getproxies().get(parts.scheme)
        if proxy not in self._clients:
            self._clients.setdefault(proxy, _client(proxy))
        return self._clients[proxy]


class _TemporaryError(HTTPError):
    """An attempt failed, but a later one may succeed."""

    def __init__(self, fault: str, pause: float | None = None) -> None:
        super().__init__(fault)
        self.pause = pause


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    with suppress(InvalidHeader):
        return Retry().get_retry_after(response)
    return None


def _release(response: urllib3.BaseHTTPResponse) -> None:
    """Read the rest of a short response, so that its connection can be reused."""
    if response.length_remaining is not None:
        with suppress(HTTPError):
            response.read1(_PIECE_BYTES, decode_content=False)


def _redirected(url: str, target: str) -> str:
    # urllib3 decodes headers as Latin-1, and characters outside ASCII are not escaped yet.
    joined = urljoin(url, quote(target, safe=string.punctuation, encoding="latin-1"))
    if not joined.lower().startswith(("http://", "https://")):
        raise ValueError("expected an http or https URL")
    return joined


def _client(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(maxsize=_KEPT_CONNECTIONS)
    parts = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
    url = parts._replace(auth=None).url
    return urllib3.ProxyManager(url, maxsize=_KEPT_CONNECTIONS, proxy_headers=headers)
