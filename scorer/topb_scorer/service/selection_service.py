"""topb.v1.SelectionService."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from importlib import metadata

from topb.selections import SelectionState
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc
from topb_scorer.engines.cache import EngineCache
from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.results import ResultStore
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.selecting.spec import MAX_BUDGET
from topb_scorer.service.admission import Admission
from topb_scorer.service.errors import Context, abort
from topb_scorer.service.score_images import score_images
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.stream_call import StreamCall, StreamRequests, StreamResponse
from topb_scorer.service.translate import (
    STATES,
    pick_message,
    progress_message,
    selection_message,
    summary_message,
)
from topb_scorer.service.watching import Watchers
from topb_scorer.strategies import names

_SELECTIONS_A_PAGE, _MOST_SELECTIONS_A_PAGE = 100, 1_000
_PICKS_A_PAGE, _MOST_PICKS_A_PAGE = 5_000, 10_000


class SelectionService(selection_pb2_grpc.SelectionServiceServicer):
    """Answers the calls; all work is done on worker threads."""

    def __init__(
        self,
        settings: ServerSettings,
        models: ModelCatalog,
        engines: EngineCache,
        state: StateDirectory,
        host: SelectionHost,
        requests: Admission,
    ) -> None:
        self._settings = settings
        self._models = models
        self._engines = engines
        self._state = state
        self._host = host
        self._requests = requests
        self._watchers = Watchers(state, host)

    async def SelectBatch(  # noqa: N802 - the contract's name
        self, request: pb.SelectBatchRequest, context: Context
    ) -> AsyncIterator[pb.SelectBatchResponse]:
        """Selects from a pool that this server reads."""
        try:
            record, job = await asyncio.to_thread(self._requests.pool_selection, request)
            if request.detached:
                # The caller may leave once it knows the id.
                await asyncio.to_thread(self._host.start, record, job)
            yield pb.SelectBatchResponse(started=pb.SelectionStarted(selection=record.id, model=record.model))
            stays = request.detached or record.detached
            async with aclosing(self._watchers.follow(record, job, stays=stays)) as followed:
                async for progress in followed:
                    yield pb.SelectBatchResponse(progress=progress_message(progress))
            summary = await asyncio.to_thread(self._state.results.read_summary, record.id)
            yield pb.SelectBatchResponse(summary=summary_message(*summary))
            async with aclosing(_pick_pages(self._state.results, record.id)) as pages:
                async for page in pages:
                    yield pb.SelectBatchResponse(picks=page)
        except Exception as error:
            await abort(context, error)

    async def SelectBatchFromStream(  # noqa: N802 - the contract's name
        self, requests: StreamRequests, context: Context
    ) -> AsyncIterator[StreamResponse]:
        """Selects from a pool that the caller sends."""
        session = StreamCall(self._settings, self._state, self._host, self._requests)
        try:
            async with aclosing(session.responses(requests)) as responses:
                async for response in responses:
                    yield response
            summary = await asyncio.to_thread(self._state.results.read_summary, session.selection)
            yield StreamResponse(summary=summary_message(*summary))
            async with aclosing(_pick_pages(self._state.results, session.selection)) as pages:
                async for page in pages:
                    yield StreamResponse(picks=page)
        except Exception as error:
            await abort(context, error)

    async def GetSelection(  # noqa: N802 - the contract's name
        self, request: pb.GetSelectionRequest, context: Context
    ) -> pb.GetSelectionResponse:
        """One selection."""
        try:
            return pb.GetSelectionResponse(
                selection=await asyncio.to_thread(self._selection, request.selection)
            )
        except Exception as error:
            await abort(context, error)

    async def ListSelections(  # noqa: N802 - the contract's name
        self, request: pb.ListSelectionsRequest, context: Context
    ) -> pb.ListSelectionsResponse:
        """A page of selections, the latest first."""
        try:
            return await asyncio.to_thread(self._list, request)
        except Exception as error:
            await abort(context, error)

    async def ListPicks(  # noqa: N802 - the contract's name
        self, request: pb.ListPicksRequest, context: Context
    ) -> pb.ListPicksResponse:
        """A page of a result's picks."""
        try:
            return await asyncio.to_thread(self._picks, request)
        except Exception as error:
            await abort(context, error)

    async def CancelSelection(  # noqa: N802 - the contract's name
        self, request: pb.CancelSelectionRequest, context: Context
    ) -> pb.CancelSelectionResponse:
        """Stops a selection."""
        try:
            record = await asyncio.to_thread(self._host.cancel, request.selection)
            message = await asyncio.to_thread(selection_message, record, self._state.results)
            return pb.CancelSelectionResponse(selection=message)
        except Exception as error:
            await abort(context, error)

    async def ScoreImages(  # noqa: N802 - the contract's name
        self, request: pb.ScoreImagesRequest, context: Context
    ) -> pb.ScoreImagesResponse:
        """Scores a few images."""
        gone = threading.Event()
        try:
            return await asyncio.to_thread(
                score_images, request, self._models, self._engines, self._settings, gone
            )
        except Exception as error:
            await abort(context, error)
        finally:
            # The thread outlives a call that is cancelled: it stops before its next batch.
            gone.set()

    async def GetServerInfo(  # noqa: N802 - the contract's name
        self,
        request: pb.GetServerInfoRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> pb.GetServerInfoResponse:
        """What this server is."""
        settings = self._settings
        default_model = ""
        with suppress(NotFoundError):
            default_model = await asyncio.to_thread(self._models.default_id)
        return pb.GetServerInfoResponse(
            version=metadata.version("topb"),
            devices=[settings.engine.device],
            default_model=default_model,
            strategies=names(),
            limits=pb.Limits(
                max_budget=MAX_BUDGET,
                max_chunk_bytes=settings.max_chunk_bytes,
                max_image_bytes=settings.engine.limits.max_bytes,
                max_image_pixels=settings.engine.limits.max_pixels,
                max_images_per_score_call=settings.max_images_per_score_call,
                max_concurrent_selections=settings.max_concurrent_selections,
            ),
        )

    def _selection(self, id_: str) -> pb.Selection:
        return selection_message(self._state.catalog.get(id_), self._state.results)

    def _list(self, request: pb.ListSelectionsRequest) -> pb.ListSelectionsResponse:
        size = _page_size(request.page_size, _SELECTIONS_A_PAGE, _MOST_SELECTIONS_A_PAGE)
        states = [state for state, message in STATES.items() if message in request.states]
        records = self._state.catalog.page(
            size + 1, before=request.page_token, states=states, model=request.model
        )
        page = records[:size]
        return pb.ListSelectionsResponse(
            selections=[selection_message(record, self._state.results) for record in page],
            next_page_token=page[-1].id if len(records) > size else "",
        )

    def _picks(self, request: pb.ListPicksRequest) -> pb.ListPicksResponse:
        size = _page_size(request.page_size, _PICKS_A_PAGE, _MOST_PICKS_A_PAGE)
        if request.page_token and not request.page_token.isdecimal():
            raise InvalidRequestError(
                f"{request.page_token!r} is no page token of picks", reason="PAGE_TOKEN"
            )
        record = self._state.catalog.get(request.selection)
        if record.state is not SelectionState.SUCCEEDED:
            raise InvalidRequestError(
                f"selection {record.id} is {record.state}; only one that succeeded has picks",
                reason="SELECTION_NOT_SUCCEEDED",
                selection=record.id,
            )
        start = int(request.page_token or 0)
        picks = self._state.results.read_picks(record.id, start, size + 1)
        return pb.ListPicksResponse(
            picks=[pick_message(pick) for pick in picks[:size]],
            next_page_token=str(start + size) if len(picks) > size else "",
        )


async def _pick_pages(results: ResultStore, selection: str) -> AsyncGenerator[pb.PickPage, None]:
    start = 0
    while picks := await asyncio.to_thread(results.read_picks, selection, start, _PICKS_A_PAGE):
        yield pb.PickPage(picks=[pick_message(pick) for pick in picks])
        start += len(picks)


def _page_size(asked: int, usual: int, most: int) -> int:
    if asked < 0:
        raise InvalidRequestError(f"page size {asked}; expected 0 or more", reason="PAGE_SIZE_NEGATIVE")
    return min(asked or usual, most)
