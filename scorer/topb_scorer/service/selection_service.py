"""topb.v1.SelectionService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, suppress
from importlib import metadata

import numpy as np
from topb.progress import Progress
from topb.results import SelectionResult
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

from topb_scorer import imaging
from topb_scorer.catalog import EngineCache, ModelCatalog
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import InvalidRequestError, LimitExceededError, NotFoundError, SelectionCancelledError
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.stream import ChunkQueue
from topb_scorer.score_log import Skip, scored_rows
from topb_scorer.selections import MAX_BUDGET, SelectionSpec, check_strategy_served, select_from_shards
from topb_scorer.service.admission import Admission
from topb_scorer.service.errors import Context, abort
from topb_scorer.service.relay import ChunkScored, SelectionRelay
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.translate import (
    duration_message,
    pick_pages,
    pool_of,
    shard_of,
    spec_of,
    summary_message,
)
from topb_scorer.strategies import names

# Chunks a caller may have under way: enough to hide a round trip, few enough to bound memory.
STREAM_WINDOW = 8

Requests = AsyncIterator[pb.SelectBatchFromStreamRequest]
StreamResponse = pb.SelectBatchFromStreamResponse


class SelectionService(selection_pb2_grpc.SelectionServiceServicer):
    """Answers the calls; all work is done on worker threads."""

    def __init__(
        self, settings: ServerSettings, catalog: ModelCatalog, engines: EngineCache, admission: Admission
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._engines = engines
        self._admission = admission
        self._workers: Executor = ThreadPoolExecutor(
            settings.max_concurrent_selections, thread_name_prefix="selection"
        )

    async def SelectBatch(  # noqa: N802 - the contract's name
        self, request: pb.SelectBatchRequest, context: Context
    ) -> AsyncIterator[pb.SelectBatchResponse]:
        """Selects from a pool that this server reads."""
        try:
            with self._admission.admitted() as cancelled:
                spec, engine = await asyncio.to_thread(self._prepare, request.spec)
                pool = await asyncio.to_thread(
                    pool_of, request.pool, self._settings.roots, self._settings.engine.limits
                )
                relay = SelectionRelay(pool.rows, cancelled)
                work = self._selection(spec, engine, pool.shards)
                async with aclosing(relay.events(self._workers, work)) as events:
                    async for event in events:
                        if isinstance(event, Progress):
                            yield pb.SelectBatchResponse(progress=_progress(event))
                        elif isinstance(event, SelectionResult):
                            yield pb.SelectBatchResponse(summary=summary_message(event))
                            for page in pick_pages(event):
                                yield pb.SelectBatchResponse(picks=page)
        except Exception as error:
            await abort(context, error)

    async def SelectBatchFromStream(  # noqa: N802 - the contract's name
        self, requests: Requests, context: Context
    ) -> AsyncIterator[StreamResponse]:
        """Selects from a pool that the caller sends."""
        try:
            with self._admission.admitted() as cancelled:
                spec, engine = await asyncio.to_thread(self._prepare, await _start(requests))
                yield StreamResponse(
                    accepted=pb.StreamAccepted(
                        model=engine.bundle.model_id,
                        window=STREAM_WINDOW,
                        max_chunk_bytes=self._settings.max_chunk_bytes,
                    )
                )
                chunks = ChunkQueue(STREAM_WINDOW, cancelled)
                relay = SelectionRelay(0, cancelled)
                receiving = asyncio.create_task(self._receive(requests, chunks))
                receiving.add_done_callback(lambda task: _stop_on_failure(task, relay))
                work = self._selection(spec, engine, chunks.shards())
                try:
                    async with aclosing(relay.events(self._workers, work)) as events:
                        async for event in events:
                            for response in _stream_responses(event):
                                yield response
                except SelectionCancelledError:
                    # Where the stream itself was at fault, that is what the caller is told.
                    if receiving.done():
                        receiving.result()
                    raise
                finally:
                    cancelled.set()
                    receiving.cancel()
                    with suppress(Exception, asyncio.CancelledError):
                        await receiving
        except Exception as error:
            await abort(context, error)

    async def ScoreImages(  # noqa: N802 - the contract's name
        self, request: pb.ScoreImagesRequest, context: Context
    ) -> pb.ScoreImagesResponse:
        """Scores a few images."""
        try:
            return await asyncio.to_thread(self._score_images, request)
        except Exception as error:
            await abort(context, error)

    async def GetServerInfo(  # noqa: N802 - the contract's name
        self,
        request: pb.GetServerInfoRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> pb.GetServerInfoResponse:
        """What this server is."""
        settings = self._settings
        default_model = ""
        with suppress(NotFoundError):
            default_model = await asyncio.to_thread(self._catalog.default_id)
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

    def _prepare(self, message: pb.SelectionSpec) -> tuple[SelectionSpec, LocalEngine]:
        spec = spec_of(message, self._settings.roots)
        bundle = self._catalog.get(message.model)
        check_strategy_served(spec, bundle.model_id, bundle.strategies)
        return spec, self._engines.get(bundle)

    def _selection(
        self, spec: SelectionSpec, engine: LocalEngine, shards: Iterable[Shard | None]
    ) -> Callable[[SelectionRelay], SelectionResult]:
        def work(relay: SelectionRelay) -> SelectionResult:
            return select_from_shards(
                spec,
                engine,
                shards,
                cancelled=relay.cancelled,
                on_rows=relay.on_rows,
                on_commit=relay.on_commit,
                scratch=self._settings.scratch,
            )

        return work

    async def _receive(self, requests: Requests, chunks: ChunkQueue) -> None:
        """Takes chunks until the caller says that the pool is complete."""
        seq = 0
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "end":
                if request.end.chunks != seq:
                    raise InvalidRequestError(
                        f"the stream ended after {seq} chunks; its end speaks of {request.end.chunks}",
                        reason="STREAM_CUT_SHORT",
                    )
                await asyncio.to_thread(chunks.put, None)
                return
            if kind != "chunk":
                raise InvalidRequestError(
                    f"a {kind or 'message with nothing in it'} came where a chunk or the end was due",
                    reason="STREAM_OUT_OF_ORDER",
                )
            shard = await asyncio.to_thread(shard_of, request.chunk, seq, self._settings.max_chunk_bytes)
            await asyncio.to_thread(chunks.put, shard)
            seq += 1
        raise InvalidRequestError(
            f"the stream ended after {seq} chunks without saying that the pool is complete",
            reason="STREAM_CUT_SHORT",
        )

    def _score_images(self, request: pb.ScoreImagesRequest) -> pb.ScoreImagesResponse:
        limit = self._settings.max_images_per_score_call
        if len(request.images) > limit:
            raise LimitExceededError(
                f"{len(request.images)} images; one call scores at most {limit}, SelectBatch any number",
                reason="TOO_MANY_IMAGES",
            )
        engine = self._engines.get(self._catalog.get(request.model))
        target, limits = engine.bundle.input, self._settings.engine.limits
        images = np.zeros((len(request.images), target.height, target.width, 3), np.uint8)
        skips: dict[int, Skip] = {}
        for row, encoded in enumerate(request.images):
            try:
                images[row] = imaging.load(encoded, target, limits)
            except imaging.SkippedImageError as error:
                skips[row] = Skip(error.reason, error.detail)
        outputs = engine.session.score(images)
        rows = scored_rows([str(row) for row in range(len(images))], outputs, skips)
        response = pb.ScoreImagesResponse(model=engine.bundle.model_id)
        for row in range(len(images)):
            if row in rows.skips:
                skip = rows.skips[row]
                response.results.add(skipped=pb.ImageScores.Skipped(reason=skip.reason, detail=skip.detail))
                continue
            scored = pb.ImageScores.Scored(
                score=float(rows.score[row]),
                probabilities=outputs["probabilities"][row].tolist(),
                features=outputs["features"][row].tolist() if request.include_features else [],
                entropy=float(rows.entropy[row]),
            )
            response.results.add(scored=scored)
        return response


async def _start(requests: Requests) -> pb.SelectionSpec:
    async for request in requests:
        if request.WhichOneof("message") == "start":
            return request.start.spec
        break
    raise InvalidRequestError("a stream begins with its start message", reason="STREAM_OUT_OF_ORDER")


def _stop_on_failure(receiving: asyncio.Task[None], relay: SelectionRelay) -> None:
    if receiving.cancelled() or receiving.exception() is not None:
        relay.cancelled.set()


def _stream_responses(event: Progress | ChunkScored | SelectionResult) -> Iterable[StreamResponse]:
    if isinstance(event, Progress):
        yield StreamResponse(progress=_progress(event))
    elif isinstance(event, ChunkScored):
        yield StreamResponse(acknowledged=pb.ChunkAcknowledged(seq=event.seq))
    else:
        yield StreamResponse(summary=summary_message(event))
        for page in pick_pages(event):
            yield StreamResponse(picks=page)


def _progress(progress: Progress) -> pb.SelectionProgress:
    return pb.SelectionProgress(
        read=progress.read, total=progress.total, elapsed=duration_message(progress.elapsed_seconds)
    )
