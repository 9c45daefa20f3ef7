"""Start a gRPC server, serve requests, and drain the server."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from topb.v1 import model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc
from topb_scorer.engines.cache import EngineCache
from topb_scorer.errors import NotFoundError
from topb_scorer.geometry.nearest_labelled import check_search_device
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service.admission import Admission
from topb_scorer.service.errors import errors_as_status
from topb_scorer.service.interceptors import AroundCalls, RowLimit
from topb_scorer.service.listening import check_free, host_and_port, listen_failed
from topb_scorer.service.metrics import Metrics
from topb_scorer.service.metrics_port import MetricsPort
from topb_scorer.service.model_service import ModelService
from topb_scorer.service.selection_service import SelectionService
from topb_scorer.service.settings import ServerSettings

_log = logging.getLogger(__name__)

SELECTION_SERVICE = selection_pb2.DESCRIPTOR.services_by_name["SelectionService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

_CANCEL_SECONDS = 5.0
_WAITING_THREADS = 64
# The minimum interval between pings from a client. gRPC's default of five minutes is too long: proxies close
# silent connections earlier, and callers should notice sooner that their server is gone. The SDK pings every
# 30 s, and sometimes slightly earlier.
_PING_SECONDS = 20
_PONG_SECONDS = 20.0


class Server:
    """A gRPC server. Call `start` to serve requests, and `drain` to stop."""

    def __init__(self, settings: ServerSettings) -> None:
        """Open the state directory and load the default model, to detect faults before serving.

        Raises:
            ScorerError: the models, a device, the state directory or the catalog cannot be used.
            OSError: the state directory cannot be written to.
        """
        check_search_device(settings.selecting.search_device)
        self._settings = settings
        self._models = ModelCatalog(settings.models, default_model=settings.default_model)
        self._engines = EngineCache(settings.engine)
        try:
            self._engines.get(self._models.get(""))
        except NotFoundError as error:
            _log.warning("%s", error)
        self._open = ExitStack()
        directory = settings.state
        if directory is None:
            directory = Path(self._open.enter_context(TemporaryDirectory(prefix="topb-state-")))
            _log.warning("no --state given: scores and results are lost when the server stops")
        self._state = StateDirectory.open(directory, settings.catalog_url)
        self._open.callback(self._state.catalog.close)
        self._metrics = Metrics()
        self._admission = Admission(settings, self._models, self._engines, self._state)
        self._host = SelectionHost(
            self._state,
            self._admission.job_of,
            owner=f"{socket.gethostname()[:24]}-{os.getpid()}-{secrets.token_hex(4)}",
            max_concurrent=settings.max_concurrent_selections,
            lease_seconds=settings.lease_seconds,
            keep_paused_days=settings.keep_paused_days,
            selecting=settings.selecting,
            observer=self._metrics,
        )
        self._metrics.watch(self._host)
        self._metrics_port = MetricsPort(self._metrics.registry)

    async def start(self) -> int:
        """Start serving, report SERVING, and return the port.

        Raises:
            ListenError: an address is in use or is not an address of this machine.
        """
        settings = self._settings
        if settings.metrics_listen:
            await self._serve_metrics(settings.metrics_listen)
        pong_ms = round(min(_PONG_SECONDS, settings.keepalive_seconds) * 1000)
        self._server = grpc.aio.server(
            # The timer is outermost, so that it sees the status into which an error is translated.
            interceptors=[
                AroundCalls(self._metrics.timed),
                AroundCalls(errors_as_status, services="/", limits=_row_limits(settings)),
            ],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Otherwise two servers could listen on one port and receive connections at random.
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_SECONDS * 1000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)),
                # gRPC 1.85 waits for the answer as long as the second option says, by default for 60 s.
                ("grpc.keepalive_timeout_ms", pong_ms),
                ("grpc.http2.ping_timeout_ms", pong_ms),
                # By default, the server stops to ping after two pings without data.
                ("grpc.http2.max_pings_without_data", 0),
            ],
        )
        selection = SelectionService(
            settings, self._models, self._engines, self._state, self._host, self._admission
        )
        selection_pb2_grpc.add_SelectionServiceServicer_to_server(selection, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self._models), self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        services = (SELECTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)
        try:
            check_free(settings.listen)
            port = self._server.add_insecure_port(settings.listen)
        except (OSError, RuntimeError) as error:
            raise listen_failed(settings.listen, error, option="--listen") from error
        await self._server.start()
        for service in ("", SELECTION_SERVICE, MODEL_SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._taking_up = asyncio.create_task(self._take_up())
        return port

    async def drain(self) -> None:
        """Stop the server.

        The server reports NOT_SERVING and refuses new selections. Running selections may continue for the
        grace period. Then they are interrupted, and their callers receive UNAVAILABLE.
        """
        await self._health.enter_graceful_shutdown()
        self._taking_up.cancel()
        await asyncio.to_thread(self._host.drain, self._settings.grace_seconds)
        await asyncio.to_thread(self._host.interrupt)
        await self._server.stop(_CANCEL_SECONDS)
        self._metrics_port.close()
        await asyncio.to_thread(self._open.close)

    async def _serve_metrics(self, listen: str) -> None:
        try:
            host, port = host_and_port(listen)
            taken = await self._metrics_port.start(host, port)
        except (OSError, ValueError, OverflowError) as error:
            raise listen_failed(listen, error, option="--metrics-listen", purpose=" for metrics") from error
        _log.info("metrics: http://%s:%d/metrics", host, taken)

    async def _take_up(self) -> None:
        """Regularly start selections that need a server, and end those whose callers do not come back."""
        while True:
            await asyncio.to_thread(self._host.take_up)
            await asyncio.to_thread(self._host.expire)
            await asyncio.sleep(self._settings.lease_seconds / 4)


def _row_limits(settings: ServerSettings) -> dict[str, RowLimit]:
    """Return how often fields may occur in a request. Parsed, an empty row takes many times its size."""
    chunk = RowLimit(settings.max_chunk_rows, "CHUNK_TOO_LARGE", "images in a chunk", "send smaller chunks")
    excluded = RowLimit(
        settings.max_excluded_ids,
        "TOO_MANY_EXCLUDED",
        "excluded images",
        "name a Parquet file with their ids instead",
    )
    images = RowLimit(
        settings.max_images_per_score_call, "TOO_MANY_IMAGES", "images", "use SelectBatch for more"
    )
    return {
        "topb.v1.Exclusion.ids": excluded,
        "topb.v1.Exclusion.digests": excluded,
        "topb.v1.PoolChunk.ids": chunk,
        "topb.v1.EncodedImages.data": chunk,
        "topb.v1.ScoreImagesRequest.images": images,
    }


async def serve(settings: ServerSettings, *, on_ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        settings: the server's settings.
        on_ready: called with the port once the server is healthy.

    Raises:
        ScorerError: the server cannot start.
    """
    # These threads mostly wait for disks, the database or a queue, so there may be more of them than cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_WAITING_THREADS))
    server = Server(settings)
    port = await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    on_ready(port)
    await stopping.wait()
    _log.info("draining for at most %.0f s", settings.grace_seconds)
    await server.drain()
    _log.info("stopped")
