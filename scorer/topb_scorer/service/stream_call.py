"""Handle calls of SelectBatchFromStream: start or resume selections, and receive and acknowledge chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from topb.selections import SelectionState
from topb.v1 import selection_pb2 as pb
from topb_scorer.errors import InvalidRequestError, SelectionCancelledError, UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Run
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.stream import ChunkQueue, chunks_without_a_gap
from topb_scorer.service.admission import Admission
from topb_scorer.service.run_events import PROGRESS_SECONDS, RunEvents
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.translate import progress_message, shard_of
from topb_scorer.service.watching import draining, has_succeeded

# How many chunks a caller may send before the first is acknowledged: enough to hide the latency of a round
# trip, but few enough to limit memory.
STREAM_WINDOW = 8

_CLAIM_POLL_SECONDS = 0.1
_MAX_PENDING_REPEATS = 8

StreamRequests = AsyncIterator[pb.SelectBatchFromStreamRequest]
StreamResponse = pb.SelectBatchFromStreamResponse


@dataclass(eq=False)
class StreamCall:
    """Handles one call, except for sending the result."""

    settings: ServerSettings
    catalog: SelectionCatalog
    host: SelectionHost
    admission: Admission
    selection: str = field(default="", init=False)
    """The id of the selection; set before the first response is sent."""

    async def responses(self, requests: StreamRequests) -> AsyncGenerator[StreamResponse, None]:
        """Yield all responses until the selection has succeeded.

        Raises:
            ScorerError: the stream is invalid, the selection failed, or this server cannot continue it.
        """
        start = await _start_of(requests)
        record = await asyncio.to_thread(self.admission.stream_selection, start)
        self.selection = record.id
        run = await self._claimed(record)
        if run is None:
            yield self._accepted(record, next_seq=record.stream_chunks or 0, complete=True)
        else:
            async with aclosing(self._run(run, requests)) as responses:
                async for response in responses:
                    yield response
        record = await asyncio.to_thread(self.catalog.get, record.id)
        if has_succeeded(record):
            return
        if run is not None and run.error is not None:
            raise run.error
        raise draining() if self.host.draining else SelectionCancelledError

    async def _claimed(self, record: SelectionRecord) -> Run | None:
        """Take over the selection from any older call and return its run, or None if it has ended."""
        # The lease of a server that died while serving this stream takes a while to expire.
        deadline = time.monotonic() + 2 * self.settings.lease_seconds
        while True:
            await asyncio.to_thread(self.host.pause, record.id)
            run = await asyncio.to_thread(self.host.claim, record)
            if run is not None:
                return run
            if self.host.draining:
                raise draining()
            record = await asyncio.to_thread(self.catalog.get, record.id)
            if record.state not in {SelectionState.PENDING, SelectionState.RUNNING}:
                return None
            running = self.host.running_count
            if running >= self.host.max_concurrent:
                raise UnavailableError(
                    f"this server already runs {running} selections, which is its limit; try again later",
                    reason="SELECTIONS_BUSY",
                )
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"another server runs selection {record.id}; try again later",
                    reason="SELECTION_ELSEWHERE",
                )
            await asyncio.sleep(_CLAIM_POLL_SECONDS)

    async def _run(self, run: Run, requests: StreamRequests) -> AsyncGenerator[StreamResponse, None]:
        launched = False
        try:
            record = await asyncio.to_thread(self.catalog.get, run.record.id)
            job = await asyncio.to_thread(self.admission.stream_job, record)
            next_seq = chunks_without_a_gap(await asyncio.to_thread(job.log.identities))
            complete = record.stream_chunks is not None
            yield self._accepted(record, next_seq=next_seq, complete=complete)
            acknowledgements = _Acknowledgements(run, next_seq)
            receiving: asyncio.Task[None] | None = None
            if not complete:
                chunks = ChunkQueue(STREAM_WINDOW, run.cancelled)
                job = replace(job, shards=chunks.shards())
                receiving = asyncio.create_task(self._receive(requests, chunks, acknowledgements, next_seq))
                receiving.add_done_callback(lambda task: _stop_on_failure(task, run))
            self.host.launch(run, lambda: job, acknowledgements)
            launched = True
            try:
                async with aclosing(_responses_of(run, acknowledgements)) as responses:
                    async for response in responses:
                        yield response
                # If the stream was invalid, raise that error.
                if receiving is not None and receiving.done() and not receiving.cancelled():
                    with suppress(SelectionCancelledError):
                        receiving.result()
            finally:
                run.cancelled.set()
                if receiving is not None:
                    receiving.cancel()
                    with suppress(Exception, asyncio.CancelledError):
                        await receiving
                await asyncio.shield(asyncio.wrap_future(run.ended))
        finally:
            if not launched:
                await asyncio.shield(asyncio.to_thread(self.host.abandon, run))

    async def _receive(
        self, requests: StreamRequests, chunks: ChunkQueue, acknowledgements: _Acknowledgements, seq: int
    ) -> None:
        """Receive chunks, starting with number `seq`, until the end message of the stream."""
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "end":
                if request.end.chunks != seq:
                    raise InvalidRequestError(
                        f"the stream ended after {seq} chunks; "
                        f"its end message says that there are {request.end.chunks}",
                        reason="STREAM_CUT_SHORT",
                    )
                await asyncio.to_thread(chunks.put, None)
                return
            if kind != "chunk":
                raise InvalidRequestError(
                    f"received {kind or 'an empty message'}; expected a chunk or the end of the stream",
                    reason="STREAM_OUT_OF_ORDER",
                )
            if request.chunk.seq < seq:
                await acknowledgements.repeat(request.chunk.seq)
                continue
            shard = await asyncio.to_thread(shard_of, request.chunk, seq, self.settings.max_chunk_bytes)
            await asyncio.to_thread(chunks.put, shard)
            seq += 1
        raise InvalidRequestError(
            f"the stream ended after {seq} chunks without an end message; send one after the last chunk",
            reason="STREAM_CUT_SHORT",
        )

    def _accepted(self, record: SelectionRecord, *, next_seq: int, complete: bool) -> StreamResponse:
        return StreamResponse(
            accepted=pb.StreamAccepted(
                model=record.model,
                window=STREAM_WINDOW,
                max_chunk_bytes=self.settings.max_chunk_bytes,
                selection=record.id,
                next_seq=next_seq,
                complete=complete,
            )
        )


class _Acknowledgements(RunEvents):
    """Collects the acknowledgements that are due. Chunks are committed in the order of the stream."""

    def __init__(self, run: Run, committed: int) -> None:
        """Observe a run.

        Args:
            run: the run.
            committed: the number of chunks that are already in the log.
        """
        super().__init__(run)
        self._acknowledged = committed
        self._committed = committed
        self._repeats: asyncio.Queue[int] = asyncio.Queue(_MAX_PENDING_REPEATS)

    def on_commit(self, shard: Shard) -> None:
        self._committed += 1
        super().on_commit(shard)

    async def repeat(self, seq: int) -> None:
        """Acknowledge a committed chunk again, waiting if the caller does not read responses."""
        if seq < self._committed:
            await self._repeats.put(seq)
            self.wake()

    def due(self) -> Iterator[int]:
        """Yield the sequence numbers to acknowledge now."""
        while self._acknowledged < self._committed:
            yield self._acknowledged
            self._acknowledged += 1
        while not self._repeats.empty():
            yield self._repeats.get_nowait()


async def _responses_of(
    run: Run, acknowledgements: _Acknowledgements
) -> AsyncGenerator[StreamResponse, None]:
    """Yield acknowledgements and progress until the run has ended."""
    reported_rows, reported_at = 0, time.monotonic()
    while True:
        # Check this first, so that all chunks that were committed before the end are acknowledged below.
        ended = run.ended.done()
        for seq in acknowledgements.due():
            yield StreamResponse(acknowledged=pb.ChunkAcknowledged(seq=seq))
        if ended:
            return
        progress = run.progress
        if progress.read != reported_rows and time.monotonic() - reported_at >= PROGRESS_SECONDS:
            reported_rows, reported_at = progress.read, time.monotonic()
            yield StreamResponse(progress=progress_message(progress))
        await acknowledgements.wait()


async def _start_of(requests: StreamRequests) -> pb.StreamStart:
    async for request in requests:
        if request.WhichOneof("message") == "start":
            return request.start
        break
    raise InvalidRequestError(
        "the first message of a stream must be its start message", reason="STREAM_OUT_OF_ORDER"
    )


def _stop_on_failure(receiving: asyncio.Task[None], run: Run) -> None:
    if receiving.cancelled() or receiving.exception() is not None:
        run.cancelled.set()
