"""Fetching one image of a pool over http or https."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException
from typing import IO

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.locations import Location, WebUrl
from topb_scorer.pools.pool import Unreadable

_SOCKET_SECONDS = 10.0
_TOTAL_SECONDS = 30.0
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5
_PIECE_BYTES = 1 << 16
_GONE = {404, 410}
# The server says itself that another try may do.
_FOR_NOW = {408, 425, 429, 500, 502, 503, 504}

Judge = Callable[[str], Location]
"""What a URL means; raises where it may not be read."""


def fetch(url: WebUrl, judge: Judge, max_bytes: int) -> bytes | Unreadable:
    """What the URL answers with, or why it cannot be had.

    Redirects are followed as far as `judge` allows each. Little more than `max_bytes` is read. What may be a
    passing fault is tried three times, within 30 s in all.
    """
    deadline = time.monotonic() + _TOTAL_SECONDS
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _fetch_once(url, judge, max_bytes, deadline)
        except _RefusedRedirectError as error:
            return Unreadable("FILE_NOT_ALLOWED", f"{url} leads elsewhere: {error}")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _GONE:
                return Unreadable("FILE_MISSING", f"{url}: HTTP {error.code}")
            fault = Unreadable("FILE_UNREADABLE", f"{url}: HTTP {error.code}")
            if error.code not in _FOR_NOW:
                return fault
        except (OSError, HTTPException, ValueError) as error:
            fault = Unreadable("FILE_UNREADABLE", f"{url}: {error or type(error).__name__}")
        if attempt < _ATTEMPTS and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS * attempt)
        else:
            break
    return fault


class _RefusedRedirectError(Exception):
    pass


class _JudgedRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            target = self._judge(newurl)
        except (AccessDeniedError, InvalidRequestError) as error:
            raise _RefusedRedirectError(str(error)) from error
        if not isinstance(target, WebUrl):
            raise _RefusedRedirectError(f"{newurl} is no URL of the web")
        return super().redirect_request(req, fp, code, msg, headers, target.url)  # type: ignore[arg-type]


def _fetch_once(url: WebUrl, judge: Judge, max_bytes: int, deadline: float) -> bytes | Unreadable:
    opener = urllib.request.build_opener(_JudgedRedirects(judge))
    request = urllib.request.Request(url.url, headers={"User-Agent": "topb", "Accept": "image/*,*/*;q=0.5"})
    with opener.open(request, timeout=_SOCKET_SECONDS) as response:
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                return Unreadable("IMAGE_TOO_LARGE", f"{url}: at most {max_bytes} bytes are read")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no whole answer within {_TOTAL_SECONDS:.0f} s")
        promised = response.headers.get("Content-Length")
        if promised is not None and int(promised) != size:
            raise HTTPException(f"{size} bytes came of {promised}")
        return b"".join(pieces)
