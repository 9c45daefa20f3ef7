"""A gRPC server in this process, whose answers are scripted by each test."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

import topb
from topb.v1 import error_details_pb2, model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc

MODEL = "0123456789abcdef"
CLASSES = ["cat", "dog", "horse"]
# This pool fills four chunks of 1000 bytes.
CHUNK, CHUNKS = 1000, 4
POOL = [(f"image-{row:02}", bytes([row]) * 200) for row in range(14)]
QUICK_RETRY = topb.RetryPolicy(attempts=3, initial_delay=0.001, maximum_delay=0.002)


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def picks(count: int, *, first: int = 1) -> list[selection_pb2.Pick]:
    return [
        selection_pb2.Pick(
            id=f"image-{rank}",
            rank=rank,
            score=1.0 / rank,
            predicted_class=rank % 3,
            probability=0.5,
            entropy=1.25,
            predicted_class_name=CLASSES[rank % 3],
        )
        for rank in range(first, first + count)
    ]


def summary(pick_count: int, *, budget: int | None = None, read: int = 100) -> selection_pb2.SelectionSummary:
    return selection_pb2.SelectionSummary(
        model=MODEL,
        strategy="aalu",
        seed=7,
        budget=pick_count if budget is None else budget,
        pick_count=pick_count,
        accounts=selection_pb2.Accounts(read=read, scored=read),
        elapsed=duration(1.5),
    )


def whole_answer(
    response: type, *, pick_count: int = 3, budget: int | None = None, read: int = 100
) -> list[Any]:
    """Return a summary and its picks in two pages, as responses of the given type."""
    half = pick_count // 2
    pages = [picks(half), picks(pick_count - half, first=half + 1)]
    return [
        response(summary=summary(pick_count, budget=budget, read=read)),
        *(response(picks=selection_pb2.PickPage(picks=page)) for page in pages if page),
    ]


def error_details(
    reason: str, metadata: dict[str, str] | None = None, retry_delay: float | None = None
) -> bytes:
    """Return a google.rpc.Status with an ErrorInfo, and a RetryInfo if there is a delay."""
    status = error_details_pb2.ErrorStatus(message="the status's own message")
    info = error_details_pb2.ErrorInfo(reason=reason, domain="topb", metadata=metadata or {})
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
    # Clients ignore details that they do not know.
    status.details.add(type_url="type.googleapis.com/google.rpc.Help", value=b"\x0a\x00")
    if retry_delay is not None:
        retry = error_details_pb2.RetryInfo(retry_delay=duration(retry_delay))
        status.details.add(
            type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry.SerializeToString()
        )
    return status.SerializeToString()


def abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, message: str, details: bytes | None = None
) -> None:
    if details is not None:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(code, message)


def stall(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Send no answer until the call has ended."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait()
    yield from ()


class StreamServer:
    """Implements SelectBatchFromStream by the contract, and keeps what it receives between connections.

    A point of `breaks` is `("accepted", 0)`, `("received", seq)`, `("committed", seq)`, `("acknowledged",
    seq)`, `("end", 0)` or `("summary", 0)`. The connection breaks just after that point, once for each time
    that the point is listed.
    """

    def __init__(
        self,
        breaks: Sequence[tuple[str, int]] = (),
        *,
        window: int = 4,
        max_chunk_bytes: int = 4 * 2**20,
        pick_count: int = 0,
        lost_rows: int = 0,
    ) -> None:
        self.breaks = list(breaks)
        self.window = window
        self.max_chunk_bytes = max_chunk_bytes
        self.pick_count = pick_count
        self.lost_rows = lost_rows
        self.starts: list[selection_pb2.StreamStart] = []
        self.sent: list[int] = []
        self.chunks: list[selection_pb2.PoolChunk] = []
        self.end: selection_pb2.StreamEnd | None = None

    @property
    def rows(self) -> list[tuple[str, bytes]]:
        return [row for chunk in self.chunks for row in zip(chunk.ids, _rows_of(chunk), strict=True)]

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        def reached(what: str, seq: int = 0) -> None:
            if (what, seq) in self.breaks:
                self.breaks.remove((what, seq))
                abort(context, grpc.StatusCode.UNAVAILABLE, "shutting down", error_details("SERVER_DRAINING"))

        response = selection_pb2.SelectBatchFromStreamResponse
        self.starts.append(next(requests).start)
        yield response(
            accepted=selection_pb2.StreamAccepted(
                model=MODEL,
                window=self.window,
                max_chunk_bytes=self.max_chunk_bytes,
                selection="s-1",
                next_seq=len(self.chunks),
                complete=self.end is not None,
            )
        )
        reached("accepted")
        for request in requests if self.end is None else ():
            if request.WhichOneof("message") == "end":
                assert request.end.chunks == len(self.chunks)
                self.end = request.end
                break
            chunk = request.chunk
            assert chunk.seq == len(self.chunks)
            data = b"".join(chunk.encoded.data) + chunk.vectors.data + chunk.vectors.probabilities
            assert chunk.crc32 == zlib.crc32(data)
            self.sent.append(chunk.seq)
            reached("received", chunk.seq)
            self.chunks.append(chunk)
            reached("committed", chunk.seq)
            yield response(acknowledged=selection_pb2.ChunkAcknowledged(seq=chunk.seq))
            reached("acknowledged", chunk.seq)
            yield response(progress=selection_pb2.SelectionProgress(read=len(self.rows)))
        reached("end")
        read = len(self.rows) - self.lost_rows
        for event in whole_answer(response, pick_count=self.pick_count, read=read):
            yield event
            reached("summary")


def _rows_of(chunk: selection_pb2.PoolChunk) -> list[bytes]:
    size = 4 * chunk.vectors.width
    vectors = chunk.vectors.data
    return [
        *chunk.encoded.data,
        *(vectors[row * size :][:size] for row in range(len(vectors) // max(1, size))),
    ]


class ScriptedServer:
    """Serves both services at `address`.

    Tests set the methods that they need, such as `server.select_batch`: each to its answer (a message, or a
    list of them for a stream), or to a function of the request and the context that returns the answer.
    """

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.timeouts: list[float | None] = []
        self.called = threading.Event()
        self.ended = threading.Event()
        self._workers = ThreadPoolExecutor(4)
        self._server = grpc.server(
            self._workers, options=(("grpc.max_receive_message_length", 64 * 2**20), ("grpc.so_reuseport", 0))
        )
        for module, register in (
            (selection_pb2, selection_pb2_grpc.add_SelectionServiceServicer_to_server),
            (model_pb2, model_pb2_grpc.add_ModelServiceServicer_to_server),
        ):
            (service,) = module.DESCRIPTOR.services_by_name.values()
            methods = {method.name: self._scripted(method) for method in service.methods}
            register(SimpleNamespace(**methods), self._server)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def _scripted(self, method: Any) -> Callable[[Any, grpc.ServicerContext], Any]:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self.timeouts.append(context.time_remaining())
            self.called.set()
            if not context.add_callback(self.ended.set):
                self.ended.set()
            if not hasattr(self, name):
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            answer = getattr(self, name)
            return answer(request, context) if callable(answer) else answer

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from call(request, context)

        return stream if method.server_streaming else call

    def stop(self) -> None:
        self._server.stop(grace=0).wait()
        self._workers.shutdown()


def model_message() -> model_pb2.Model:
    message = model_pb2.Model(is_default=True)
    bundle = message.bundle
    bundle.model_id = MODEL
    bundle.create_time.FromJsonString("2025-03-04T05:06:07Z")
    bundle.method = "aalu"
    bundle.round = 2
    bundle.input.height, bundle.input.width, bundle.input.resize = 32, 48, 2
    bundle.classes.extend(CLASSES)
    bundle.outputs.add(name="score", meaning="the assistant's")
    bundle.outputs.add(name="features", meaning="the task model's", shape=[16])
    bundle.strategies.extend(["aalu", "random"])
    bundle.labelled_count = 4500
    bundle.test_accuracy = 0.625
    bundle.seed = 11
    bundle.configuration.update({"task": {"epochs": 3.0}})
    bundle.library_versions["torch"] = "2.9"
    bundle.gates.add(name="score_error", measured=1e-6, limit=1e-4, meaning="largest difference")
    bundle.encoder_id, bundle.feature_type = "e" * 16, 2
    return message


def server_info_message() -> selection_pb2.GetServerInfoResponse:
    return selection_pb2.GetServerInfoResponse(
        version="0.1.0",
        devices=["cpu"],
        default_model=MODEL,
        strategies=["aalu", "random"],
        limits=selection_pb2.Limits(
            max_budget=1_000_000,
            max_chunk_bytes=4 * 2**20,
            max_image_bytes=20 * 2**20,
            max_image_pixels=50_000_000,
            max_images_per_score_call=64,
            max_concurrent_selections=2,
            max_chunk_rows=16_384,
            max_id_bytes=1024,
        ),
    )
