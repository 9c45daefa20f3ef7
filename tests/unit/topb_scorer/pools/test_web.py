from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support.images import encode, random_image
from support.web import Site, reply, web_site
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import AllowedRoots, PoolItem, Unreadable, open_pool, web

pytestmark = pytest.mark.scorer

IMAGE = encode(random_image(1))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web, "_PAUSE_SECONDS", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with web_site() as site:
        yield site


def read(urls: list[str], folder: Path, *roots: str, max_bytes: int = 10_000) -> list[bytes | str]:
    """The image at each URL of a list, or the reason why there is none."""
    (folder / "list.csv").write_text("id,path\n" + "".join(f'{i},"{url}"\n' for i, url in enumerate(urls)))
    pool = open_pool(
        str(folder / "list.csv"),
        roots=AllowedRoots.below([folder, *roots]),
        limits=ImageLimits(max_bytes=max_bytes),
    )
    items: list[PoolItem] = [item for shard in pool.shards for item in shard.items()]
    assert [item.id for item in items] == [f"{i}" for i in range(len(urls))]
    return [
        item.image.reason if isinstance(item.image, Unreadable) else bytes(item.image)  # type: ignore[arg-type]
        for item in items
    ]


def test_images_are_fetched_in_order_and_many_at_a_time(site: Site, tmp_path: Path) -> None:
    waiting = threading.Semaphore(0)

    def last(handler: BaseHTTPRequestHandler) -> None:
        waiting.release(20)
        reply(200, b"last")(handler)

    def early(handler: BaseHTTPRequestHandler) -> None:
        assert waiting.acquire(timeout=20)
        reply(200, handler.path.encode())(handler)

    urls = [f"{site.root}/i/{i}" for i in range(10)]
    for i in range(9):
        site.answers[f"/i/{i}"] = early
    site.answers["/i/9"] = last
    expected = [f"/i/{i}".encode() for i in range(9)]
    assert read(urls, tmp_path, f"{site.root}/i/") == [*expected, b"last"]


def test_a_url_is_written_properly_before_it_is_asked_for(site: Site, tmp_path: Path) -> None:
    for path in ("/a%20b/%C3%A9.png", "/a/c.png", "/q?x=1%202&y=/.."):
        site.put(path, IMAGE)
    urls = [f"{site.root}{path}" for path in ("/a b/é.png", "/x/../a/./c.png", "/q?x=1 2&y=/..#part")]
    assert read(urls, tmp_path, site.root) == [IMAGE] * 3


def test_what_lies_outside_the_prefixes_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    host = site.root.removeprefix("http://")
    paths = [
        "/open/../b",
        "/open/%2e%2e/b",
        "/open/%252e%252e/b",
        "/open/..%2fb",
        "/open/..\\b",
        "/open-b",
        "/b",
    ]
    urls = [site.root + path for path in paths]
    urls += [f"http://user@{host}/open/b", f"https://{host}/open/b", f"http://{host}.example.org/open/b"]
    urls += [f"http://example.org@{host}/open/b", "http://[half/open/b", "file:///etc/hostname"]
    assert read(urls, tmp_path, f"{site.root}/open") == ["FILE_NOT_ALLOWED"] * len(urls)
    assert read([f"{site.root}/open/b"], tmp_path) == ["FILE_NOT_ALLOWED"]
    assert site.asked == []


def test_a_redirect_is_followed_within_the_prefixes_and_refused_beyond(site: Site, tmp_path: Path) -> None:
    site.put("/open/a.png", IMAGE)
    site.put("/secret/b.png", IMAGE)
    targets = {
        "/open/1": "/open/a.png",
        "/open/2": f"{site.root}/open/1",
        "/open/3": f"{site.root}/secret/b.png",
        "/open/4": "../secret/b.png",
        "/open/5": "/open/%2e%2e/secret/b.png",
        "/open/6": "http://127.0.0.1:9/open/a.png",
        "/open/7": "file:///etc/hostname",
        "/open/8": "/open/8",
    }
    for path, target in targets.items():
        site.answers[path] = reply(302, Location=target)
    found = read([site.root + path for path in targets], tmp_path, f"{site.root}/open/")
    refused = "FILE_NOT_ALLOWED"
    assert found == [IMAGE, IMAGE, refused, refused, refused, refused, "FILE_UNREADABLE", "FILE_UNREADABLE"]
    assert not any("secret" in path for path in site.asked)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_missing(status: int, site: Site, tmp_path: Path) -> None:
    site.answers["/a"] = reply(status)
    assert read([f"{site.root}/a"], tmp_path, site.root) == ["FILE_MISSING"]
    assert site.asked == ["/a"]


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (403, 1), (500, 3), (503, 3), (429, 3)])
def test_what_may_pass_is_tried_again(status: int, attempts: int, site: Site, tmp_path: Path) -> None:
    site.answers["/a"] = reply(status)
    assert read([f"{site.root}/a"], tmp_path, site.root) == ["FILE_UNREADABLE"]
    assert len(site.asked) == attempts


def test_a_fault_that_passes_leaves_no_trace(site: Site, tmp_path: Path) -> None:
    answers = iter([reply(503), reply(200, IMAGE, Content_Length=str(len(IMAGE) + 5)), reply(200, IMAGE)])
    site.answers["/a"] = lambda handler: next(answers)(handler)
    assert read([f"{site.root}/a"], tmp_path, site.root) == [IMAGE]


def test_no_more_than_the_limit_is_read(site: Site, tmp_path: Path) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        try:
            while sent < 2**28:
                handler.wfile.write(bytes(2**16))
                sent += 2**16
        except OSError:
            pass

    site.answers["/a"] = endless
    site.put("/b", b"x" * 1001)
    site.put("/c", b"x" * 1000)
    urls = [f"{site.root}/{name}" for name in "abc"]
    found = read(urls, tmp_path, site.root, max_bytes=1000)
    assert found == ["IMAGE_TOO_LARGE", "IMAGE_TOO_LARGE", b"x" * 1000]
    assert sent < 2**25


def test_a_server_that_dawdles_is_given_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_SOCKET_SECONDS", 0.2)
    monkeypatch.setattr(web, "_TOTAL_SECONDS", 0.5)
    over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait(10)

    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not over.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass

    site.answers |= {"/silent": silent, "/drips": drips}
    started = time.monotonic()
    try:
        found = read([f"{site.root}/silent", f"{site.root}/drips"], tmp_path, site.root)
    finally:
        over.set()
    assert found == ["FILE_UNREADABLE"] * 2
    assert time.monotonic() - started < 5


def test_a_server_that_is_not_there_is_a_row_with_a_reason(tmp_path: Path, site: Site) -> None:
    assert read(["http://127.0.0.1:9/a"], tmp_path, "http://127.0.0.1:9/") == ["FILE_UNREADABLE"]
