"""A client of a topb server."""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sized
from types import TracebackType
from typing import Self

import grpc

from topb import _translate
from topb._async.connection import AsyncConnection
from topb._async.handle import AsyncSelectionHandle
from topb._async.selecting import select_served, start_served, stream_pool
from topb._async.transport import POOL_TYPES, PoolRows
from topb._channel import TlsOptions
from topb._collecting import ProgressCallback
from topb._deadline import Deadline
from topb._pool_stream import PoolStream
from topb._requests import (
    MODELS_A_PAGE,
    Exclude,
    cancelling,
    check_rows,
    encoded_images,
    listing,
    request_id_of,
    selection_spec,
    served_pool,
)
from topb._retry import RetryPolicy
from topb.descriptions import Model, ServerInfo
from topb.errors import DeadlineExceededError, ServerUnavailableError
from topb.pools import Pool
from topb.results import SelectionResult
from topb.scores import ImageScores, SkippedImage
from topb.selections import Selection, SelectionState
from topb.v1 import model_pb2, selection_pb2

_DEFAULT_RETRY = RetryPolicy()


class AsyncClient:
    """A client of one server, for use in one event loop.

    It is an asynchronous context manager. The connection opens with the first call. Callbacks and iterables
    of the caller run on the event loop, which waits while an ordinary iterable computes its next row.

    If the server goes away, calls about selections are retried according to `retry`; their request ids make
    that safe. Other calls are not retried. Only `wait_until_ready` waits for a server that is still starting.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: TlsOptions | grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
    ) -> None:
        """Create a client. Nothing is sent yet.

        Args:
            address: Address of the server, as host:port.
            credentials: TLS credentials, or None for an unencrypted connection.
            timeout: Default timeout of each call in seconds, or None for no timeout.
            retry: How to retry selections if the server goes away, or None for no retries.

        Raises:
            InvalidRequestError: If the address has no port, the timeout is not a positive number, or a file
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
        """Close the connection. Running calls raise RequestCancelledError."""
        await self._connection.close()

    async def wait_until_ready(self, timeout: float | None = None) -> ServerInfo:
        """Wait until the server answers, and return its description.

        Args:
            timeout: Maximum number of seconds to wait; None for the client's timeout.

        Raises:
            ServerUnavailableError: If no server answers in time.
        """
        try:
            return await self._server_info(self._connection.deadline(timeout), wait_for_ready=True)
        except DeadlineExceededError as error:
            raise ServerUnavailableError(
                f"no topb server answered at {self.address} before the timeout", reason="SERVER_NOT_READY"
            ) from error

    async def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Return the server's version, devices, query strategies and limits."""
        return await self._server_info(self._connection.deadline(timeout))

    async def list_models(self, *, timeout: float | None = None) -> list[Model]:
        """Return all models that the server can score with, ordered by id."""
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
        """Return the model with this id, or the server's default model if `model` is None.

        Raises:
            NotFoundError: If the server has no such model.
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
        """Score a few images, and return one outcome per image in the same order.

        Args:
            images: Encoded images (JPEG, PNG, WebP, …). One call takes at most
                `server_info().limits.max_images_per_score_call` images.
            model: Id of the model; None for the server's default model.
            include_features: Whether to return the features as well.
            timeout: Timeout in seconds; None for the client's timeout, `math.inf` for none.

        Raises:
            InvalidRequestError: If an image is not bytes.
            LimitExceededError: If there are too many images, or they do not fit into one message.
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
        pool: str | os.PathLike[str] | Pool | PoolRows,
        budget: int,
        *,
        strategy: str = "aalu",
        model: str | None = None,
        exclude: Exclude | None = None,
        include_labelled: bool = False,
        seed: int = 0,
        strategy_options: Mapping[str, str] | None = None,
        request_id: str | None = None,
        detached: bool = False,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> SelectionResult:
        """Select the `budget` images of a pool that are most worth labelling, in rank order.

        Rows that the caller sends are taken one by one on the event loop, only as fast as the server
        accepts them. A few chunks of 2 MiB are held in memory, whatever the size of the pool. An exception
        that the iterable or `progress` raises ends the call and propagates unchanged.

        If the call ends early, for any reason, the server pauses the selection: it becomes PENDING and keeps
        its scores. A call with the same `request_id` resumes it, and `AsyncSelectionHandle.cancel` ends it
        for good.

        If the server goes away, the selection is retried according to the client's `retry` policy, and the
        same or another server continues it: rows that were scored are neither sent nor scored again. A call
        with the same `request_id` and arguments continues the selection or returns its result, also from
        another process. If the pool consists of rows, that call must give the same rows in the same order.

        Args:
            pool: A path, glob or URI that the server reads (Parquet, WebDataset, CSV list or folder of
                images, Parquet or .npy files of vectors), a `Pool` that also describes its layout, or an
                iterable of rows to send. Each row is `(id, encoded bytes)`, `(id, uint8 array (height,
                width, 3), RGB)`, or `(id, vector)` with a floating-point array (D,) in place of the features
                of an image; ids are strings or integers. Without a model, a row of vectors may have the
                predicted class probabilities too: `(id, vector, array (C,))`.
            budget: Number of images to select. If the pool has fewer, all of them are returned and
                `SelectionResult.fell_short` is true.
            strategy: Name of a query strategy, one of `server_info().strategies`.
            model: Id of the model; None for the server's default model, "none" to select from vectors
                without a model.
            exclude: Images to leave out, usually because they are labelled already: their ids; a mapping from
                ids to content digests (`b""` if unknown), by which images are found under other ids too; the
                result of an earlier selection, whose picks are left out; or a file that the server reads.
                `Accounts.excluded_unmatched` counts those that the pool does not have.
            include_labelled: Whether images that the model was trained on may be picked. By default they are
                left out, by id or by content, and `Accounts.excluded_labelled` counts them.
            seed: Seed of strategies that draw at random.
            strategy_options: Options of the strategy by name.
            request_id: An id that makes the request safe to repeat, of at most 200 characters; None for a
                random UUID. It must not have the form of a selection's id.
            detached: Whether the selection continues on the server if this call ends early. By default, it
                is paused. Only for pools that the server reads.
            progress: Called on the event loop from time to time.
            timeout: Timeout in seconds; None for the client's timeout, `math.inf` for none.

        Raises:
            InvalidRequestError: If an argument or a row of the pool is invalid, or the request id was used
                with other arguments.
            NotFoundError: If the pool or the model does not exist.
            AccessDeniedError: If the server may not read the pool.
            LimitExceededError: If the budget or an image exceeds a limit of the server.
            DeadlineExceededError: If the selection takes longer than `timeout`.
            ServerUnavailableError: If no server answers, and the retries are used up.
            TopbError: For any other failure; see `topb.errors`.
        """
        deadline = self._connection.deadline(timeout)
        spec = selection_spec(
            budget=budget,
            strategy=strategy,
            model=model,
            exclude=exclude,
            include_labelled=include_labelled,
            seed=seed,
            strategy_options=strategy_options,
        )
        request_id = request_id_of(request_id)
        if isinstance(pool, (str, os.PathLike, Pool)):
            request = selection_pb2.SelectBatchRequest(
                spec=spec, pool=served_pool(pool), request_id=request_id, detached=detached
            )
            return await select_served(self._connection, request, progress, deadline)
        check_rows(pool, types=POOL_TYPES, detached=detached)
        total = len(pool) if isinstance(pool, Sized) else 0
        stream = PoolStream(spec, request_id, progress, total=total)
        return await stream_pool(self._connection, stream, pool, deadline)

    async def submit(
        self,
        pool: str | os.PathLike[str] | Pool,
        budget: int,
        *,
        strategy: str = "aalu",
        model: str | None = None,
        exclude: Exclude | None = None,
        include_labelled: bool = False,
        seed: int = 0,
        strategy_options: Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AsyncSelectionHandle:
        """Start a detached selection from a pool that the server reads, and return a handle to it.

        It takes the arguments of `select_batch`; `timeout` applies only to this call. The same `request_id`
        and arguments return the same selection.

        Raises:
            TopbError: If the request cannot be served; see `select_batch` for the subclasses.
        """
        deadline = self._connection.deadline(timeout)
        spec = selection_spec(
            budget=budget,
            strategy=strategy,
            model=model,
            exclude=exclude,
            include_labelled=include_labelled,
            seed=seed,
            strategy_options=strategy_options,
        )
        request_id = request_id_of(request_id)
        request = selection_pb2.SelectBatchRequest(
            spec=spec, pool=served_pool(pool), request_id=request_id, detached=True
        )
        id_ = await start_served(self._connection, request, deadline)
        return AsyncSelectionHandle(self._connection, id_, request_id)

    async def selection(self, id: str, *, timeout: float | None = None) -> AsyncSelectionHandle:
        """Return a handle to the selection with this id or request id, whoever requested it.

        Raises:
            NotFoundError: If the server has no such selection.
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
        """Iterate over the server's selections, latest first. Pages are fetched as needed.

        Args:
            states: Only list selections in one of these states; all states if empty.
            model: Only list selections by the model with this id; None for all models.
            timeout: Timeout of each page in seconds; None for the client's timeout, `math.inf` for none.
        """
        self._connection.deadline(timeout)
        return self._listed(listing(states, model), timeout)

    async def cancel_selections(
        self,
        states: Iterable[SelectionState],
        *,
        model: str | None = None,
        created_before: datetime.datetime | None = None,
        timeout: float | None = None,
    ) -> list[Selection]:
        """Cancel several selections for good, whoever requested them, and return them.

        Args:
            states: Cancel selections in one of these states. Those that have ended do not change.
            model: Only cancel selections by the model with this id; None for all models.
            created_before: Only cancel selections that were requested before this time, which has a time
                zone; None for all.
            timeout: Timeout in seconds; None for the client's timeout, `math.inf` for none.

        Raises:
            InvalidRequestError: If there is no state, or the time has no time zone.
        """
        deadline = self._connection.deadline(timeout)
        request = cancelling(states, model, created_before)
        found = [
            selection
            async for selection in self._listed(request, timeout)
            if created_before is None
            or (selection.create_time is not None and selection.create_time < created_before)
        ]
        cancelled = []
        for selection in found:
            cancel = selection_pb2.CancelSelectionRequest(selection=selection.id)
            method = self._connection.selections.CancelSelection
            response = await self._connection.call(method, cancel, deadline, repeatable=True)
            cancelled.append(_translate.selection(response.selection))
        return cancelled

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
        message = await self._connection.call(method, request, deadline, wait_for_ready=wait_for_ready)
        return _translate.server_info(message)
