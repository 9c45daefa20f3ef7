from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from topb_scorer.errors import CatalogError
from topb_scorer.jobs.catalog import SelectionCatalog
from unit.topb_scorer.jobs.test_catalog import new

pytestmark = pytest.mark.scorer


@pytest.mark.parametrize("damage", ["DROP COLUMN budget", "RENAME TO elsewhere"])
def test_a_damaged_catalog_is_an_error_that_no_caller_retries(
    damage: str, catalog: SelectionCatalog, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = catalog.create(new("one")).id
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE selections {damage}")
    engine.dispose()
    started = time.monotonic()
    for ask in (lambda: catalog.get(id_), lambda: catalog.page(9), lambda: catalog.create(new())):
        with pytest.raises(CatalogError, match="damaged") as caught:
            ask()
        assert (caught.value.reason, caught.value.retry_delay) == ("CATALOG_DAMAGED", None)
        assert "budget" not in str(caught.value)
        assert "selections." not in str(caught.value)
    assert time.monotonic() - started < 4, "it waited for the database"
    assert "selections" in caplog.text


def test_a_file_that_is_no_database_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "selections.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(CatalogError) as caught:
        SelectionCatalog(f"sqlite:///{tmp_path / 'selections.sqlite'}")
    assert caught.value.retry_delay is None
