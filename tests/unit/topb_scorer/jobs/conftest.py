from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from topb_scorer.jobs.catalog import SelectionCatalog


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an empty database. tests/integration/scorer runs the same tests on PostgreSQL."""
    return f"sqlite:///{tmp_path / 'selections.sqlite'}"


@pytest.fixture
def catalog(url: str) -> Iterator[SelectionCatalog]:
    catalog = SelectionCatalog(url, patience_seconds=5)
    yield catalog
    catalog.close()
