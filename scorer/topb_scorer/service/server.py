"""A gRPC server around a catalog of models: start, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from topb.v1 import model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc

from topb_scorer.catalog import EngineCache, ModelCatalog
from topb_scorer.errors import NotFoundError, ScorerError
from topb_scorer.service.admission import Admission
from topb_scorer.service.model_service import ModelService
from topb_scorer.service.selection_service import SelectionService
from topb_scorer.service.settings import ServerSettings

_log = logging.getLogger(__name__)

SELECTION_SERVICE = selection_pb2.DESCRIPTOR.services_by_name["SelectionService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

_POLL_SECONDS = 0.05
_CANCEL_SECONDS = 5.0


class ListenError(ScorerError):
    """The address cannot be listened on."""


class Server:
    """One server; `start`, then `drain`."""

    def __init__(self, settings: ServerSettings) -> None:
        """Opens the catalog and loads the default model, so that what is wrong shows at the start.

        Raises:
            NotFoundError: there is no models directory, or no such default model.
            BundleError: the default model is torn or altered.
            DeviceError: the device cannot be used.
        """
        self._settings = settings
        self._catalog = ModelCatalog(settings.models, default_model=settings.default_model)
        self._engines = EngineCache(settings.engine)
        self._admission = Admission(settings.max_concurrent_selections)
        try:
            self._engines.get(self._catalog.get(""))
        except NotFoundError as error:
            _log.warning("%s", error)

    async def start(self) -> int:
        """Listens, turns healthy, and returns the port.

        Raises:
            ListenError: the address is taken, or is none of this machine's.
        """
        settings = self._settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Two servers on one port would share callers by chance.
                ("grpc.so_reuseport", 0),
            ]
        )
        selection = SelectionService(settings, self._catalog, self._engines, self._admission)
        selection_pb2_grpc.add_SelectionServiceServicer_to_server(selection, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self._catalog), self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        services = (SELECTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)
        try:
            port = self._server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on {settings.listen}: {error}", reason="LISTEN_FAILED"
            ) from error
        await self._server.start()
        for service in ("", SELECTION_SERVICE, MODEL_SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self) -> None:
        """Turns unhealthy, admits no more, gives what runs its grace, then stops it with UNAVAILABLE."""
        await self._health.enter_graceful_shutdown()
        self._admission.drain()
        deadline = asyncio.get_running_loop().time() + self._settings.grace_seconds
        while self._admission.running and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        self._admission.interrupt()
        await self._server.stop(_CANCEL_SECONDS)


async def serve(settings: ServerSettings, *, on_ready: Callable[[int], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Args:
        settings: of the server.
        on_ready: called with the port once the server is healthy.

    Raises:
        ScorerError: the server cannot start.
    """
    server = Server(settings)
    port = await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    on_ready(port)
    await stopping.wait()
    _log.info("draining: at most %.0f s", settings.grace_seconds)
    await server.drain()
    _log.info("stopped")
