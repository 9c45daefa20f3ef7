"""The client of a topb server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from topb import _translate
from topb._collecting import ProgressCallback, ResultCollector
from topb._pool_stream import PoolStream
from topb._rpc_errors import mapped_errors, mapped_events
from topb._streaming import stream_pool
from topb.channel import TlsOptions, open_channel
from topb.descriptions import Model, ServerInfo
from topb.errors import DeadlineExceededError, InvalidRequestError, ServerUnavailableError
from topb.results import SelectionResult
from topb.scores import ImageScores, SkippedImage
from topb.selection_request import ExcludeFile, PoolFormatName, call_timeout, selection_spec, served_pool
from topb.v1 import model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc

_MODELS_A_PAGE = 100


class Client:
    """A client of one server; a context manager, and safe to share between threads.

    It connects at its first call. No call is made a second time by itself: gRPC alone tries again, and
    only where it knows that the server never saw the request. `wait_until_ready` is the one call that
    waits for a server that is not there yet.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: TlsOptions | grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
    ) -> None:
        """Makes a client; nothing is sent yet.

        Args:
            address: of the server, as host:port.
            credentials: for TLS; None for a connection in the clear.
            timeout: seconds that each call may take unless it says otherwise; None for as long as it needs.

        Raises:
            InvalidRequestError: the address has no port, the timeout is not a positive number, or a file
                of the TLS options cannot be read.
        """
        self.address = address
        self._timeout = call_timeout(timeout, None)
        self._channel = open_channel(address, credentials)
        self._selections = selection_pb2_grpc.SelectionServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way end with RequestCancelledError."""
        self._closed = True
        self._channel.close()

    def wait_until_ready(self, timeout: float | None = None) -> ServerInfo:
        """What the server is, once it answers: waits for one that is still starting.

        Args:
            timeout: seconds to wait at most; None for the client's.

        Raises:
            ServerUnavailableError: no server answered in time.
        """
        try:
            return self._server_info(timeout, wait_for_ready=True)
        except DeadlineExceededError as error:
            raise ServerUnavailableError(
                f"no topb server answered at {self.address} in the time given to wait for one",
                reason="SERVER_NOT_READY",
            ) from error

    def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """What the server is: version, devices, strategies, limits."""
        return self._server_info(timeout, wait_for_ready=False)

    def list_models(self, *, timeout: float | None = None) -> list[Model]:
        """All models that the server can score with, by id."""
        timeout = self._call_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        models: list[Model] = []
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_size=_MODELS_A_PAGE, page_token=token)
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            with mapped_errors(self.address, timeout):
                response = self._models.ListModels(request, timeout=left)
            models.extend(_translate.model(message) for message in response.models)
            token = response.next_page_token
            if not token:
                return models

    def get_model(self, model: str | None = None, *, timeout: float | None = None) -> Model:
        """One model, by id; None for the server's default one.

        Raises:
            NotFoundError: the server has no such model.
        """
        timeout = self._call_timeout(timeout)
        with mapped_errors(self.address, timeout):
            response = self._models.GetModel(model_pb2.GetModelRequest(model=model or ""), timeout=timeout)
        return _translate.model(response.model)

    def score_images(
        self,
        images: Iterable[bytes],
        *,
        model: str | None = None,
        include_features: bool = False,
        timeout: float | None = None,
    ) -> list[ImageScores | SkippedImage]:
        """What the model makes of a few images, one outcome an image, in order.

        Args:
            images: as files hold them (JPEG, PNG, WebP, …), at most as many as
                `server_info().limits.max_images_per_score_call`.
            model: id of the model; None for the server's default one.
            include_features: whether to return features too.
            timeout: in seconds; None for the client's, `math.inf` for no deadline.

        Raises:
            InvalidRequestError: an image is not bytes.
            LimitExceededError: they are too many, or too large for one message.
        """
        timeout = self._call_timeout(timeout)
        encoded = _encoded(images)
        request = selection_pb2.ScoreImagesRequest(
            model=model or "", images=encoded, include_features=include_features
        )
        with mapped_errors(self.address, timeout):
            response = self._selections.ScoreImages(request, timeout=timeout)
        return _translate.image_scores(response, expected=len(encoded))

    def select_batch(
        self,
        pool: str | os.PathLike[str] | Iterable[tuple[Any, Any]],
        budget: int,
        *,
        strategy: str = "aalu",
        model: str | None = None,
        exclude: Iterable[str | int] | ExcludeFile | None = None,
        seed: int = 0,
        strategy_options: Mapping[str, str] | None = None,
        format: PoolFormatName | None = None,
        id_column: str | None = None,
        image_column: str | None = None,
        path_column: str | None = None,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> SelectionResult:
        """The `budget` images of the pool that are most worth labelling, in rank order.

        A pool that the caller sends is taken row by row on this thread, and only as far as the server
        keeps up: a few chunks of 2 MiB are held, whatever the pool's size. What the iterable or
        `progress` raises cancels the selection and comes out unchanged.

        Args:
            pool: a path or URI as the server sees it; or rows to send, each `(id, encoded bytes)` or
                `(id, uint8 array (height, width, 3) RGB)`. Ids are strings, or integers.
            budget: b, how many images to pick. A smaller pool gives all it has, and
                `SelectionResult.fell_short` says so.
            strategy: name of a query strategy, as `server_info` lists them.
            model: id of the model; None for the server's default one.
            exclude: ids to leave out because they are labelled already.
            seed: for strategies that draw at random.
            strategy_options: options of the strategy by name.
            format: of a pool at a path or URI; None to let the server look.
            id_column: of a Parquet pool; None for "id".
            image_column: of a Parquet pool that holds encoded images; None for "image".
            path_column: of a Parquet pool that holds paths of images; None for "path".
            progress: called now and then on this thread.
            timeout: in seconds; None for the client's, `math.inf` for no deadline.

        Raises:
            InvalidRequestError: an argument, or a row of the pool, is not what it should be.
            NotFoundError: there is no such pool, or no such model.
            AccessDeniedError: the pool lies outside what the server may read.
            LimitExceededError: the budget, or an image, is larger than the server takes.
            DeadlineExceededError: the selection took longer than `timeout`.
            ServerUnavailableError: no server answers at the address.
            TopbError: another of its kinds, as `topb.errors` draws them.
        """
        timeout = self._call_timeout(timeout)
        spec = selection_spec(
            budget=budget,
            strategy=strategy,
            model=model,
            exclude=exclude,
            seed=seed,
            strategy_options=strategy_options,
        )
        if isinstance(pool, (str, os.PathLike)):
            served = served_pool(
                pool, format=format, id_column=id_column, image_column=image_column, path_column=path_column
            )
            request = selection_pb2.SelectBatchRequest(spec=spec, pool=served)
            return self._select_from_served(request, progress, timeout)
        _check_streamed(
            pool, format=format, id_column=id_column, image_column=image_column, path_column=path_column
        )
        return stream_pool(
            lambda requests: self._selections.SelectBatchFromStream(requests, timeout=timeout),
            PoolStream(spec, progress),
            pool,
            address=self.address,
            timeout=timeout,
        )

    def _select_from_served(
        self,
        request: selection_pb2.SelectBatchRequest,
        progress: ProgressCallback | None,
        timeout: float | None,
    ) -> SelectionResult:
        collector = ResultCollector(progress)
        call = self._selections.SelectBatch(request, timeout=timeout)
        try:
            for event in mapped_events(call, address=self.address, timeout=timeout):
                collector.receive(event)
        finally:
            # Of no effect on a call that ended; ends one that the progress callback broke off.
            call.cancel()
        return collector.result()

    def _server_info(self, timeout: float | None, *, wait_for_ready: bool) -> ServerInfo:
        timeout = self._call_timeout(timeout)
        with mapped_errors(self.address, timeout):
            response = self._selections.GetServerInfo(
                selection_pb2.GetServerInfoRequest(), timeout=timeout, wait_for_ready=wait_for_ready
            )
        return _translate.server_info(response)

    def _call_timeout(self, timeout: float | None) -> float | None:
        if self._closed:
            raise InvalidRequestError("the client is closed; open another one", reason="CLIENT_CLOSED")
        return call_timeout(timeout, self._timeout)


def _encoded(images: Iterable[bytes]) -> list[bytes]:
    encoded = []
    for row, image in enumerate(images):
        if not isinstance(image, (bytes, bytearray, memoryview)):
            raise InvalidRequestError(
                f"image {row} is of type {type(image).__name__}; expected the bytes of an encoded image",
                reason="IMAGE_INVALID",
            )
        encoded.append(bytes(image))
    return encoded


def _check_streamed(pool: object, **layout: str | None) -> None:
    """Raises what is wrong with a pool that is to be sent, before anything is."""
    if isinstance(pool, (bytes, bytearray, Mapping)) or not isinstance(pool, Iterable):
        raise InvalidRequestError(
            f"pool is of type {type(pool).__name__}; expected a path or URI that the server reads, or rows "
            "of (id, encoded bytes) or (id, uint8 array (height, width, 3))",
            reason="POOL_INVALID",
        )
    given = [name for name, value in layout.items() if value is not None]
    if given:
        raise InvalidRequestError(
            f"{', '.join(given)}: only for a pool that the server reads; this one is sent row by row",
            reason="ARGUMENT_INVALID",
            metadata={"argument": given[0]},
        )
