from __future__ import annotations

import pytest
import sqlalchemy as sa

from topb.selections import SelectionState
from topb_scorer.errors import InvalidRequestError
from topb_scorer.jobs.catalog import SelectionCatalog
from unit.topb_scorer.jobs.test_catalog import LEASE, claimed, new

pytestmark = pytest.mark.scorer


def test_text_with_nul_is_refused_by_every_database(catalog: SelectionCatalog) -> None:
    catalog.create(new("one"))
    for ask in (
        lambda: catalog.create(new("o\0ne")),
        lambda: catalog.create(new(pool_uri="/p\0ool")),
        lambda: catalog.find("o\0ne", b"request"),
        lambda: catalog.get("one\0"),
        lambda: catalog.cancel("one\0"),
        lambda: catalog.page(9, model="m\0"),
    ):
        with pytest.raises(InvalidRequestError, match="NUL") as caught:
            ask()
        assert caught.value.reason == "TEXT_WITH_NUL"
        assert "SELECT" not in str(caught.value)


def test_the_message_of_a_failure_may_quote_any_file_name(catalog: SelectionCatalog) -> None:
    id_ = claimed(catalog)
    assert catalog.fail(id_, "a", code="C", reason="R", message="no file a\0b\udcff")
    assert catalog.get(id_).error_message == r"no file a\0b\udcff"


def test_a_state_of_a_newer_version_hides_no_other_selection(catalog: SelectionCatalog, url: str) -> None:
    known, unknown = catalog.create(new()).id, catalog.create(new("two")).id
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE selections SET state = 'paused' WHERE id = '{unknown}'")
    engine.dispose()
    states = {record.id: record.state for record in catalog.page(9)}
    assert states == {known: SelectionState.PENDING, unknown: SelectionState.UNSPECIFIED}
    assert not catalog.claim(unknown, "a", LEASE)
    assert catalog.cancel(unknown).state is SelectionState.UNSPECIFIED
    assert [record.id for record in catalog.page(9, states=[SelectionState.PENDING])] == [known]
    assert catalog.page(9, states=[]) == []
