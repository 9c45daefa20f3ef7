"""A web server on loopback, whose answers are chosen by each test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """The answers of the server by path, and the requests that it received."""

    root: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Paths, in the order of the requests."""
    connections: set[object] = field(default_factory=set)
    """The clients' addresses and ports."""

    def put(self, path: str, content: bytes, **headers: str) -> str:
        """Serve the content at a path, and return its URL."""
        self.answers[path] = reply(200, content, **headers)
        return self.root + path


def reply(status: int, content: bytes = b"", **headers: str) -> Answer:
    """Return an answer with these headers, named with `_` for `-`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@contextmanager
def web_site() -> Iterator[Site]:
    """Start the server. It answers 404 for a path without an answer."""
    site = Site("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Close connections that a client keeps open, because the server could not stop otherwise.
        timeout = 5

        def do_GET(self) -> None:
            site.asked.append(self.path)
            site.connections.add(self.client_address)
            site.answers.get(self.path, reply(404))(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        # Stopping does not wait for idle connections.
        block_on_close = False
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    site.root = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
