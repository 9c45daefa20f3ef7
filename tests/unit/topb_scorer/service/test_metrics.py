"""The names of the metrics, where others rely on them."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from prometheus_client.metrics_core import Metric

from topb_scorer.service.metrics import Metrics

pytestmark = pytest.mark.scorer

REPOSITORY = Path(__file__).parents[4]


SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("", "_count", "_sum", "_bucket"),
    "info": ("_info",),
}


@pytest.fixture
def families() -> list[Metric]:
    """The metrics of topb."""
    metrics = Metrics()
    metrics.watch(Mock(running_count=0, waiting_count=0, max_concurrent=1, draining=False))
    return [family for family in metrics.registry.collect() if family.name.startswith("topb_")]


@pytest.mark.parametrize("file", ["deploy/prometheus/alerts.yaml", "docs/operations.md"])
def test_every_metric_named_in_other_files_exists(families: list[Metric], file: str) -> None:
    named = set(re.findall(r"\btopb_(?!scorer\b|trainer\b)[a-z_]+", (REPOSITORY / file).read_text()))
    assert named
    assert named <= {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def test_every_metric_is_documented(families: list[Metric]) -> None:
    documented = (REPOSITORY / "docs" / "operations.md").read_text()
    assert [family.name for family in families if f"`{family.name}" not in documented] == []
