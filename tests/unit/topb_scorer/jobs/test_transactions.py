from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from topb_scorer.errors import CatalogError, ScorerError, UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.transactions import Transactions
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


@pytest.mark.parametrize(
    ("state", "error"),
    [
        *(
            (state, UnavailableError)
            for state in ("08006", "25006", "40001", "40P01", "53300", "57P01", "57P03")
        ),
        *((state, CatalogError) for state in ("42703", "42P01", "22001", "25P02", "XX001")),
    ],
)
def test_errors_of_postgresql_that_pass_are_retried(
    state: str, error: type[ScorerError], tmp_path: Path
) -> None:
    calls = 0

    def work(_: sa.Connection) -> None:
        nonlocal calls
        calls += 1
        cause = psycopg.errors.lookup(state)("the database's message")
        raise DBAPIError.instance("SELECT 1", {}, cause, psycopg.Error)  # type: ignore[misc]

    transactions = Transactions(f"sqlite:///{tmp_path / 'x.sqlite'}", patience_seconds=0.1)
    with pytest.raises(error) as caught:
        transactions.transact(work)
    transactions.close()
    assert (calls > 1) == (error is UnavailableError)
    assert "the database's message" not in str(caught.value)
