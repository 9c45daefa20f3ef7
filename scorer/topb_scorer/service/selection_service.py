"""Implement topb.v1.SelectionService."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from topb.selections import SelectionState
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc
from topb_scorer.engines.cache import EngineCache
from topb_scorer.errors import (
    InvalidRequestError,
    NotFoundError,
    ScorerError,
    UnavailableError,
    storage_error,
)
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.identifiers import is_selection_id
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.pool import MAX_ID_BYTES
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.selecting.spec import MAX_BUDGET
from topb_scorer.service.admission import Admission
from topb_scorer.service.interceptors import Context
from topb_scorer.service.paging import invalid_page_token, page_size, page_start
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

_PICKS_A_PAGE = 5_000
_SCORING_THREADS = 16

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class SelectionService(selection_pb2_grpc.SelectionServiceServicer):
    """Runs selections and provides their results. All blocking work is done on worker threads."""

    settings: ServerSettings
    models: ModelCatalog
    engines: EngineCache
    state: StateDirectory
    host: SelectionHost
    admission: Admission

    def __post_init__(self) -> None:
        self._watchers = Watchers(self.state.catalog, self.host)
        # Large images wait for their turn to be decoded. Other calls must not wait for a thread meanwhile.
        self._scoring = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="score")

    async def SelectBatch(
        self, request: pb.SelectBatchRequest, context: Context
    ) -> AsyncIterator[pb.SelectBatchResponse]:
        record, job = await asyncio.to_thread(self.admission.pool_selection, request)
        if request.detached and record.free:
            # Start now, because the caller may disconnect as soon as it has received the id. If the queue is
            # full, the server looks for the selection later.
            with suppress(UnavailableError):
                await asyncio.to_thread(self.host.start, self._watchers.run(record, job))
            job = None
        yield pb.SelectBatchResponse(started=pb.SelectionStarted(selection=record.id, model=record.model))
        detached = request.detached or record.detached
        # gRPC holds the request until the call ends. It may be large, and the call may wait for hours.
        request.Clear()
        steps = self._watchers.follow(record, job, detached=detached)
        del job
        async with aclosing(steps) as progress:
            async for step in progress:
                yield pb.SelectBatchResponse(progress=progress_message(step))
        async with aclosing(self._result_of(record.id)) as events:
            async for event in events:
                yield pb.SelectBatchResponse(**event)

    async def SelectBatchFromStream(
        self, requests: StreamRequests, context: Context
    ) -> AsyncIterator[StreamResponse]:
        call = StreamCall(self.settings, self.state.catalog, self.host, self.admission)
        async with aclosing(call.responses(requests)) as responses:
            async for response in responses:
                yield response
        async with aclosing(self._result_of(call.selection)) as events:
            async for event in events:
                yield StreamResponse(**event)

    async def GetSelection(
        self, request: pb.GetSelectionRequest, context: Context
    ) -> pb.GetSelectionResponse:
        record = await asyncio.to_thread(self.state.catalog.get, request.selection)
        return pb.GetSelectionResponse(selection=await asyncio.to_thread(self._message_of, record))

    async def ListSelections(
        self, request: pb.ListSelectionsRequest, context: Context
    ) -> pb.ListSelectionsResponse:
        return await asyncio.to_thread(self._selections_page, request)

    async def ListPicks(self, request: pb.ListPicksRequest, context: Context) -> pb.ListPicksResponse:
        return await asyncio.to_thread(self._picks_page, request)

    async def CancelSelection(
        self, request: pb.CancelSelectionRequest, context: Context
    ) -> pb.CancelSelectionResponse:
        record = await asyncio.to_thread(self.host.cancel, request.selection)
        return pb.CancelSelectionResponse(selection=await asyncio.to_thread(self._message_of, record))

    async def ScoreImages(self, request: pb.ScoreImagesRequest, context: Context) -> pb.ScoreImagesResponse:
        cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._scoring, score_images, request, self.models, self.engines, self.settings, cancelled
            )
        finally:
            # If the call is cancelled, its thread runs on. This stops it before its next image or batch.
            cancelled.set()

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        settings = self.settings
        default_model = ""
        with suppress(NotFoundError):
            default_model = await asyncio.to_thread(self.models.default_id)
        return pb.GetServerInfoResponse(
            version=metadata.version("topb"),
            devices=[settings.engine.device],
            default_model=default_model,
            strategies=names(),
            limits=pb.Limits(
                max_budget=MAX_BUDGET,
                max_chunk_bytes=settings.max_chunk_bytes,
                max_chunk_rows=settings.max_chunk_rows,
                max_id_bytes=MAX_ID_BYTES,
                max_image_bytes=settings.engine.limits.max_bytes,
                max_image_pixels=settings.engine.limits.max_pixels,
                max_images_per_score_call=settings.max_images_per_score_call,
                max_concurrent_selections=settings.max_concurrent_selections,
            ),
        )

    async def _result_of(self, selection: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield a result as events. The responses of both selecting calls have fields for them."""
        summary = await asyncio.to_thread(self.state.results.read_summary, selection)
        yield {"summary": summary_message(*summary)}
        start = 0
        while picks := await asyncio.to_thread(
            self.state.results.read_picks, selection, start, _PICKS_A_PAGE
        ):
            yield {"picks": pb.PickPage(picks=[pick_message(pick) for pick in picks])}
            start += len(picks)

    def _message_of(self, record: SelectionRecord) -> pb.Selection:
        summary = fault = None
        if record.state is SelectionState.SUCCEEDED:
            try:
                summary = summary_message(*self.state.results.read_summary(record.id))
            except (ScorerError, OSError) as error:
                # One result that cannot be read must not hide the other selections of a list.
                _log.warning("the result of selection %s: %s", record.id, error)
                fault = storage_error(error) if isinstance(error, OSError) else error
        return selection_message(record, self.host.place_of(record.id), summary=summary, fault=fault)

    def _selections_page(self, request: pb.ListSelectionsRequest) -> pb.ListSelectionsResponse:
        size = page_size(request.page_size, default=100, maximum=1000)
        if request.page_token and not is_selection_id(request.page_token):
            raise invalid_page_token(request.page_token)
        states = [state for state, message in STATES.items() if message in request.states]
        records = self.state.catalog.page(
            size + 1,
            before=request.page_token,
            states=states if request.states else None,
            model=request.model,
        )
        page = records[:size]
        return pb.ListSelectionsResponse(
            selections=[self._message_of(record) for record in page],
            next_page_token=page[-1].id if len(records) > size else "",
        )

    def _picks_page(self, request: pb.ListPicksRequest) -> pb.ListPicksResponse:
        size = page_size(request.page_size, default=_PICKS_A_PAGE, maximum=10_000)
        start = page_start(request.page_token)
        record = self.state.catalog.get(request.selection)
        if record.state is not SelectionState.SUCCEEDED:
            raise InvalidRequestError(
                f"selection {record.id} is {record.state}; only a selection that has succeeded has picks",
                reason="SELECTION_NOT_SUCCEEDED",
                selection=record.id,
            )
        picks = self.state.results.read_picks(record.id, start, size)
        end, (_, pick_count) = start + len(picks), self.state.results.read_summary(record.id)
        return pb.ListPicksResponse(
            picks=[pick_message(pick) for pick in picks],
            next_page_token=str(end) if picks and end < pick_count else "",
        )
