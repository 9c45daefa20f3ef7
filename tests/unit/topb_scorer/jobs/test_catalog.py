from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from topb.progress import Progress
from topb.selections import SelectionState
from topb_scorer.errors import InvalidRequestError, NotFoundError, UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.record import NewSelection
from topb_scorer.jobs.schema import SELECTIONS

pytestmark = pytest.mark.scorer

LEASE = 30.0
EXPIRED = -1.0
THREADS = 8
ENDINGS: dict[SelectionState, Callable[[SelectionCatalog, str, str], bool]] = {
    SelectionState.SUCCEEDED: lambda catalog, id_, owner: catalog.succeed(id_, owner),
    SelectionState.FAILED: lambda catalog, id_, owner: catalog.fail(
        id_, owner, code="C", reason="R", message="m"
    ),
    SelectionState.CANCELLED: lambda catalog, id_, owner: catalog.confirm_cancelled(id_, owner),
}
CHANGES: tuple[Callable[[SelectionCatalog, str, str], bool], ...] = (
    lambda catalog, id_, owner: catalog.claim(id_, owner, LEASE),
    lambda catalog, id_, owner: catalog.keep(id_, owner, LEASE, Progress(1, 1, 1)),
    lambda catalog, id_, owner: catalog.release(id_, owner),
    lambda catalog, id_, owner: catalog.complete_stream(id_, owner, 3),
)
"""What only the owner of a running selection may do."""


def new(request_id: str = "", **changed: object) -> NewSelection:
    unchanged = NewSelection(request_id, "m", "margin", 3, "/pool", detached=False, request=b"request")
    return dataclasses.replace(unchanged, **changed)  # type: ignore[arg-type]


def claimed(
    catalog: SelectionCatalog, owner: str = "a", lease_seconds: float = LEASE, **changed: object
) -> str:
    """Create and claim a selection, and return its id."""
    id_ = catalog.create(new(**changed)).id  # type: ignore[arg-type]
    assert catalog.claim(id_, owner, lease_seconds)
    return id_


def at_once(work: Callable[[int], object], *, threads: int = THREADS) -> list[object]:
    """Return what `work` returns on each of several threads that begin together."""
    together = threading.Barrier(threads)

    def on_thread(thread: int) -> object:
        together.wait()
        return work(thread)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(on_thread, range(threads)))


def test_a_created_selection_has_the_values_of_its_request(catalog: SelectionCatalog) -> None:
    before = time.time()
    record = catalog.create(new("one", request=b"\x00\xff", budget=2**40, detached=True, pool_uri="/é/日本"))
    assert catalog.get(record.id) == catalog.get("one") == record
    assert (catalog.request(record.id), record.budget, record.detached) == (b"\x00\xff", 2**40, True)
    assert (record.pool_uri, record.state, record.ended) == ("/é/日本", SelectionState.PENDING, None)
    assert before <= record.created <= time.time()


def test_creating_again_under_a_request_id_returns_the_existing_selection(catalog: SelectionCatalog) -> None:
    first = catalog.create(new("one"))
    assert catalog.create(new("one")) == first
    assert catalog.find("one", b"request") == first
    assert catalog.find("two", b"request") is None
    for ask in (catalog.create, lambda other: catalog.find(other.request_id, other.request)):
        with pytest.raises(InvalidRequestError) as caught:
            ask(new("one", request=b"another"))
        assert caught.value.reason == "REQUEST_ID_REUSED"


def test_concurrent_creates_make_one_selection(catalog: SelectionCatalog) -> None:
    ids = at_once(lambda _: catalog.create(new("one")).id)
    assert len(set(ids)) == 1
    assert len(catalog.page(10)) == 1


def test_requests_without_an_id_are_separate_selections(catalog: SelectionCatalog) -> None:
    records = [catalog.create(new()) for _ in range(3)]
    names = {name for record in records for name in (record.id, record.request_id)}
    assert len(names) == 6
    for record in records:
        assert catalog.get(record.request_id) == catalog.find(record.request_id, b"request") == record


def test_a_request_id_cannot_take_the_place_of_a_selection_id(catalog: SelectionCatalog) -> None:
    owned = catalog.create(new("one"))
    for ask in (catalog.create, lambda other: catalog.find(other.request_id, other.request)):
        with pytest.raises(InvalidRequestError) as caught:
            ask(new(owned.id))
        assert caught.value.reason == "REQUEST_ID_RESERVED"
    assert catalog.create(new(owned.id.upper())).id != owned.id


def test_a_selection_id_means_that_selection_whatever_request_ids_the_catalog_holds(
    catalog: SelectionCatalog, url: str
) -> None:
    """Earlier versions accepted any request id, and created the first of these rows last."""
    ids = [catalog.create(new(f"r-{i}")).id for i in range(6)]
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for id_, taken in zip(ids, ids[3:] + ids[:3], strict=True):
            update = SELECTIONS.update().where(SELECTIONS.c.id == id_).values(request_id=taken)
            connection.execute(update)
    engine.dispose()
    for id_ in ids:
        assert catalog.get(id_).id == id_
    assert catalog.cancel(ids[0]).id == ids[0]
    states = [catalog.get(id_).state for id_ in ids]
    assert states == [SelectionState.CANCELLED] + [SelectionState.PENDING] * 5


def test_a_request_id_that_is_too_long_is_refused(catalog: SelectionCatalog) -> None:
    catalog.create(new("x" * 200))
    with pytest.raises(InvalidRequestError) as caught:
        catalog.create(new("x" * 201))
    assert caught.value.reason == "REQUEST_ID_TOO_LONG"


def test_an_unknown_selection_is_not_found(catalog: SelectionCatalog) -> None:
    for ask in (catalog.get, catalog.cancel):
        with pytest.raises(NotFoundError) as caught:
            ask("none")
        assert caught.value.reason == "SELECTION_NOT_FOUND"


def test_one_of_many_concurrent_claims_succeeds(catalog: SelectionCatalog, url: str) -> None:
    """Half of the claims come from another server."""
    other = SelectionCatalog(url)
    for _ in range(10):
        id_ = catalog.create(new()).id
        claimed = at_once(lambda i, id_=id_: (catalog, other)[i % 2].claim(id_, f"server-{i}", LEASE))  # type: ignore[misc]
        assert claimed.count(True) == 1
        assert catalog.get(id_).owner == f"server-{claimed.index(True)}"
    other.close()


def test_an_expired_lease_is_claimed_by_exactly_one_waiting_server(catalog: SelectionCatalog) -> None:
    id_ = claimed(catalog, "dead")
    assert not catalog.claim(id_, "other", LEASE)
    assert catalog.orphans(9) == []
    assert catalog.keep(id_, "dead", EXPIRED, Progress(0, 0, 0))
    assert [orphan.id for orphan in catalog.orphans(9)] == [id_]
    assert at_once(lambda thread: catalog.claim(id_, f"server-{thread}", LEASE)).count(True) == 1
    assert not catalog.keep(id_, "dead", LEASE, Progress(9, 9, 9))
    assert catalog.get(id_).read == 0


def test_keeping_a_lease_renews_it_and_records_the_progress(catalog: SelectionCatalog) -> None:
    id_ = claimed(catalog, lease_seconds=EXPIRED)
    assert catalog.keep(id_, "a", LEASE, Progress(3, 7, 0.5))
    assert not catalog.claim(id_, "b", LEASE)
    kept = catalog.get(id_)
    assert (kept.progress, kept.owner) == (Progress(3, 7, 0.5), "a")


def test_an_owner_can_claim_its_selection_again(catalog: SelectionCatalog) -> None:
    """The database may commit a claim and die before it can confirm it."""
    assert catalog.claim(claimed(catalog, "a"), "a", LEASE)


@pytest.mark.parametrize("state", ENDINGS)
def test_a_selection_that_has_ended_never_changes(state: SelectionState, catalog: SelectionCatalog) -> None:
    id_ = claimed(catalog)
    assert ENDINGS[state](catalog, id_, "a")
    ended = catalog.get(id_)
    assert (ended.state, ended.state.ended, ended.ended is not None) == (state, True, True)
    for change in (*ENDINGS.values(), *CHANGES):
        assert not change(catalog, id_, "a")
    assert catalog.cancel(id_) == ended
    assert catalog.orphans(9) == []


def test_only_the_owner_can_end_or_release_a_selection(catalog: SelectionCatalog) -> None:
    assert not catalog.succeed(catalog.create(new()).id, "")
    id_ = claimed(catalog, "a")
    for change in (*ENDINGS.values(), *CHANGES):
        assert not change(catalog, id_, "b")
    assert catalog.complete_stream(id_, "a", 1)
    assert catalog.release(id_, "a")
    released = catalog.get(id_)
    assert (released.state, released.owner, released.stream_chunks) == (SelectionState.PENDING, "", 1)
    assert catalog.claim(id_, "b", LEASE)


def test_one_of_many_concurrent_endings_takes_effect(catalog: SelectionCatalog) -> None:
    endings = list(ENDINGS.values())
    for _ in range(5):
        id_ = claimed(catalog)
        assert at_once(lambda i, id_=id_: endings[i % 3](catalog, id_, "a")).count(True) == 1  # type: ignore[misc]


def test_cancelling_a_selection_that_no_server_runs_ends_it(catalog: SelectionCatalog) -> None:
    for id_ in (catalog.create(new()).id, claimed(catalog, "dead", EXPIRED)):
        assert catalog.cancel(id_).state is SelectionState.CANCELLED


def test_cancelling_a_running_selection_asks_its_owner_to_stop(catalog: SelectionCatalog) -> None:
    id_ = claimed(catalog)
    asked = catalog.cancel(id_)
    assert (asked.state, asked.cancel_requested) == (SelectionState.RUNNING, True)
    assert not catalog.keep(id_, "a", LEASE, Progress(1, 1, 1))
    assert catalog.confirm_cancelled(id_, "a")


def test_orphans_are_the_selections_that_wait_for_a_server(catalog: SelectionCatalog) -> None:
    detached = catalog.create(new(detached=True)).id
    catalog.create(new())
    deserted = claimed(catalog, "dead", EXPIRED)
    claimed(catalog, detached=True)
    assert [orphan.id for orphan in catalog.orphans(9)] == [detached, deserted]
    assert [orphan.id for orphan in catalog.orphans(1)] == [detached]


def test_a_stream_waits_for_a_server_only_if_its_pool_is_complete(catalog: SelectionCatalog) -> None:
    incomplete, cancelled, complete = [claimed(catalog, pool_uri="") for _ in range(3)]
    catalog.cancel(cancelled)
    assert catalog.complete_stream(complete, "a", 3)
    for id_ in (incomplete, complete):
        assert catalog.keep(id_, "a", EXPIRED, Progress(0, 0, 0))
    assert catalog.claim(cancelled, "a", EXPIRED)
    assert {orphan.id for orphan in catalog.orphans(9)} == {cancelled, complete}


def test_the_selection_that_waits_longest_for_a_server_comes_first(catalog: SelectionCatalog) -> None:
    """So a selection that a fault interrupts again and again does not keep the others waiting."""
    first, second = (catalog.create(new(detached=True)).id for _ in range(2))
    assert catalog.claim(first, "a", LEASE)
    assert catalog.release(first, "a")
    assert [orphan.id for orphan in catalog.orphans(9)] == [second, first]


def test_pages_list_each_selection_once_the_latest_first(catalog: SelectionCatalog) -> None:
    records = [catalog.create(new(model="ab"[i % 2])) for i in range(7)]
    assert catalog.claim(records[2].id, "x", LEASE)
    assert catalog.succeed(records[2].id, "x")
    seen: list[str] = []
    while page := catalog.page(3, before=seen[-1] if seen else ""):
        seen += [record.id for record in page]
    assert seen == [record.id for record in reversed(records)]
    assert [record.id for record in catalog.page(9, model="b")] == [records[i].id for i in (5, 3, 1)]
    assert [record.id for record in catalog.page(9, states=[SelectionState.SUCCEEDED])] == [records[2].id]
    assert len(catalog.page(9, states=[SelectionState.PENDING, SelectionState.SUCCEEDED], model="a")) == 4


def test_a_database_that_cannot_be_created_is_an_error_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        SelectionCatalog(f"sqlite:///{tmp_path / 'none' / 'selections.sqlite'}")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["postgres://user:secret@host/db", "no url", "oracle://host/db"])
def test_an_unusable_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot be used") as caught:
        SelectionCatalog(url)
    assert caught.value.reason == "CATALOG_URL"
    assert "secret" not in str(caught.value)


def test_only_selections_that_wait_for_their_callers_are_abandoned(catalog: SelectionCatalog) -> None:
    paused, stream, touched = (catalog.create(new(pool_uri=uri)).id for uri in ("/pool", "", "/pool"))
    catalog.create(new(detached=True))
    dead_stream, complete = (claimed(catalog, "dead", EXPIRED, pool_uri="") for _ in range(2))
    assert catalog.complete_stream(complete, "dead", 1)
    claimed(catalog, "dead", EXPIRED)
    claimed(catalog, "here", LEASE, pool_uri="")
    moment = time.time()
    assert catalog.abandoned(0, 10) == []
    time.sleep(0.01)
    catalog.touch([touched, dead_stream])

    assert catalog.abandoned(moment, 10) == [paused, stream, dead_stream]
    assert catalog.abandoned(moment, 2) == [paused, stream]
    error = NotFoundError("nobody came back", reason="SELECTION_EXPIRED")
    assert catalog.expire(paused, moment, error)
    assert not catalog.expire(touched, moment, error)
    record = catalog.get(paused)
    assert (record.state, record.error_reason) == (SelectionState.FAILED, "SELECTION_EXPIRED")
    assert (record.error_code, record.error_message) == ("NotFoundError", "nobody came back")
    assert catalog.abandoned(moment, 10) == [stream, dead_stream]
