"""`topb results prune` on a real state."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.command_line import topb
from topb.results import Accounts, Pick, SelectionResult
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.requests import LARGE_REQUEST
from topb_scorer.jobs.state_directory import StateDirectory

pytestmark = pytest.mark.scorer

DAY = 86400.0
RESULT = SelectionResult(
    picks=(Pick("a", 1, 0.5, 0, 0.5, 0.5),),
    accounts=Accounts(read=1, scored=1, skipped={}, duplicate=0, excluded=0),
    model="m",
    strategy="margin",
    seed=0,
    budget=1,
    elapsed_seconds=0.1,
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    state = StateDirectory.open(tmp_path / "state")
    yield state
    state.catalog.close()


def created(state: StateDirectory, request_id: str, request: bytes = b"request") -> SelectionRecord:
    return state.create(NewSelection(request_id, "m", "margin", 1, "", False, request))


def succeeded(state: StateDirectory, request_id: str, *, days_ago: float) -> str:
    """Create a selection with a result and the remains of a stream that ended this many days ago."""
    record = created(state, request_id)
    assert state.catalog.claim(record.id, "server", 30)
    state.results.write(record.id, RESULT)
    (state.path / "streams" / record.id).mkdir(parents=True)
    assert state.catalog.succeed(record.id, "server")
    age(state, record.id, days_ago)
    return record.id


def age(state: StateDirectory, selection: str, days: float) -> None:
    moment = time.time() - days * DAY
    engine = sa.create_engine(f"sqlite:///{state.path / 'selections.sqlite'}")
    with engine.begin() as connection:
        connection.execute(
            sa.text("update selections set ended = :ended where id = :id"), {"ended": moment, "id": selection}
        )
    engine.dispose()
    os.utime(state.path / "results" / f"{selection}.parquet", (moment, moment))


def prune(state: StateDirectory, *options: str, days: float = 30) -> str:
    outcome = topb("results", "prune", "--state", state.path, "--older-than", days, *options)
    assert (outcome.exit_code, outcome.err) == (0, "")
    return outcome.out


def is_there(state: StateDirectory, selection: str) -> bool:
    return state.catalog.known([selection]) == {selection} and state.results.size(selection) > 0


def test_pruning_removes_old_selections_with_their_results_and_request_ids(state: StateDirectory) -> None:
    old, recent = succeeded(state, "old", days_ago=31), succeeded(state, "recent", days_ago=29)
    prune(state)
    assert not state.catalog.known([old])
    assert not state.results.size(old)
    assert not (state.path / "streams" / old).exists()
    assert is_there(state, recent)
    assert (state.path / "streams" / recent).exists()
    assert created(state, "old").id != old


def test_pruning_keeps_unfinished_selections_of_any_age(state: StateDirectory) -> None:
    waiting = created(state, "waiting")
    running = created(state, "running")
    assert state.catalog.claim(running.id, "server", 30)
    prune(state, days=0)
    assert state.catalog.known([waiting.id, running.id]) == {waiting.id, running.id}


def test_a_dry_run_reports_and_removes_no_result(state: StateDirectory) -> None:
    old = succeeded(state, "old", days_ago=31)
    size = state.results.size(old)
    assert json.loads(prune(state, "--dry-run", "--json")) == {
        "selections": 1,
        "orphans": 0,
        "orphan_requests": 0,
        "bytes": size,
        "dry_run": True,
    }
    assert is_there(state, old)
    assert json.loads(prune(state, "--json"))["bytes"] == size
    assert not is_there(state, old)


def test_pruning_removes_more_selections_than_a_page(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topb_scorer.commands.results._PAGE", 2)
    old = [succeeded(state, f"old-{i}", days_ago=40) for i in range(5)]
    kept = succeeded(state, "kept", days_ago=1)
    assert "deleted 5 selections" in prune(state)
    assert state.catalog.known([*old, kept]) == {kept}


def test_pruning_removes_results_that_an_interrupted_run_left(state: StateDirectory) -> None:
    old, fresh = succeeded(state, "old", days_ago=31), succeeded(state, "fresh", days_ago=0)
    # The selections are forgotten, and the process dies before their results go.
    assert state.catalog.forget([old, fresh]) == 2
    assert "1 results without one" in prune(state, days=0)
    assert not state.results.size(old)
    assert state.results.size(fresh), "younger than an hour: somebody may be restoring the catalog"


def test_pruning_removes_large_requests_of_old_selections_and_those_without_one(
    state: StateDirectory,
) -> None:
    large = bytes(LARGE_REQUEST + 1)
    old, orphan, recent = (
        created(state, name, large + name.encode()) for name in ("old", "orphan", "recent")
    )
    for record in (old, orphan):
        state.catalog.cancel(record.id)
        os.utime(state.requests.path(record.id), (0, 0))
    assert state.catalog.forget([orphan.id]) == 1
    counts = json.loads(prune(state, "--json", days=0))
    assert counts == {
        "selections": 1,
        "orphans": 0,
        "orphan_requests": 1,
        "bytes": 2 * len(large) + len("old") + len("orphan"),
        "dry_run": False,
    }
    assert [path.stem for path in (state.path / "requests").iterdir()] == [recent.id]
