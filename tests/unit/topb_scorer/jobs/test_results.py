from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb_scorer.errors import NotFoundError, ScorerError
from topb_scorer.jobs.results import ResultStore

pytestmark = pytest.mark.scorer

RESULT = SelectionResult(
    picks=tuple(Pick(f"img-{rank}", rank, 1 / rank, 0, 0.5, 0.5) for rank in range(1, 31)),
    accounts=Accounts(
        read=31,
        scored=30,
        skipped={"IMAGE_EMPTY": 1},
        duplicate=0,
        excluded=0,
        skipped_examples=(SkippedRow("empty", "IMAGE_EMPTY", ""),),
    ),
    model="m",
    strategy="margin",
    seed=0,
    budget=30,
    elapsed_seconds=0.1,
)


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    results = ResultStore(tmp_path / "results")
    results.write("s", RESULT)
    return results


def attempts(results: ResultStore) -> tuple[Callable[[], object], Callable[[], object]]:
    return lambda: results.read_summary("s"), lambda: results.read_picks("s", 0, 50)


def test_a_result_reads_as_it_was_written(results: ResultStore) -> None:
    summary, pick_count = results.read_summary("s")
    assert (summary.accounts, pick_count) == (RESULT.accounts, 30)
    assert results.read_picks("s", 0, 50) == list(RESULT.picks)
    assert results.read_picks("s", 28, 50) == list(RESULT.picks[28:])


def test_a_result_that_is_missing_is_not_found(results: ResultStore) -> None:
    results.remove("s")
    for attempt in attempts(results):
        with pytest.raises(NotFoundError) as caught:
            attempt()
        assert caught.value.reason == "RESULT_NOT_FOUND"


def test_an_altered_result_raises_no_error_but_unreadable(results: ResultStore) -> None:
    whole = results.path("s").read_bytes()
    refused = 0
    positions = range(0, len(whole), 7)
    for position in positions:
        altered = bytearray(whole)
        altered[position] ^= 0xFF
        results.path("s").write_bytes(altered)
        for attempt in attempts(results):
            refused += refusal(attempt) == "RESULT_UNREADABLE"
    assert refused > len(positions) / 2


def refusal(attempt: Callable[[], object]) -> str:
    """Return the reason of the only kind of error that reading a result may raise, or an empty string."""
    try:
        attempt()
    except ScorerError as error:
        return error.reason
    return ""


def test_a_result_of_another_version_is_unreadable(results: ResultStore) -> None:
    table = pq.read_table(results.path("s"))
    about = json.loads(table.schema.metadata[b"topb.result"])
    del about["accounts"]["read"]
    changed = table.append_column("novelty", table["score"])
    metadata = {b"topb.result": json.dumps(about).encode()}
    pq.write_table(changed.replace_schema_metadata(metadata), results.path("s"))
    for attempt in attempts(results):
        with pytest.raises(ScorerError, match="new request id") as caught:
            attempt()
        assert caught.value.reason == "RESULT_UNREADABLE"
