from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.pools import ANYWHERE, IMAGE, items, reasons
from support.web import Site, reply, web_site
from topb_scorer.pools import AllowedRoots, PoolItem, Unreadable
from topb_scorer.pools.storage.web import Patience, WebStore

pytestmark = pytest.mark.scorer

BRIEF = Patience(socket_seconds=0.2, total_seconds=0.5, pause_seconds=0.01)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with web_site() as site:
        yield site


def store_of(
    site: Site, patience: Patience = BRIEF, *, below: str = "/", max_bytes: int = 10_000
) -> WebStore:
    return WebStore(AllowedRoots.below([site.root + below]), max_bytes, patience)


def image_or_reason(found: bytes | Unreadable) -> bytes | str:
    return found.reason if isinstance(found, Unreadable) else found


def fetch(site: Site, path: str, patience: Patience = BRIEF, **options: Any) -> bytes | str:
    return image_or_reason(store_of(site, patience, **options).fetch(site.root + path))


def write_list(folder: Path, urls: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("id,path\n" + "".join(f'{i},"{url}"\n' for i, url in enumerate(urls)))
    return path


def test_images_are_fetched_concurrently_and_returned_in_order(site: Site, tmp_path: Path) -> None:
    waiting = threading.Semaphore(0)

    def last(handler: BaseHTTPRequestHandler) -> None:
        waiting.release(20)
        reply(200, b"last")(handler)

    def early(handler: BaseHTTPRequestHandler) -> None:
        assert waiting.acquire(timeout=20)
        reply(200, handler.path.encode())(handler)

    for i in range(9):
        site.answers[f"/i/{i}"] = early
    site.answers["/i/9"] = last
    path = write_list(tmp_path, [f"{site.root}/i/{i}" for i in range(10)])
    expected = [PoolItem(f"{i}", f"/i/{i}".encode()) for i in range(9)]
    assert items(path) == [*expected, PoolItem("9", b"last")]


def test_a_url_is_normalised_before_it_is_requested(site: Site, tmp_path: Path) -> None:
    paths = {
        "/a b/é.png": "/a%20b/%C3%A9.png",
        "/x/../a/./c.png": "/a/c.png",
        "/q?x=1 2&y=/..#part": "/q?x=1%202&y=/..",
        "/100%/a%20b.png?50%": "/100%25/a%20b.png?50%25",
    }
    for asked in paths.values():
        site.put(asked, IMAGE)
    read = items(write_list(tmp_path, [site.root + path for path in paths]))
    assert [item.image for item in read] == [IMAGE] * len(paths)


def test_urls_outside_the_allowed_prefixes_are_not_requested(site: Site, tmp_path: Path) -> None:
    host = site.root.removeprefix("http://")
    paths = ["open/../b", "open/%2e%2e/b", "open/%252e%252e/b", "open/..%2fb", "open/..\\b", "open-b", "b"]
    urls = [f"{site.root}/{path}" for path in paths]
    urls += [f"http://user@{host}/open/b", f"https://{host}/open/b", f"http://{host}.example.org/open/b"]
    urls += [f"http://example.org@{host}/open/b", "http://[half/open/b", "file:///etc/hostname"]
    roots = AllowedRoots.below([tmp_path, f"{site.root}/open"])
    assert set(reasons(write_list(tmp_path, urls), roots=roots).values()) == {"FILE_NOT_ALLOWED"}
    inside = write_list(tmp_path, [f"{site.root}/open/b"])
    assert reasons(inside, roots=AllowedRoots.below([tmp_path])) == {"0": "FILE_NOT_ALLOWED"}
    assert site.asked == []


@pytest.mark.parametrize(
    ("expected", "targets"),
    [
        (IMAGE, ["/open/a.png", "a.png", "{root}/open/hop", "é ü.png", "%C3%A9%20%C3%BC.png"]),
        ("FILE_NOT_ALLOWED", ["{root}/secret/b.png", "../secret/b.png", "/open/out"]),
        ("FILE_NOT_ALLOWED", ["/open/%2e%2e/secret/b.png", "http:///etc/hostname"]),
        ("FILE_NOT_ALLOWED", ["//example.org/open/a.png", "http://127.0.0.1:9/open/a.png"]),
        ("FILE_UNREADABLE", ["file:///etc/hostname", "/open/start", "https:open/a.png"]),
        ("FILE_UNREADABLE", ["http://[half/open/a.png"]),
    ],
)
def test_each_hop_of_a_redirect_is_checked_against_the_roots(
    expected: bytes | str, targets: list[str], site: Site
) -> None:
    for path in ("/open/a.png", "/open/%C3%A9%20%C3%BC.png", "/secret/b.png"):
        site.put(path, IMAGE)
    site.answers["/open/hop"] = reply(302, Location="/open/a.png")
    site.answers["/open/out"] = reply(302, Location="/secret/b.png")
    for target in targets:
        location = target.format(root=site.root).encode().decode("latin-1")
        for status in (301, 302, 303, 307, 308):
            site.answers["/open/start"] = reply(status, Location=location)
            site.asked.clear()
            assert fetch(site, "/open/start", below="/open/") == expected, (target, status)
            assert "/secret/b.png" not in site.asked
            assert len(site.asked) <= 6


@pytest.mark.parametrize(
    ("status", "reason", "attempts"),
    [
        *((status, "FILE_MISSING", 1) for status in (404, 410)),
        *((status, "FILE_UNREADABLE", 1) for status in (304, 401, 403)),
        *((status, "FILE_UNREADABLE", 3) for status in (429, 500, 503)),
    ],
)
def test_temporary_faults_are_retried(status: int, reason: str, attempts: int, site: Site) -> None:
    site.answers["/a"] = reply(status)
    assert fetch(site, "/a") == reason
    assert site.asked == ["/a"] * attempts


def test_a_temporary_fault_does_not_change_the_result(site: Site) -> None:
    answers = iter([reply(503), reply(200, IMAGE, Content_Length=str(len(IMAGE) + 5)), reply(200, IMAGE)])

    def next_answer(handler: BaseHTTPRequestHandler) -> None:
        next(answers)(handler)
        handler.close_connection = True

    site.answers["/a"] = next_answer
    assert fetch(site, "/a") == IMAGE


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_a_retry_waits_as_long_as_the_web_server_asks(kind: str, site: Site) -> None:
    asked_at: list[float] = []

    def busy_once(handler: BaseHTTPRequestHandler) -> None:
        asked_at.append(time.time())
        later = email.utils.formatdate(time.time() + 2, usegmt=True)
        busy = reply(503, Retry_After="1" if kind == "seconds" else later)
        (busy if len(asked_at) == 1 else reply(200, IMAGE))(handler)

    site.answers["/a"] = busy_once
    assert fetch(site, "/a", Patience(pause_seconds=0.01)) == IMAGE
    assert asked_at[1] - asked_at[0] >= 0.9


@pytest.mark.parametrize(("retry_after", "attempts"), [("3600", 1), ("soon", 3)])
def test_no_retry_waits_beyond_the_total_time(retry_after: str, attempts: int, site: Site) -> None:
    site.answers["/a"] = reply(503, Retry_After=retry_after)
    assert fetch(site, "/a") == "FILE_UNREADABLE"
    assert len(site.asked) == attempts


def test_connections_are_reused(site: Site) -> None:
    site.put("/a", IMAGE)
    site.answers["/r"] = reply(302, b"over there", Location="/a")
    store = store_of(site, Patience())
    for path in ("/a", "/r", "/none", "/a"):
        store.fetch(site.root + path)
    assert site.asked == ["/a", "/r", "/a", "/none", "/a"]
    assert len(site.connections) == 1


def test_a_response_is_read_only_up_to_the_size_limit(site: Site) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        try:
            while sent < 2**28:
                handler.wfile.write(bytes(2**16))
                sent += 2**16
        except OSError:
            pass

    site.answers["/endless"] = endless
    site.put("/over", b"x" * 1001)
    site.put("/exact", b"x" * 1000)
    assert fetch(site, "/exact", Patience(), max_bytes=1000) == b"x" * 1000
    for path in ("/over", "/endless"):
        assert fetch(site, path, Patience(), max_bytes=1000) == "IMAGE_TOO_LARGE"
    assert sent < 2**25


def test_a_compressed_answer_is_not_decompressed(site: Site) -> None:
    site.put("/a", IMAGE, Content_Encoding="gzip")
    assert fetch(site, "/a") == IMAGE


@pytest.mark.parametrize("answer", ["silent", "drips"])
def test_a_slow_web_server_times_out(answer: str, site: Site) -> None:
    over = threading.Event()

    def dawdle(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        if answer == "drips":
            handler.send_response(200)
            handler.end_headers()
        try:
            while not over.wait(0.05):
                if answer == "drips":
                    handler.wfile.write(b"x")
        except OSError:
            pass

    site.answers["/a"] = dawdle
    started = time.monotonic()
    try:
        assert fetch(site, "/a") == "FILE_UNREADABLE"
    finally:
        over.set()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a", "http://a..b/a", f"http://{'x' * 70}.example/a"])
def test_a_server_that_does_not_exist_is_a_row_with_a_reason(url: str) -> None:
    assert image_or_reason(WebStore(ANYWHERE, 1000, BRIEF).fetch(url)) == "FILE_UNREADABLE"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_from_the_environment_is_used(
    scheme: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorizations: list[str | None] = []

    def proxied(handler: BaseHTTPRequestHandler) -> None:
        authorizations.append(handler.headers.get("Proxy-Authorization"))
        reply(200, IMAGE)(handler)

    url = "http://images.example/a.png"
    site.answers[url] = proxied
    monkeypatch.setenv("http_proxy", site.root.replace("http://", f"{scheme}me:s%65cret@"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert WebStore(ANYWHERE, 10_000, BRIEF).fetch(url) == IMAGE
    assert authorizations == ["Basic bWU6c2VjcmV0"]
    site.put("/direct", IMAGE)
    assert fetch(site, "/direct") == IMAGE


def test_no_account_of_a_list_shows_the_query_of_a_url(site: Site, tmp_path: Path) -> None:
    """The query of a signed URL gives access to the image to whoever reads it in a result."""
    site.answers["/broken"] = reply(500, b"")
    site.answers["/large"] = reply(200, bytes(20_000_000))
    site.answers["/elsewhere"] = reply(302, b"", Location="ftp://host/?secret")
    paths = ["/gone", "/broken", "/large", "/elsewhere"]
    path = write_list(tmp_path, [f"{site.root}{path}?secret" for path in paths])
    with path.open("a") as file:
        file.write(f",{site.root}/a?secret\nx,{site.root}/a?secret,more\n7,http://[/?secret\n")
    found = items(path)
    assert len(found) == 7
    for item in found:
        assert isinstance(item.image, Unreadable)
        assert "secret" not in f"{item.id} {item.image.reason} {item.image.detail}"
