"""What a server counts, for Prometheus to fetch over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from importlib import metadata
from typing import Any

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from topb.results import SelectionResult
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.run import Outcome, Run
from topb_scorer.pools.pool import Shard
from topb_scorer.service.errors import Context

_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_SELECTION_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_COUNTED_SERVICES = "/topb."
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}

Handler = Any
"""grpc's RpcMethodHandler, whose stubs know only the synchronous one."""


class Metrics:
    """The metrics of one server, in a registry of its own; tells of selections as their host's observer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Info("topb_server", "The server.", registry=self.registry).info({"version": metadata.version("topb")})
        self._call_seconds = Histogram(
            "topb_call_seconds",
            "How long calls took, from the request to the last response, by method and status code.",
            ["method", "code"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self._rows = Counter(
            "topb_rows",
            "Rows of pools that selections have done: scored, or found in the score log.",
            registry=self.registry,
        )
        self._committed = Counter(
            "topb_rows_committed", "Rows newly scored, and durable.", registry=self.registry
        )
        self._skipped = Counter(
            "topb_rows_skipped",
            "Rows that finished selections have skipped, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._ended = Counter(
            "topb_selections_ended",
            "Selections that stopped running here, by strategy, outcome and, of an error, its reason.",
            ["strategy", "outcome", "reason"],
            registry=self.registry,
        )
        self._selection_seconds = Histogram(
            "topb_selection_seconds",
            "How long selections that succeeded ran here, by strategy.",
            ["strategy"],
            buckets=_SELECTION_SECONDS,
            registry=self.registry,
        )

    def watch(self, host: SelectionHost) -> None:
        """Tells from now on what runs on the host."""
        running = Gauge("topb_selections_running", "Selections that run here now.", registry=self.registry)
        running.set_function(lambda: host.running)
        most = Gauge("topb_selections_limit", "How many may run at once.", registry=self.registry)
        most.set(host.max_concurrent)
        draining = Gauge("topb_draining", "1 once nothing is taken on any more.", registry=self.registry)
        draining.set_function(lambda: host.draining)

    def serve(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Answers `GET /metrics` on a thread of its own; returns the port, and what ends that.

        Raises:
            OSError: the address cannot be listened on.
        """
        server, thread = start_http_server(port, host, self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, stop

    def on_rows(self, count: int) -> None:
        """Rows were done."""
        self._rows.inc(count)

    def on_commit(self, shard: Shard) -> None:
        """A shard was scored, and is durable."""
        self._committed.inc(shard.rows)

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        """A selection stopped running here."""
        strategy = run.record.strategy
        self._ended.labels(strategy, outcome, reason).inc()
        if result is not None:
            self._selection_seconds.labels(strategy).observe(run.elapsed_seconds)
            for skip_reason, count in result.accounts.skipped.items():
                self._skipped.labels(skip_reason).inc(count)

    @contextmanager
    def call(self, method: str, context: Context) -> Iterator[None]:
        """Times a call."""
        started, code = time.perf_counter(), grpc.StatusCode.OK.name
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED.name
            raise
        except BaseException:
            code = _name_of(context.code())
            raise
        finally:
            self._call_seconds.labels(method, code).observe(time.perf_counter() - started)


def _name_of(code: Any) -> str:
    """Of a status code: grpc.aio gives its number, though its stubs promise the member."""
    return _CODES.get(code, getattr(code, "name", grpc.StatusCode.UNKNOWN.name))


class CallTimer(grpc.aio.ServerInterceptor):
    """Times the calls of topb's own services."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Returns the handler, timed."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_COUNTED_SERVICES):
            return handler
        if handler.response_streaming:
            return self._streaming(handler, method)
        return self._unary(handler, method)

    def _unary(self, handler: Handler, method: str) -> Handler:
        answer = handler.unary_unary

        async def timed(request: Any, context: Context) -> Any:
            with self._metrics.call(method, context):
                return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            timed, handler.request_deserializer, handler.response_serializer
        )

    def _streaming(self, handler: Handler, method: str) -> Handler:
        answer = handler.stream_stream if handler.request_streaming else handler.unary_stream
        wrapped = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )

        async def timed(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._metrics.call(method, context):
                async with aclosing(answer(request, context)) as responses:
                    async for response in responses:
                        yield response

        return wrapped(timed, handler.request_deserializer, handler.response_serializer)
