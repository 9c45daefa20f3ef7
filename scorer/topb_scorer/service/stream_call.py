"""Handle calls of SelectBatchFromStream: start or resume selections, and receive and acknowledge chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from topb.progress import QueuePlace
from topb.selections import SelectionState
from topb.v1 import selection_pb2 as pb
from topb_scorer.errors import (
    InvalidRequestError,
    SelectionCancelledError,
    TakenOverError,
    UnavailableError,
)
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Run, StreamJob
from topb_scorer.pools.pool import MAX_ID_BYTES, Shard
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
        # No variable holds the start message, which may be large, while the call waits.
        record = await asyncio.to_thread(self.admission.stream_selection, await _start_of(requests))
        self.selection = record.id
        run = Run(record)
        incoming = _IncomingChunks(run, idle_seconds=self.settings.stream_idle_seconds)
        run.observer, run.open_job = incoming, lambda: self._open_job(run, incoming)
        try:
            if await self._started(run):
                async with aclosing(self._run(run, incoming, requests)) as responses:
                    async for response in responses:
                        yield response
            else:
                yield self._accepted(record, next_seq=record.stream_chunks or 0, complete=True)
        finally:
            if not run.ended.done():
                await asyncio.shield(asyncio.to_thread(self.host.stop, run))
        record = await asyncio.to_thread(self.catalog.get, record.id)
        if has_succeeded(record):
            return
        if run.error is not None:
            raise run.error
        if self.host.draining:
            raise draining()
        if not (run.begun or run.cancelled.is_set()):
            # Another server claimed the selection first.
            raise _elsewhere(record)
        raise TakenOverError(
            f"another call continues selection {record.id}; only one call at a time can send its pool",
            reason="STREAM_TAKEN_OVER",
            selection=record.id,
        )

    async def _started(self, run: Run) -> bool:
        """Take over the selection from any older call, and start the run. Return False if it has ended."""
        # The lease of a server that died while serving this stream takes a while to expire.
        deadline = time.monotonic() + 2 * self.settings.lease_seconds
        while True:
            await asyncio.to_thread(self.host.pause, run.record.id)
            record = await asyncio.to_thread(self.catalog.get, run.record.id)
            if record.free and await asyncio.to_thread(self.host.start, run):
                return True
            if record.state not in {SelectionState.PENDING, SelectionState.RUNNING}:
                return False
            if self.host.draining:
                raise draining()
            if time.monotonic() > deadline:
                raise _elsewhere(record)
            await asyncio.sleep(_CLAIM_POLL_SECONDS)

    def _open_job(self, run: Run, incoming: _IncomingChunks) -> StreamJob:
        record = self.catalog.get(run.record.id)
        job = self.admission.stream_job(record)
        # The accepted message acknowledges these chunks.
        job.logs.make_durable()
        next_seq = chunks_without_a_gap(job.logs.identities())
        incoming.open(next_seq, complete=record.stream_chunks is not None)
        return replace(job, shards=incoming.queue.shards()) if record.stream_chunks is None else job

    async def _run(
        self, run: Run, incoming: _IncomingChunks, requests: StreamRequests
    ) -> AsyncGenerator[StreamResponse, None]:
        # A task of its own, so that the idle time counts even if the caller reads no responses.
        receiving = asyncio.create_task(self._receive(requests, incoming))
        receiving.add_done_callback(lambda task: _stop_on_failure(task, run))
        try:
            async with aclosing(self._places(run, incoming)) as places:
                async for place in places:
                    yield place
            if incoming.opened:
                yield self._accepted(run.record, next_seq=incoming.first_seq, complete=incoming.complete)
                async with aclosing(_responses_of(run, incoming)) as responses:
                    async for response in responses:
                        yield response
            # If the stream was invalid or idle, raise that error.
            if receiving.done() and not receiving.cancelled():
                with suppress(SelectionCancelledError):
                    receiving.result()
        finally:
            if incoming.opened:
                run.cancelled.set()
            receiving.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await receiving

    async def _places(self, run: Run, incoming: _IncomingChunks) -> AsyncGenerator[StreamResponse, None]:
        """Yield the places of the selection in the queue until its turn has come or it has left."""
        reported: QueuePlace | None = None
        while not incoming.opened and not run.ended.done():
            place = self.host.place_of(run.record.id)
            if place is not None and place != reported:
                reported = place
                yield StreamResponse(progress=progress_message(replace(run.progress, queue=place)))
            await incoming.wait()

    async def _receive(self, requests: StreamRequests, incoming: _IncomingChunks) -> None:
        """Receive the chunks of the stream and its end message, once the turn of the selection has come.

        Raises:
            UnavailableError: the caller has sent nothing for too long, although nothing is left to score.
        """
        await incoming.turn.wait()
        if incoming.complete:
            return
        taking = asyncio.create_task(self._take(requests, incoming))
        try:
            while not (await asyncio.wait([taking], timeout=incoming.idle_seconds / 8))[0]:
                if incoming.idle:
                    raise UnavailableError(
                        f"the caller has sent nothing for {incoming.idle_seconds:g} s, so others have their "
                        "turn; repeat the request with the same request id to continue",
                        reason="STREAM_IDLE",
                        retry_delay=0.0,
                    )
            taking.result()
        finally:
            taking.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await taking

    async def _take(self, requests: StreamRequests, incoming: _IncomingChunks) -> None:
        async for request in requests:
            seq = incoming.next_seq
            kind = request.WhichOneof("message")
            if kind == "end":
                if request.end.chunks != seq:
                    raise InvalidRequestError(
                        f"the stream ended after {seq} chunks; "
                        f"its end message says that there are {request.end.chunks}",
                        reason="STREAM_CUT_SHORT",
                    )
                await asyncio.to_thread(incoming.queue.put, None)
                return
            if kind != "chunk":
                raise InvalidRequestError(
                    f"received {kind or 'an empty message'}; expected a chunk or the end of the stream",
                    reason="STREAM_OUT_OF_ORDER",
                )
            if request.chunk.seq < seq:
                await incoming.repeat(request.chunk.seq)
                continue
            limits = {"max_bytes": self.settings.max_chunk_bytes, "max_rows": self.settings.max_chunk_rows}
            shard = await asyncio.to_thread(shard_of, request.chunk, seq, **limits)
            incoming.note_received()
            await asyncio.to_thread(incoming.queue.put, shard)
        raise InvalidRequestError(
            f"the stream ended after {incoming.next_seq} chunks without an end message; "
            "send one after the last chunk",
            reason="STREAM_CUT_SHORT",
        )

    def _accepted(self, record: SelectionRecord, *, next_seq: int, complete: bool) -> StreamResponse:
        return StreamResponse(
            accepted=pb.StreamAccepted(
                model=record.model,
                window=STREAM_WINDOW,
                max_chunk_bytes=self.settings.max_chunk_bytes,
                max_chunk_rows=self.settings.max_chunk_rows,
                max_id_bytes=MAX_ID_BYTES,
                selection=record.id,
                next_seq=next_seq,
                complete=complete,
            )
        )


class _IncomingChunks(RunEvents):
    """The chunks of one call, in the order of the stream: received, then committed, then acknowledged.

    Attributes:
        queue: the chunks that wait to be scored.
        idle_seconds: how long the server waits for the next chunk.
        turn: set when the turn of the selection has come, and chunks may be sent.
        opened: the same, for other threads and before the event loop knows.
        complete: whether the server has had the whole pool from the start.
        first_seq: the number of the first chunk to receive in this call.
        next_seq: the number of the next chunk to receive.
    """

    def __init__(self, run: Run, *, idle_seconds: float) -> None:
        super().__init__(run)
        self.queue = ChunkQueue(STREAM_WINDOW, run.cancelled)
        self.idle_seconds = idle_seconds
        self.turn = asyncio.Event()
        self.opened = self.complete = False
        self.first_seq = self.next_seq = self._committed = self._acknowledged = 0
        self._moved = time.monotonic()
        self._repeats: asyncio.Queue[int] = asyncio.Queue(_MAX_PENDING_REPEATS)

    def open(self, committed: int, *, complete: bool) -> None:
        """Begin after the chunks that are already in the log. This method can be called on any thread."""
        self.first_seq = self.next_seq = self._committed = self._acknowledged = committed
        self.complete = complete
        self._moved = time.monotonic()
        self.opened = True
        self._loop.call_soon_threadsafe(self.turn.set)
        self.wake()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to score and the next chunk has not come in time."""
        return self._committed == self.next_seq and time.monotonic() - self._moved > self.idle_seconds

    def note_received(self) -> None:
        """Note that the next chunk was received."""
        self.next_seq += 1
        self._moved = time.monotonic()

    def on_commit(self, shard: Shard) -> None:
        self._committed += 1
        self._moved = time.monotonic()
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


async def _responses_of(run: Run, incoming: _IncomingChunks) -> AsyncGenerator[StreamResponse, None]:
    """Yield acknowledgements and progress until the run has ended."""
    reported_rows, reported_at = 0, time.monotonic()
    while True:
        # Check this first, so that all chunks that were committed before the end are acknowledged below.
        ended = run.ended.done()
        for seq in incoming.due():
            yield StreamResponse(acknowledged=pb.ChunkAcknowledged(seq=seq))
        if ended:
            return
        progress = run.progress
        if progress.read != reported_rows and time.monotonic() - reported_at >= PROGRESS_SECONDS:
            reported_rows, reported_at = progress.read, time.monotonic()
            yield StreamResponse(progress=progress_message(progress))
        await incoming.wait()


def _elsewhere(record: SelectionRecord) -> UnavailableError:
    return UnavailableError(
        f"another server runs selection {record.id}; try again later", reason="SELECTION_ELSEWHERE"
    )


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
