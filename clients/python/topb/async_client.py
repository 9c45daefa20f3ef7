"""The client of a topb server, in an event loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from topb import _translate
from topb._async_connection import AsyncConnection
from topb._async_streaming import select_served, start_served, stream_pool
from topb._collecting import ProgressCallback
from topb._deadline import Deadline
from topb._pool_stream import PoolStream
from topb.async_handle import AsyncSelectionHandle
from topb.channel import TlsOptions
from topb.descriptions import Model, ServerInfo
from topb.errors import DeadlineExceededError, ServerUnavailableError
from topb.results import SelectionResult
from topb.retry import RetryPolicy
from topb.scores import ImageScores, SkippedImage
from topb.selection_request import (
    MODELS_A_PAGE,
    ExcludeFile,
    PoolFormatName,
    check_streamed,
    encoded_images,
    listing,
    request_id_of,
    selection_spec,
    served_pool,
)
from topb.selections import Selection, SelectionState
from topb.v1 import model_pb2, selection_pb2

_DEFAULT_RETRY = RetryPolicy()


class AsyncClient:
    """A client of one server, for use in one event loop; an asynchronous context manager.

    It does what `Client` does, call by call, and connects at its first. What the caller gives, iterables
    and callbacks, runs on the event loop.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: TlsOptions | grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
    ) -> None:
        """Makes a client; nothing is sent yet.

        Args:
            address: of the server, as host:port.
            credentials: for TLS; None for a connection in the clear.
            timeout: seconds that each call may take unless it says otherwise; None for as long as it needs.
            retry: how selections go on where the server goes away; None for not at all.

        Raises:
            InvalidRequestError: the address has no port, the timeout is not a positive number, or a file
                of the TLS options cannot be read.
        """
        self.address = address
        self._connection = AsyncConnection(address, credentials, timeout, retry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way end with RequestCancelledError."""
        await self._connection.close()

    async def wait_until_ready(self, timeout: float | None = None) -> ServerInfo:
        """What the server is, once it answers: waits for one that is still starting.

        Args:
            timeout: seconds to wait at most; None for the client's.

        Raises:
            ServerUnavailableError: no server answered in time.
        """
        try:
            return await self._server_info(self._connection.deadline(timeout), wait_for_ready=True)
        except DeadlineExceededError as error:
            raise ServerUnavailableError(
                f"no topb server answered at {self.address} in the time given to wait for one",
                reason="SERVER_NOT_READY",
            ) from error

    async def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """What the server is: version, devices, strategies, limits."""
        return await self._server_info(self._connection.deadline(timeout))

    async def list_models(self, *, timeout: float | None = None) -> list[Model]:
        """All models that the server can score with, by id."""
        deadline = self._connection.deadline(timeout)
        models: list[Model] = []
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_size=MODELS_A_PAGE, page_token=token)
            page = await self._connection.call(self._connection.models.ListModels, request, deadline)
            models.extend(_translate.model(message) for message in page.models)
            token = page.next_page_token
            if not token:
                return models

    async def get_model(self, model: str | None = None, *, timeout: float | None = None) -> Model:
        """One model, by id; None for the server's default one.

        Raises:
            NotFoundError: the server has no such model.
        """
        request = model_pb2.GetModelRequest(model=model or "")
        deadline = self._connection.deadline(timeout)
        response = await self._connection.call(self._connection.models.GetModel, request, deadline)
        return _translate.model(response.model)

    async def score_images(
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
        deadline = self._connection.deadline(timeout)
        encoded = encoded_images(images)
        request = selection_pb2.ScoreImagesRequest(
            model=model or "", images=encoded, include_features=include_features
        )
        response = await self._connection.call(self._connection.selections.ScoreImages, request, deadline)
        return _translate.image_scores(response, expected=len(encoded))

    async def select_batch(
        self,
        pool: str | os.PathLike[str] | Iterable[tuple[Any, Any]] | AsyncIterable[tuple[Any, Any]],
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
        request_id: str | None = None,
        detached: bool = False,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> SelectionResult:
        """The `budget` images of the pool that are most worth labelling, in rank order.

        A pool that the caller sends is taken row by row on the event loop, and only as far as the server
        keeps up: a few chunks of 2 MiB are held, whatever the pool's size. For a row
        of a slow iterable the whole loop waits, unless it is asynchronous. What the iterable or
        `progress` raises stops the selection and comes out unchanged.

        Where the server goes away, the selection goes on as the client's `retry` says, here or at the
        server's successor: rows that it had scored are not scored again, nor sent again. The same
        `request_id` and arguments go on with it, or fetch its result, from another process too; a pool
        of rows then has to give the same rows again.

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
            request_id: a name for this request that makes repeating it safe; None to have a UUID drawn.
            detached: whether the selection runs on when this call ends before it; only for a pool at a
                path or URI. Otherwise it stops then.
            progress: called now and then on the event loop.
            timeout: in seconds; None for the client's, `math.inf` for no deadline.

        Raises:
            InvalidRequestError: an argument, or a row of the pool, is not what it should be; or
                the request id stands for another request.
            NotFoundError: there is no such pool, or no such model.
            AccessDeniedError: the pool lies outside what the server may read.
            LimitExceededError: the budget, or an image, is larger than the server takes.
            DeadlineExceededError: the selection took longer than `timeout`.
            ServerUnavailableError: no server answers at the address, for longer than `retry` allows.
            TopbError: another of its kinds, as `topb.errors` draws them.
        """
        deadline = self._connection.deadline(timeout)
        spec = selection_spec(
            budget=budget,
            strategy=strategy,
            model=model,
            exclude=exclude,
            seed=seed,
            strategy_options=strategy_options,
        )
        request_id = request_id_of(request_id)
        if isinstance(pool, (str, os.PathLike)):
            served = served_pool(
                pool, format=format, id_column=id_column, image_column=image_column, path_column=path_column
            )
            request = selection_pb2.SelectBatchRequest(
                spec=spec, pool=served, request_id=request_id, detached=detached
            )
            return await select_served(self._connection, request, progress, deadline)
        check_streamed(
            pool,
            kinds=(Iterable, AsyncIterable),
            detached=detached,
            format=format,
            id_column=id_column,
            image_column=image_column,
            path_column=path_column,
        )
        return await stream_pool(self._connection, PoolStream(spec, request_id, progress), pool, deadline)

    async def submit(
        self,
        pool: str | os.PathLike[str],
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
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AsyncSelectionHandle:
        """Has a selection started that runs on by itself, from a pool that the server reads.

        The arguments are those of `select_batch`, `timeout` is of this call alone. The same `request_id`
        and arguments give the same selection again.

        Raises:
            TopbError: as `select_batch` raises it for a request that cannot be served.
        """
        deadline = self._connection.deadline(timeout)
        spec = selection_spec(
            budget=budget,
            strategy=strategy,
            model=model,
            exclude=exclude,
            seed=seed,
            strategy_options=strategy_options,
        )
        served = served_pool(
            pool, format=format, id_column=id_column, image_column=image_column, path_column=path_column
        )
        request_id = request_id_of(request_id)
        request = selection_pb2.SelectBatchRequest(
            spec=spec, pool=served, request_id=request_id, detached=True
        )
        id_ = await start_served(self._connection, request, deadline)
        return AsyncSelectionHandle(self._connection, id_, request_id)

    async def selection(self, id: str, *, timeout: float | None = None) -> AsyncSelectionHandle:
        """The selection of that id or request id, whoever asked for it.

        Raises:
            NotFoundError: the server has none.
        """
        response = await self._connection.call(
            self._connection.selections.GetSelection,
            selection_pb2.GetSelectionRequest(selection=id),
            self._connection.deadline(timeout),
            repeatable=True,
        )
        return AsyncSelectionHandle(self._connection, response.selection.id, response.selection.request_id)

    def list_selections(
        self,
        *,
        states: Iterable[SelectionState] = (),
        model: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Selection]:
        """The server's selections, the latest first, fetched page by page as they are asked for.

        Args:
            states: only selections in one of these; none given: in any.
            model: only selections by the model of this id; None: by any.
            timeout: of each page, in seconds; None for the client's, `math.inf` for no deadline.
        """
        self._connection.deadline(timeout)
        return self._listed(listing(states, model), timeout)

    async def _listed(
        self, request: selection_pb2.ListSelectionsRequest, timeout: float | None
    ) -> AsyncIterator[Selection]:
        while True:
            deadline = self._connection.deadline(timeout)
            method = self._connection.selections.ListSelections
            page = await self._connection.call(method, request, deadline, repeatable=True)
            for message in page.selections:
                yield _translate.selection(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _server_info(self, deadline: Deadline, *, wait_for_ready: bool | None = None) -> ServerInfo:
        request = selection_pb2.GetServerInfoRequest()
        method = self._connection.selections.GetServerInfo
        return _translate.server_info(
            await self._connection.call(method, request, deadline, wait_for_ready=wait_for_ready)
        )
