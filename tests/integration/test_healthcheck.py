"""The containers' health check against a real server."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SCRIPT = Path(__file__).parents[2] / "deploy" / "healthcheck.py"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

pytestmark = pytest.mark.scorer


@pytest.fixture
def server() -> Iterator[tuple[str, health.HealthServicer]]:
    """An address, and what answers there."""
    servicer = health.HealthServicer()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}", servicer
    server.stop(None).wait()


def check(address: str) -> tuple[int, str]:
    run = subprocess.run([sys.executable, str(SCRIPT), address], capture_output=True, text=True, check=False)
    return run.returncode, run.stderr


def test_the_health_check_passes_for_a_serving_server(server: tuple[str, health.HealthServicer]) -> None:
    address, servicer = server
    servicer.set("topb.v1.SelectionService", SERVING)
    assert check(address) == (0, f"topb.v1.SelectionService at {address}: SERVING\n")


def test_the_health_check_fails_for_a_draining_server(server: tuple[str, health.HealthServicer]) -> None:
    address, servicer = server
    servicer.set("topb.v1.SelectionService", NOT_SERVING)
    assert check(address) == (1, f"topb.v1.SelectionService at {address}: NOT_SERVING\n")


def test_the_health_check_fails_if_the_service_is_missing(server: tuple[str, health.HealthServicer]) -> None:
    code, said = check(server[0])
    assert code == 1
    assert "NOT_FOUND" in said


def test_the_health_check_fails_without_a_server() -> None:
    code, said = check("localhost:1")
    assert code == 1
    assert "localhost:1 does not answer: UNAVAILABLE" in said
