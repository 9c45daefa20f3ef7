"""The metrics of `topb serve --metrics-listen` agree with what the server did."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import topb
from support.images import encode, random_image, write_parquet
from support.servers import free_port, running_server
from support.waiting import once

pytestmark = pytest.mark.scorer


class Scraped:
    """A server's samples, fetched at each call."""

    def __init__(self, address: str, metrics: str) -> None:
        self.address = address
        self._url = f"http://{metrics}/metrics"

    def soon(self, name: str, **labels: str) -> float:
        """Wait for a sample that is not 0: a call is counted just after its caller has the answer."""
        once(lambda: self(name, **labels) != 0)
        return self(name, **labels)

    def __call__(self, name: str, **labels: str) -> float:
        with urlopen(self._url, timeout=10) as response:
            text = response.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
        assert len(found) <= 1
        return found[0] if found else 0.0


@pytest.fixture
def scraped(data: Path) -> Iterator[Scraped]:
    metrics = f"127.0.0.1:{free_port()}"
    with running_server(data / "models", data, options=("--metrics-listen", metrics)) as running:
        yield Scraped(running.address, metrics)


def test_selections_and_their_rows_are_counted(data: Path, scraped: Scraped) -> None:
    pool = str(data / "pool.parquet")
    with topb.Client(scraped.address, timeout=60) as client:
        client.select_batch(pool, budget=5, strategy="margin")
        assert scraped("topb_rows_total") == 300
        assert scraped("topb_rows_committed_total") == 300
        client.select_batch(pool, budget=5, strategy="entropy")
    assert scraped("topb_rows_total") == 600
    assert scraped("topb_rows_committed_total") == 300, "the second selection scores nothing"
    for strategy in ("margin", "entropy"):
        ended = {"strategy": strategy, "outcome": "succeeded", "reason": ""}
        assert scraped("topb_selections_ended_total", **ended) == 1
        assert scraped("topb_selection_seconds_count", strategy=strategy) == 1
    assert scraped("topb_selections_running") == 0
    assert scraped("topb_selections_limit") == 2
    assert scraped("topb_draining") == 0
    assert scraped("topb_server_info", version=topb.__version__) == 1
    assert scraped("process_resident_memory_bytes") > 2**20


def test_skipped_rows_are_counted_by_reason(scraped: Scraped, data: Path) -> None:
    rows = [("good", encode(random_image(1))), ("torn", b"no image"), ("none", None)]
    write_parquet(data / "skips.parquet", rows)
    with topb.Client(scraped.address, timeout=60) as client:
        skipped = client.select_batch(str(data / "skips.parquet"), budget=1).accounts.skipped
    assert sum(skipped.values()) == 2
    for reason, count in skipped.items():
        assert scraped("topb_rows_skipped_total", reason=reason) == count


def test_calls_are_timed_by_method_and_code(scraped: Scraped, data: Path) -> None:
    (data / "torn.parquet").write_bytes((data / "pool.parquet").read_bytes()[:-40])
    with topb.Client(scraped.address, timeout=60) as client:
        client.list_models()
        with pytest.raises(topb.NotFoundError):
            client.get_model("0123456789abcdef")
        with pytest.raises(topb.TopbError):
            client.select_batch(str(data / "torn.parquet"), budget=1)
    for method, code in (
        ("ModelService/ListModels", "OK"),
        ("ModelService/GetModel", "NOT_FOUND"),
        ("SelectionService/SelectBatch", "FAILED_PRECONDITION"),
    ):
        assert scraped.soon("topb_call_seconds_count", method=f"/topb.v1.{method}", code=code) == 1


def test_metrics_count_a_streamed_selection_like_any_other(scraped: Scraped) -> None:
    rows = [(str(seed), random_image(seed)) for seed in range(40)]
    with topb.Client(scraped.address, timeout=60) as client:
        client.select_batch(iter(rows), budget=3)
    assert scraped("topb_rows_committed_total") == 40
    method = "/topb.v1.SelectionService/SelectBatchFromStream"
    assert scraped.soon("topb_call_seconds_count", method=method, code="OK") == 1


def test_a_metrics_address_in_use_is_an_error(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "topb", "serve", "--models", str(data / "models")]
        command += ["--listen", "127.0.0.1:0", "--metrics-listen", address]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert f"cannot listen on {address} for metrics" in ended.stderr
    assert "Traceback" not in ended.stderr
