"""Hostile values in each field of each call: the caller learns what is wrong, but nothing of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from support.crashing_server import CrashingServer, crashing_server
from support.rpc import encoded_chunk, end
from topb.v1 import model_pb2, model_pb2_grpc, selection_pb2, selection_pb2_grpc
from topb_scorer.strategies import names
from topb_scorer.strategies.diversity import Diversified
from topb_scorer.strategies.options import options_of
from topb_scorer.strategies.registry import configured

pytestmark = [pytest.mark.scorer, pytest.mark.slow]

SECONDS = 30.0
TEXTS = [
    "",
    "a" * 300,
    "a/" * 2500,
    "1" * 5000,
    "\0",
    "\n\x7f",
    "../..",
    "~",
    "%00",
    "٣",
    "💥" * 90,
    "[",
    "**",
    "s3://",
    "http://[",
    "https://user:secret@host/?token",
    "file://host/x",
    "/proc/self/mem",
]
NUMBERS = ["", "nan", "inf", "-1", "0", "1e-320", "1e38", "1e39", "1e308", "1" * 5000, "0x10", "1_0", "💥"]
VALUES: dict[int, Sequence[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: [b"", b"\x89PNG", b"\xff" * 300],
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_ENUM: [-1, 99],
    FieldDescriptor.TYPE_INT32: [-(2**31), -1, 2**31 - 1],
    FieldDescriptor.TYPE_INT64: [-(2**63), -1, 2**63 - 1],
    FieldDescriptor.TYPE_UINT32: [0, 2**32 - 1],
    FieldDescriptor.TYPE_UINT64: [0, 2**64 - 1],
    FieldDescriptor.TYPE_FIXED32: [0, 2**32 - 1],
    FieldDescriptor.TYPE_FIXED64: [0, 2**64 - 1],
}


@pytest.fixture(scope="module")
def hidden_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "state"


@pytest.fixture(scope="module")
def server(data: Path, state: Path, hidden_root: Path) -> Iterator[CrashingServer]:  # type: ignore[override]
    with crashing_server(data, state, options=(f"--allow-root={hidden_root}",)) as running:
        running.ready_address()
        yield running


@pytest.fixture
def channel(server: CrashingServer) -> Iterator[grpc.Channel]:  # type: ignore[override]
    with grpc.insecure_channel(server.ready_address()) as channel:
        yield channel


@pytest.fixture(scope="module")
def secrets(data: Path, state: Path, hidden_root: Path) -> list[str]:
    """Texts that no caller has sent, and that no answer may contain."""
    return [str(data / "models"), str(state), str(hidden_root), "Traceback", "SELECT ", "site-packages"]


def variants(message: Message) -> Iterator[Message]:
    """Yield copies of a message, each with one hostile value in one field."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue
        if field.message_type:
            if not field.is_repeated:
                for inner in variants(getattr(message, field.name)):
                    copy = type(message)()
                    copy.CopyFrom(message)
                    getattr(copy, field.name).CopyFrom(inner)
                    yield copy
            continue
        for value in VALUES[field.type]:
            copy = type(message)()
            copy.CopyFrom(message)
            if field.is_repeated:
                getattr(copy, field.name).extend([value, value])
            else:
                setattr(copy, field.name, value)
            yield copy


def faults(requests: Iterator[Message], call: Callable[[Any], Any], secrets: list[str]) -> list[str]:
    """Return the faults of the answers to the requests."""
    found = []
    for request in requests:
        answer = outcome(call, request)
        if answer.startswith(("INTERNAL", "UNKNOWN")) or any(secret in answer for secret in secrets):
            found.append(f"{str(request)[:200]!r}: {answer[:300]}")
    return found


def outcome(call: Callable[[Any], Any], request: Any) -> str:
    try:
        answer = call(request)
        return " ".join(map(str, answer)) if hasattr(answer, "__iter__") else str(answer)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()} {error.trailing_metadata()}"


def request_of(method: str, data: Path) -> Any:
    if method != "SelectBatch":
        return getattr(selection_pb2, f"{method}Request")()
    spec = selection_pb2.SelectionSpec(budget=2, strategy="margin")
    pool = selection_pb2.Pool(uri=str(data / "pool.parquet"))
    return selection_pb2.SelectBatchRequest(spec=spec, pool=pool)


@pytest.mark.parametrize(
    "method",
    [
        "SelectBatch",
        "GetSelection",
        "ListSelections",
        "ListPicks",
        "CancelSelection",
        "ScoreImages",
        "GetServerInfo",
    ],
)
def test_hostile_values_in_requests(
    method: str, data: Path, channel: grpc.Channel, secrets: list[str]
) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    call = getattr(stub, method)
    request = request_of(method, data)
    assert faults(variants(request), lambda message: call(message, timeout=SECONDS), secrets) == []


def test_hostile_page_tokens_of_a_result(data: Path, channel: grpc.Channel, secrets: list[str]) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    request = request_of("SelectBatch", data)
    (started, *_) = stub.SelectBatch(request, timeout=SECONDS)
    listing = selection_pb2.ListPicksRequest(selection=started.started.selection)
    listing_variants = (variant for variant in variants(listing) if variant.selection == listing.selection)
    assert faults(listing_variants, lambda message: stub.ListPicks(message, timeout=SECONDS), secrets) == []


def test_hostile_values_in_streams(channel: grpc.Channel, secrets: list[str]) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    kind = selection_pb2.SelectBatchFromStreamRequest
    start = kind(start=selection_pb2.StreamStart(spec={"budget": 2, "strategy": "margin"}))
    chunk = encoded_chunk(0)
    packed = kind(
        chunk=selection_pb2.PoolChunk(packed={"data": b"\0" * 12, "height": 2, "width": 2}, ids=["a"])
    )
    chunks = [*variants(chunk), *variants(packed)]
    streams = [[variant, chunk, end(1)] for variant in variants(start)]
    streams += [[start, variant, end(1)] for variant in chunks]
    streams += [[start, chunk, variant] for variant in variants(end(1))]

    def call(stream: Any) -> Any:
        return stub.SelectBatchFromStream(iter(stream), timeout=SECONDS)

    assert faults(iter(streams), call, secrets) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", names())
def test_hostile_values_of_options(
    strategy: str, data: Path, channel: grpc.Channel, secrets: list[str]
) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    options = {**options_of(type(configured(strategy, {}))), **options_of(Diversified), "💥": None}

    def requests() -> Iterator[Message]:
        for name in options:
            for number in NUMBERS:
                request = request_of("SelectBatch", data)
                request.spec.strategy = strategy
                request.spec.strategy_options[name] = number
                if name in options_of(Diversified):
                    request.spec.strategy_options.setdefault("diversify", "2")
                yield request

    def call(message: Any) -> Any:
        return stub.SelectBatch(message, timeout=SECONDS)

    assert faults(requests(), call, secrets) == []


@pytest.mark.parametrize("method", ["ListModels", "GetModel"])
def test_hostile_values_for_models(method: str, channel: grpc.Channel, secrets: list[str]) -> None:
    call = getattr(model_pb2_grpc.ModelServiceStub(channel), method)
    request = getattr(model_pb2, f"{method}Request")()
    assert faults(variants(request), lambda message: call(message, timeout=SECONDS), secrets) == []


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\xff", b"\x07" * 4000])
def test_bytes_that_are_no_message_are_refused_and_not_logged(
    content: bytes, channel: grpc.Channel, server: CrashingServer
) -> None:
    before = server.log
    modules = (selection_pb2, model_pb2, health_pb2)
    for method in (method for module in modules for method in methods_of(module)):
        name = f"/{method.containing_service.full_name}/{method.name}"
        kinds = [
            "stream" if streaming else "unary"
            for streaming in (method.client_streaming, method.server_streaming)
        ]
        call = getattr(channel, "_".join(kinds))(name)
        request = iter([content]) if method.client_streaming else content
        answer = outcome(lambda message, call=call: call(message, timeout=SECONDS), request)
        assert answer.startswith("INVALID_ARGUMENT"), f"{name}: {answer}"
        assert "REQUEST_MALFORMED" in answer
    assert server.log == before


def methods_of(module: Any) -> list[Any]:
    return [method for service in module.DESCRIPTOR.services_by_name.values() for method in service.methods]
