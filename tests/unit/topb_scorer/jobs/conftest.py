from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an empty database. tests/integration/scorer runs the same tests on PostgreSQL."""
    return f"sqlite:///{tmp_path / 'selections.sqlite'}"
