"""Collect metrics of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from topb.results import SelectionResult
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.run import Outcome, Run, RunObserver
from topb_scorer.pools.pool import Shard
from topb_scorer.service.interceptors import Context

_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_SELECTION_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)


class Metrics(RunObserver):
    """The metrics of one server. It observes the host that runs the selections."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Info("topb_server", "The server.", registry=self.registry).info({"version": metadata.version("topb")})
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._call_seconds = histogram(
            "topb_call_seconds",
            "Time from the request to the last response of a call, by method and status code.",
            ["method", "code"],
            buckets=_CALL_SECONDS,
        )
        self._rows = counter(
            "topb_rows", "Rows of pools that selections have scored or found in the score log."
        )
        self._committed = counter(
            "topb_rows_committed", "Rows that were scored and committed to the score log."
        )
        self._encoded = counter(
            "topb_rows_encoded", "Rows whose images were read and encoded; the features of others were kept."
        )
        self._skipped = counter(
            "topb_rows_skipped", "Rows that successful selections skipped, by reason.", ["reason"]
        )
        self._ended = counter(
            "topb_selections_ended",
            "Selections that stopped running here, by strategy, outcome and error reason.",
            ["strategy", "outcome", "reason"],
        )
        self._selection_seconds = histogram(
            "topb_selection_seconds",
            "Running time of successful selections on this server, by strategy.",
            ["strategy"],
            buckets=_SELECTION_SECONDS,
        )

    def watch(self, host: SelectionHost) -> None:
        """Add gauges for the selections that the host runs."""
        gauge = partial(Gauge, registry=self.registry)
        running = gauge("topb_selections_running", "Selections that are running on this server.")
        running.set_function(lambda: host.running_count)
        waiting = gauge("topb_selections_waiting", "Selections that wait for this server, in its queue.")
        waiting.set_function(lambda: host.waiting_count)
        limit = gauge("topb_selections_limit", "Selections that may run on this server at once.")
        limit.set(host.max_concurrent)
        draining = gauge("topb_draining", "1 if the server does not accept selections any more.")
        draining.set_function(lambda: host.draining)

    def on_rows(self, count: int) -> None:
        """Count rows of a pool."""
        self._rows.inc(count)

    def on_encoded(self, count: int) -> None:
        """Count rows whose images were read."""
        self._encoded.inc(count)

    def on_commit(self, shard: Shard) -> None:
        """Count the rows of a shard."""
        self._committed.inc(shard.rows)

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        """Count a run that has ended."""
        strategy = run.record.strategy
        self._ended.labels(strategy, outcome, reason).inc()
        if result is not None:
            self._selection_seconds.labels(strategy).observe(run.progress.elapsed_seconds)
            for skip_reason, count in result.accounts.skipped.items():
                self._skipped.labels(skip_reason).inc(count)

    @asynccontextmanager
    async def timed(self, method: str, context: Context) -> AsyncIterator[None]:
        """Measure the duration of a call."""
        started, code = time.perf_counter(), grpc.StatusCode.OK.name
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED.name
            raise
        except BaseException:
            code = getattr(context.code(), "name", grpc.StatusCode.UNKNOWN.name)
            raise
        finally:
            self._call_seconds.labels(method, code).observe(time.perf_counter() - started)
