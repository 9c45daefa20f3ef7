"""Callers that use the service without the SDK. They see every message and never retry."""

from __future__ import annotations

import multiprocessing
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

_CALL_SECONDS = 120


@dataclass(frozen=True)
class RawResult:
    """The result of a selection, as messages."""

    summary: pb.SelectionSummary
    picks: tuple[pb.Pick, ...]

    @property
    def content(self) -> bytes:
        """The serialized result, without the elapsed time."""
        summary = pb.SelectionSummary()
        summary.CopyFrom(self.summary)
        summary.ClearField("elapsed")
        messages = [summary, *self.picks]
        return b"".join(message.SerializeToString(deterministic=True) for message in messages)

    def check_accounts(self, rows: int) -> None:
        """Assert that each row of the pool is counted exactly once."""
        accounts = self.summary.accounts
        skipped = sum(skip.count for skip in accounts.skipped)
        assert accounts.read == rows
        assert accounts.read == accounts.scored + skipped + accounts.duplicate + accounts.excluded
        assert self.summary.pick_count == len(self.picks) == min(self.summary.budget, accounts.scored)
        assert [pick.rank for pick in self.picks] == list(range(1, len(self.picks) + 1))
        assert len({pick.id for pick in self.picks}) == len(self.picks)


@dataclass
class PoolCaller:
    """Requests a selection from a pool that the server reads. A further call continues the selection."""

    request: pb.SelectBatchRequest

    def call(self, address: str) -> RawResult:
        """Call the server and return the result.

        Raises:
            grpc.RpcError: the call failed.
        """
        with grpc.insecure_channel(address) as channel:
            stub = selection_pb2_grpc.SelectionServiceStub(channel)
            return _result(stub.SelectBatch(self.request, timeout=_CALL_SECONDS))


@dataclass
class StreamCaller:
    """Requests a selection from a pool that it sends. A further call sends only the chunks that the server
    lacks."""

    start: pb.StreamStart
    chunks: Sequence[pb.PoolChunk]
    end: bool = True
    """Whether to send the end of the pool. If not, a call disconnects once all chunks are acknowledged."""
    acknowledged: int = -1
    """The last chunk that was acknowledged."""
    sent_first: list[int] = field(default_factory=list)
    """The first chunk that each call sent."""

    def call(self, address: str) -> RawResult:
        """Call the server and return the result.

        Raises:
            grpc.RpcError: the call failed.
        """
        accepted: list[pb.StreamAccepted] = []
        may_send, gone = threading.Event(), threading.Event()

        def requests() -> Iterator[pb.SelectBatchFromStreamRequest]:
            yield pb.SelectBatchFromStreamRequest(start=self.start)
            may_send.wait()
            if not accepted or accepted[0].complete:
                return
            self.sent_first.append(accepted[0].next_seq)
            for chunk in self.chunks[accepted[0].next_seq :]:
                yield pb.SelectBatchFromStreamRequest(chunk=chunk)
            if self.end:
                yield pb.SelectBatchFromStreamRequest(end=pb.StreamEnd(chunks=len(self.chunks)))
            while self.acknowledged < len(self.chunks) - 1 and not gone.wait(0.01):
                pass

        def seen(responses: Iterator[Any]) -> Iterator[Any]:
            for response in responses:
                kind = response.WhichOneof("event")
                if kind == "accepted":
                    assert response.accepted.next_seq > self.acknowledged, (
                        "the server asked for a chunk that it had acknowledged"
                    )
                    self.acknowledged = response.accepted.next_seq - 1
                    accepted.append(response.accepted)
                    may_send.set()
                if kind == "acknowledged":
                    assert response.acknowledged.seq > self.acknowledged, (
                        "the server acknowledged a chunk twice"
                    )
                    self.acknowledged = response.acknowledged.seq
                yield response

        with grpc.insecure_channel(address) as channel:
            stub = selection_pb2_grpc.SelectionServiceStub(channel)
            try:
                return _result(seen(stub.SelectBatchFromStream(requests(), timeout=_CALL_SECONDS)))
            finally:
                gone.set()
                may_send.set()


class KilledCaller:
    """A caller in its own process, which can be killed."""

    def __init__(self, caller: PoolCaller | StreamCaller, address: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=caller.call, args=(address,), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is dead."""
        self._process.kill()
        self._process.join()


def pool_request(
    pool: Path, request_id: str, *, spec: pb.SelectionSpec, detached: bool = False
) -> pb.SelectBatchRequest:
    """Return a request for a selection from a pool that the server reads."""
    return pb.SelectBatchRequest(
        spec=spec, pool=pb.Pool(uri=str(pool)), request_id=request_id, detached=detached
    )


def chunks_of(rows: Sequence[tuple[str, bytes]], size: int) -> list[pb.PoolChunk]:
    """Return the rows as chunks of a stream."""
    chunks = []
    for seq, start in enumerate(range(0, len(rows), size)):
        ids, images = zip(*rows[start : start + size], strict=True)
        crc32 = zlib.crc32(b"".join(images))
        chunks.append(pb.PoolChunk(seq=seq, crc32=crc32, ids=ids, encoded={"data": images}))
    return chunks


def _result(responses: Iterator[Any]) -> RawResult:
    summary: pb.SelectionSummary | None = None
    picks: list[pb.Pick] = []
    for response in responses:
        if response.HasField("summary"):
            summary = response.summary
        picks += response.picks.picks
    assert summary is not None, "the call ended without a summary"
    return RawResult(summary, tuple(picks))
