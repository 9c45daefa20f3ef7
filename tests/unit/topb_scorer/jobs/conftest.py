from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import postgresql
from support.postgresql import PostgresCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.running_cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'selections.sqlite'}"
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    return cluster.create_database()
