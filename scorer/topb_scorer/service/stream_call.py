"""One connection of a streamed selection: start or resume, take chunks, acknowledge what is durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace

from topb.progress import Progress
from topb.selections import SelectionState
from topb.v1 import selection_pb2 as pb
from topb_scorer.errors import InvalidRequestError, SelectionCancelledError, UnavailableError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Run
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.stream import ChunkQueue, chunks_without_a_gap
from topb_scorer.service.admission import Admission
from topb_scorer.service.relay import SelectionRelay
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.translate import progress_message, shard_of
from topb_scorer.service.watching import draining, failure_of

# Chunks a caller may have under way: enough to hide a round trip, few enough to bound memory.
STREAM_WINDOW = 8

_CLAIM_POLL_SECONDS = 0.1

StreamRequests = AsyncIterator[pb.SelectBatchFromStreamRequest]
StreamResponse = pb.SelectBatchFromStreamResponse


class StreamCall:
    """What one call of SelectBatchFromStream does, but for sending the result.

    Attributes:
        selection: id of the selection, once the first response is out.
    """

    def __init__(
        self, settings: ServerSettings, state: StateDirectory, host: SelectionHost, requests: Admission
    ) -> None:
        self.selection = ""
        self._settings = settings
        self._state = state
        self._host = host
        self._requests = requests

    async def responses(self, requests: StreamRequests) -> AsyncGenerator[StreamResponse, None]:
        """All responses until the selection has succeeded.

        Raises:
            ScorerError: the stream is at fault, the selection failed, or this server cannot go on with it.
        """
        start = await _start(requests)
        record = await asyncio.to_thread(self._requests.stream_selection, start)
        self.selection = record.id
        run = await self._claimed(record)
        if run is None:
            yield self._accepted(record, next_seq=record.stream_chunks or 0, complete=True)
        else:
            async with aclosing(self._run(run, requests)) as responses:
                async for response in responses:
                    yield response
        record = await asyncio.to_thread(self._state.catalog.get, record.id)
        if record.state is SelectionState.SUCCEEDED:
            return
        if record.state.ended:
            raise failure_of(record)
        if run is not None and run.error is not None:
            raise run.error
        raise draining() if self._host.draining else SelectionCancelledError

    async def _claimed(self, record: SelectionRecord) -> Run | None:
        """The run of an open selection, taken over from an older connection; None if it has ended."""
        # A server that died with this stream keeps its lease for a while yet.
        deadline = time.monotonic() + 2 * self._settings.lease_seconds
        while True:
            await asyncio.to_thread(self._host.pause, record.id)
            run = await asyncio.to_thread(self._host.claim, record)
            if run is not None:
                return run
            if self._host.draining:
                raise draining()
            record = await asyncio.to_thread(self._state.catalog.get, record.id)
            if record.state.ended:
                return None
            busy = self._host.running >= self._settings.max_concurrent_selections
            if busy or time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self._host.running} selections run, as many as this server runs at once"
                    if busy
                    else f"another server works on selection {record.id}",
                    reason="SELECTIONS_BUSY" if busy else "SELECTION_ELSEWHERE",
                )
            await asyncio.sleep(_CLAIM_POLL_SECONDS)

    async def _run(self, run: Run, requests: StreamRequests) -> AsyncGenerator[StreamResponse, None]:
        started = False
        try:
            record = await asyncio.to_thread(self._state.catalog.get, run.record.id)
            job = await asyncio.to_thread(self._requests.stream_job, record)
            next_seq = chunks_without_a_gap(await asyncio.to_thread(job.log.identities))
            complete = record.stream_chunks is not None
            yield self._accepted(record, next_seq=next_seq, complete=complete)
            relay = SelectionRelay(chunks_held=next_seq)
            chunks = ChunkQueue(STREAM_WINDOW, run.cancelled)
            if not complete:
                job = replace(job, shards=chunks.shards())
            receiving = asyncio.create_task(
                _nothing() if complete else self._receive(requests, chunks, relay, next_seq)
            )
            receiving.add_done_callback(lambda task: _stop_on_failure(task, run))
            started = True

            def work() -> object:
                return self._host.execute(run, lambda: job, relay)

            try:
                events = relay.events(self._host.workers, work, run.cancelled.set)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, Progress):
                            yield StreamResponse(progress=progress_message(event))
                        else:
                            yield StreamResponse(acknowledged=pb.ChunkAcknowledged(seq=event.seq))
                # Where the stream itself was at fault, that is what the caller is told.
                if receiving.done() and not receiving.cancelled():
                    with suppress(SelectionCancelledError):
                        receiving.result()
            finally:
                receiving.cancel()
                with suppress(Exception, asyncio.CancelledError):
                    await receiving
        finally:
            if not started:
                await asyncio.shield(asyncio.to_thread(self._host.abandon, run))

    async def _receive(
        self, requests: StreamRequests, chunks: ChunkQueue, relay: SelectionRelay, seq: int
    ) -> None:
        """Takes chunks from `seq` on until the caller says that the pool is complete."""
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
            if request.chunk.seq < seq:
                await relay.on_repeat(request.chunk.seq)
                continue
            shard = await asyncio.to_thread(shard_of, request.chunk, seq, self._settings.max_chunk_bytes)
            await asyncio.to_thread(chunks.put, shard)
            seq += 1
        raise InvalidRequestError(
            f"the stream ended after {seq} chunks without saying that the pool is complete",
            reason="STREAM_CUT_SHORT",
        )

    def _accepted(self, record: SelectionRecord, *, next_seq: int, complete: bool) -> StreamResponse:
        return StreamResponse(
            accepted=pb.StreamAccepted(
                model=record.model,
                window=STREAM_WINDOW,
                max_chunk_bytes=self._settings.max_chunk_bytes,
                selection=record.id,
                next_seq=next_seq,
                complete=complete,
            )
        )


async def _start(requests: StreamRequests) -> pb.StreamStart:
    async for request in requests:
        if request.WhichOneof("message") == "start":
            return request.start
        break
    raise InvalidRequestError("a stream begins with its start message", reason="STREAM_OUT_OF_ORDER")


async def _nothing() -> None:
    """Stands for receiving where nothing is to come."""


def _stop_on_failure(receiving: asyncio.Task[None], run: Run) -> None:
    if receiving.cancelled() or receiving.exception() is not None:
        run.cancelled.set()
