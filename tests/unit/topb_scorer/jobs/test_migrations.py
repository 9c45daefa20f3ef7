from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from topb.selections import SelectionState
from topb_scorer.errors import NewerVersionError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.migrations import VERSION_TABLE
from topb_scorer.jobs.schema import METADATA

pytestmark = pytest.mark.scorer

UNVERSIONED = Path(__file__).parent / "unversioned_catalogs"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def create_unversioned_catalog(engine: sa.Engine) -> None:
    """Create a catalog of one selection, as topb did before the schema had versions."""
    statements = (UNVERSIONED / f"{engine.dialect.name}.sql").read_text().split(";\n")
    with engine.begin() as connection:
        for statement in filter(None, statements):
            connection.exec_driver_sql(statement)


def differences(engine: sa.Engine) -> list[object]:
    """What separates the database's schema from the tables that the code uses."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        return list(compare_metadata(context, METADATA))


def test_a_new_catalog_has_the_schema_that_the_code_uses(url: str, engine: sa.Engine) -> None:
    SelectionCatalog(url).close()
    assert differences(engine) == []


def test_a_catalog_without_a_version_is_upgraded_and_keeps_its_selections(
    url: str, engine: sa.Engine
) -> None:
    create_unversioned_catalog(engine)
    for _ in range(2):
        with closing(SelectionCatalog(url)) as catalog:
            record = catalog.get("one")
            assert (record.id, catalog.request("1"), record.detached) == ("1", b"\x00\xff", True)
            assert (record.state, record.read, record.ended) == (SelectionState.PENDING, 2, None)
    assert differences(engine) == []
    with closing(SelectionCatalog(url)) as catalog:
        assert catalog.claim("1", "server", 30.0)


@pytest.mark.parametrize("unversioned", [False, True], ids=["new", "unversioned"])
def test_only_a_change_of_the_schema_is_logged(
    url: str, engine: sa.Engine, unversioned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if unversioned:
        create_unversioned_catalog(engine)
    caplog.set_level("INFO", logger="topb_scorer.jobs.migrations")
    SelectionCatalog(url).close()
    assert len(caplog.records) == (0 if unversioned else 1)
    SelectionCatalog(url).close()
    assert len(caplog.records) == (0 if unversioned else 1)


@pytest.mark.parametrize("unversioned", [False, True], ids=["new", "unversioned"])
def test_servers_that_start_at_the_same_time_all_start(
    url: str, engine: sa.Engine, unversioned: bool
) -> None:
    if unversioned:
        create_unversioned_catalog(engine)
    with ThreadPoolExecutor(6) as threads:
        for catalog in threads.map(SelectionCatalog, [url] * 6):
            assert len(catalog.page(2)) == unversioned
            catalog.close()
    assert differences(engine) == []


def test_a_catalog_of_a_newer_version_is_refused_and_left_alone(url: str, engine: sa.Engine) -> None:
    SelectionCatalog(url).close()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(NewerVersionError, match="9999") as caught:
        SelectionCatalog(url)
    assert caught.value.reason == "CATALOG_VERSION"
    assert caught.value.retry_delay is None
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() == "9999"
