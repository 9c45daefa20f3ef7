from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import topb
from support.servers import RunningServer, running_server
from topb.v1 import selection_pb2_grpc


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `models/` of one bundle and `pool.parquet` of 300 images."""
    # Imported here because the tests in sdk/ run where the scorer is not installed.
    from support.bundles import write_bundle
    from support.images import random_pool, write_parquet

    folder = tmp_path_factory.mktemp("data")
    write_bundle(folder / "models")
    write_parquet(folder / "pool.parquet", random_pool(300))
    return folder


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[RunningServer]:
    with running_server(data / "models", data) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[topb.Client]:
    with topb.Client(server.address, timeout=60) as client:
        yield client


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> selection_pb2_grpc.SelectionServiceStub:
    return selection_pb2_grpc.SelectionServiceStub(channel)
