"""The tests of the catalog and of its migrations, on PostgreSQL; and a PostgreSQL that goes away."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
import sqlalchemy as sa

from support.again import repeated_with
from support.postgresql import PostgresCluster
from topb.progress import Progress
from topb_scorer.errors import UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.migrations import VERSION_TABLE
from unit.topb_scorer.jobs import conftest, test_catalog, test_migrations, test_schema, test_transactions
from unit.topb_scorer.jobs.test_catalog import LEASE, new

pytestmark = pytest.mark.scorer

catalog, engine = conftest.catalog, test_migrations.engine
for module in (test_catalog, test_schema, test_transactions):
    globals().update(repeated_with("catalog", module))
globals().update(repeated_with("engine", test_migrations))


@pytest.fixture
def url(cluster: PostgresCluster) -> str:
    return cluster.create_database()


def test_the_catalog_waits_for_a_database_that_comes_back(cluster: PostgresCluster) -> None:
    catalog = SelectionCatalog(cluster.create_database(), patience_seconds=30)
    record = catalog.create(new("one"))
    cluster.stop()
    returning = threading.Timer(1.0, cluster.start)
    returning.start()
    assert catalog.claim(record.id, "a", LEASE)
    returning.join()
    assert catalog.get("one").owner == "a"
    catalog.close()


def test_the_catalog_waits_for_a_server_that_can_be_written_to(cluster: PostgresCluster) -> None:
    url = cluster.create_database()
    catalog, engine = SelectionCatalog(url, patience_seconds=30), sa.create_engine(url)
    database = sa.make_url(url).database

    def set_read_only(value: str) -> None:
        # As after a failover, new connections can only read, and the old ones are gone.
        with engine.begin() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ WRITE")
            connection.exec_driver_sql(
                f'ALTER DATABASE "{database}" SET default_transaction_read_only = {value}'
            )

    record = catalog.create(new("one"))
    set_read_only("on")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    returning = threading.Timer(2.0, set_read_only, ["off"])
    returning.start()
    assert catalog.claim(record.id, "a", LEASE)
    returning.join()
    engine.dispose()
    catalog.close()


def test_a_database_that_stays_away_is_an_error_after_a_bounded_wait(cluster: PostgresCluster) -> None:
    catalog = SelectionCatalog(cluster.create_database(), patience_seconds=1)
    record = catalog.create(new())
    assert catalog.claim(record.id, "a", 2)
    cluster.stop()
    try:
        for wait, ask in (
            (3.0, lambda: catalog.get(record.id)),
            (3.0, lambda: catalog.keep(record.id, "a", 2.0, Progress(0, 0, 0))),
        ):
            started = time.monotonic()
            with pytest.raises(UnavailableError) as caught:
                ask()
            assert caught.value.reason == "CATALOG_UNAVAILABLE"
            assert time.monotonic() - started < wait
    finally:
        cluster.start()
    assert catalog.get(record.id).owner == "a"
    catalog.close()


def test_the_error_for_missing_schema_rights_names_the_rights(url: str, engine: sa.Engine) -> None:
    guest = f"guest_{secrets.token_hex(4)}"
    SelectionCatalog(url).close()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {guest} LOGIN")
        connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")
    with pytest.raises(UnavailableError, match="CREATE on the schema") as caught:
        SelectionCatalog(url.replace("topb@", f"{guest}@"))
    assert caught.value.reason == "CATALOG_UNAVAILABLE"
