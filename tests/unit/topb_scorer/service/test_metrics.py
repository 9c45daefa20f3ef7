"""The names of the metrics, where others rely on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.service.metrics import Metrics

pytestmark = pytest.mark.scorer

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def families(tmp_path: Path) -> list[Metric]:
    metrics, state = Metrics(), StateDirectory.open(tmp_path)
    host = SelectionHost(state, _unused, owner="here", max_concurrent=1, lease_seconds=30, observer=metrics)
    metrics.watch(host)
    families = list(metrics.registry.collect())
    host.interrupt()
    state.catalog.close()
    return families


def _unused(record: object) -> object:
    raise AssertionError(record)


def sample_names(families: list[Metric]) -> set[str]:
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("", "_count", "_sum", "_bucket"),
        "info": ("_info",),
    }
    return {
        family.name + suffix
        for family in families
        if family.name.startswith("topb_")
        for suffix in suffixes[family.type]
    }


@pytest.mark.parametrize("file", ["deploy/prometheus/alerts.yaml", "docs/operations.md"])
def test_every_metric_that_is_named_exists(families: list[Metric], file: str) -> None:
    named = set(re.findall(r"\btopb_(?!scorer\b|trainer\b)[a-z_]+", (REPOSITORY / file).read_text()))
    assert named
    assert named <= sample_names(families)


def test_every_metric_is_documented(families: list[Metric]) -> None:
    documented = (REPOSITORY / "docs" / "operations.md").read_text()
    for family in families:
        if family.name.startswith("topb_"):
            assert f"`{family.name}" in documented, family.name
