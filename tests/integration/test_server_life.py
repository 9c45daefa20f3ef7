"""The life of a server: what it serves, what it answers when it is busy, and how it shuts down."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import topb
from support.bundles import convolutional_graph, write_bundle
from support.rpc import START, Stub, encoded_chunk, end, slow_rows
from support.servers import RunningServer, running_server
from topb.v1 import model_pb2, model_pb2_grpc

pytestmark = pytest.mark.scorer


def test_models_are_listed_in_pages_and_the_newest_is_the_default(tmp_path: Path) -> None:
    written = [
        write_bundle(tmp_path, convolutional_graph(seed=seed), created_seconds=seed).name
        for seed in (3, 1, 2)
    ]
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")
    with running_server(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        first = stub.ListModels(model_pb2.ListModelsRequest(page_size=2), timeout=30)
        next_page = model_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token)
        second = stub.ListModels(next_page, timeout=30)
        default = stub.GetModel(model_pb2.GetModelRequest(), timeout=30).model
        added = write_bundle(tmp_path, convolutional_graph(seed=9), created_seconds=9).name
        found_later = stub.GetModel(model_pb2.GetModelRequest(model=added), timeout=30).model

    listed = [model.bundle.model_id for model in (*first.models, *second.models)]
    assert listed == sorted(written)
    assert second.next_page_token == ""
    assert (default.bundle.model_id, default.is_default) == (written[0], True)
    assert found_later.is_default


def test_the_server_answers_health_and_reflection_calls(server: RunningServer, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "topb.v1.SelectionService", "topb.v1.ModelService"):
        response = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"topb.v1.SelectionService", "topb.v1.ModelService", "grpc.health.v1.Health"} <= set(services)


def test_selections_at_a_busy_server_wait_and_a_deadline_frees_its_slot(data: Path) -> None:
    options = ("--max-concurrent-selections=1",)
    with (
        running_server(data / "models", data, options=options) as server,
        topb.Client(server.address, timeout=30) as client,
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor() as threads,
    ):
        started = threading.Event()
        first = threads.submit(client.select_batch, slow_rows(started, 30.0), 3, timeout=3)
        assert started.wait(10)
        requests = iter([START, encoded_chunk(0), end(1)])
        second = Stub(channel).SelectBatchFromStream(requests, timeout=30)
        waiting = next(second)
        waited_for_its_turn = client.select_batch(data / "pool.parquet", 3)
        with pytest.raises(topb.DeadlineExceededError):
            first.result()
        then = next(response for response in second if not response.HasField("progress"))
        assert any(response.HasField("summary") for response in second)
    assert (waiting.progress.queue.position, waiting.progress.queue.length) == (1, 1)
    assert then.HasField("accepted")
    assert len(waited_for_its_turn.ids) == 3


def test_a_draining_server_finishes_running_selections(data: Path) -> None:
    with (
        running_server(data / "models", data) as server,
        topb.Client(server.address, timeout=30) as client,
        ThreadPoolExecutor() as threads,
    ):
        started = threading.Event()
        running = threads.submit(client.select_batch, slow_rows(started), 3)
        assert started.wait(10)
        server.process.send_signal(signal.SIGTERM)
        assert len(running.result().ids) == 3
        assert server.process.wait(10) == 0


def test_a_listen_address_in_use_is_an_error_at_startup(server: RunningServer, data: Path) -> None:
    command = [sys.executable, "-m", "topb", "serve", "--models", str(data / "models")]
    ended = subprocess.run([*command, "--listen", server.address], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "LISTEN_FAILED" in ended.stderr
    # gRPC writes a line of its own, with the name of its source file, if it cannot listen.
    assert ".cc:" not in ended.stderr
    assert "Traceback" not in ended.stderr
