"""Serve metrics over HTTP to Prometheus, on the event loop.

A connection takes no thread. It is closed if it sends no request in time, or if it is the oldest of too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, make_wsgi_app

_MAX_CONNECTIONS = 100
_REQUEST_SECONDS = 5.0


class MetricsPort:
    """An HTTP server of one registry. Each connection is for one request."""

    def __init__(self, registry: CollectorRegistry, *, request_seconds: float = _REQUEST_SECONDS) -> None:
        """Create the server.

        Args:
            registry: the metrics.
            request_seconds: how long a connection may take to send its request, and to read the answer.
        """
        self._app = make_wsgi_app(registry)
        self._request_seconds = request_seconds
        self._open: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the address cannot be listened on.
            OverflowError: the port is not a port.
        """
        self._server = await asyncio.start_server(self._serve, host or None, port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more, if the server listens at all."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _MAX_CONNECTIONS:
            # The latest may be an honest one, which others could otherwise keep out by silence.
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        answering = asyncio.create_task(self._answer(reader, writer))
        self._open[answering] = None
        try:
            # The connection may make room for another, be slow, send too much or be lost.
            with suppress(asyncio.CancelledError, OSError, EOFError, asyncio.LimitOverrunError):
                await asyncio.wait_for(answering, self._request_seconds)
        finally:
            self._open.pop(answering, None)
            # Not close(), which would wait for a reader that reads nothing.
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        writer.write(await asyncio.to_thread(self._response, head))
        await writer.drain()

    def _response(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        method, target, *_ = [*request.split(" "), "", ""]
        parts = urlsplit(target)
        environ = {"REQUEST_METHOD": method, "PATH_INFO": parts.path, "QUERY_STRING": parts.query}
        for line in lines:
            name, _, value = line.partition(":")
            environ[f"HTTP_{name.strip().upper().replace('-', '_')}"] = value.strip()
        answer: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[..., object]:
            answer[:] = [status, *(f"{name}: {value}" for name, value in headers)]
            return len

        content = b"".join(self._app(environ, start_response))
        status, *headers = answer
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}", "Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
