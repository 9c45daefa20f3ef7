from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from topb_scorer.scoring.encoded_rows import Skip
from topb_scorer.scoring.score_log import SCHEMA, ScoreLog
from topb_scorer.scoring.scored_rows import ScoredRows, scored_rows

pytestmark = pytest.mark.scorer

COLUMNS = ("digests", "score", "entropy", "margin", "confidence", "predicted_class")


def outputs(score: ArrayLike, probabilities: ArrayLike) -> dict[str, NDArray[np.float32]]:
    return {"score": np.array(score, np.float32), "probabilities": np.array(probabilities, np.float32)}


def random_rows(count: int, *, seed: int = 0, classes: int = 5, prefix: str = "id") -> ScoredRows:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    skips = {row: Skip("IMAGE_CORRUPT", f"row {row}") for row in range(0, count, 4)}
    ids = [f"{prefix}-{row}" for row in range(count)]
    return scored_rows(ids, {"score": rng.random(count, np.float32), "probabilities": probabilities}, skips)


def assert_same(read: ScoredRows, written: ScoredRows) -> None:
    assert read.ids == written.ids
    assert read.skips == written.skips
    kept = [row for row in range(len(written.ids)) if row not in written.skips]
    for name in COLUMNS:
        before, after = getattr(written, name), getattr(read, name)
        assert after.dtype == before.dtype, name
        assert after[kept].tobytes() == before[kept].tobytes(), name


def test_stored_scores_follow_their_definitions() -> None:
    rows = scored_rows(["a", "b"], outputs([0.25, 0.75], [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), {})
    assert rows.score.tolist() == [0.25, 0.75]
    assert rows.entropy.tolist() == [pytest.approx(1.5 * math.log(2)), 0.0]
    assert rows.margin.tolist() == [0.25, 1.0]
    assert rows.confidence.tolist() == [0.5, 1.0]
    assert rows.predicted_class.tolist() == [0, 1]
    assert rows.skips == {}
    assert math.copysign(1, rows.entropy[1]) == 1
    ties = scored_rows(["a"], outputs([0], [[0.25] * 4]), {})
    assert (ties.predicted_class[0], ties.margin[0]) == (0, 0)
    assert scored_rows(["a"], outputs([0], [[1.0]]), {}).margin.tolist() == [1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_with_a_non_finite_output_is_skipped_and_keeps_an_earlier_reason(bad: float) -> None:
    bad_outputs = outputs([bad, 0.5, 0.5, bad], [[0.5, 0.5], [bad, 0.5], [0.5, 0.5], [bad, bad]])
    rows = scored_rows(list("abcd"), bad_outputs, {3: Skip("IMAGE_CORRUPT", "torn")})
    reasons = {row: skip.reason for row, skip in rows.skips.items()}
    assert reasons == {0: "SCORE_NOT_FINITE", 1: "SCORE_NOT_FINITE", 3: "IMAGE_CORRUPT"}


def test_output_buffers_can_be_reused_after_a_batch_is_added() -> None:
    buffers = outputs([0.5], [[0.75, 0.25]])
    rows = scored_rows(["a"], buffers, {})
    for buffer in buffers.values():
        buffer[:] = 9
    assert (rows.score[0], rows.confidence[0], rows.margin[0]) == (0.5, 0.75, 0.5)


@pytest.mark.parametrize("classes", [1, 2, 5, 10, 100, 257])
def test_a_row_has_the_same_scores_in_any_batch(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, 0.3), 70).astype(np.float32)
    score = rng.random(70, np.float32)
    ids = [str(row) for row in range(70)]
    whole = scored_rows(ids, {"score": score, "probabilities": probabilities}, {})
    for size in (1, 2, 3, 7, 32):
        for start in range(0, 70, size):
            part = slice(start, start + size)
            rows = scored_rows(ids[part], {"score": score[part], "probabilities": probabilities[part]}, {})
            for name in COLUMNS:
                assert getattr(rows, name).tobytes() == getattr(whole, name)[part].tobytes(), (name, size)


texts = st.text(st.characters(codec="utf-8"), max_size=5)
rows_of_a_part = st.lists(
    st.tuples(texts, st.floats(0, 1, width=32), st.one_of(st.none(), texts)), max_size=5
)


@given(st.lists(rows_of_a_part, max_size=3))
@settings(max_examples=40, deadline=None)
def test_a_committed_shard_reads_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[str, float, str | None]]]
) -> None:
    def written(rows: list[tuple[str, float, str | None]]) -> ScoredRows:
        probabilities = np.random.default_rng(0).dirichlet(np.ones(5), len(rows))
        return scored_rows(
            [id_ for id_, _, _ in rows],
            outputs([score for _, score, _ in rows], probabilities),
            {row: Skip(reason, reason * 2) for row, (_, _, reason) in enumerate(rows) if reason is not None},
            digests=np.random.default_rng(1).integers(0, 256, (len(rows), 16), np.uint8),
        )

    directory = tmp_path_factory.mktemp("log")
    ScoreLog(directory).commit("shard", [written(part) for part in parts])
    log = ScoreLog(directory)
    assert log.holds("shard")
    (read,) = log.read(["shard"])
    start = 0
    for part in map(written, parts):
        stop = start + len(part.ids)
        shifted = {row - start: skip for row, skip in read.skips.items() if start <= row < stop}
        columns = {name: getattr(read, name)[start:stop] for name in COLUMNS}
        assert_same(ScoredRows(ids=read.ids[start:stop], skips=shifted, **columns), part)
        start = stop
    assert start == len(read.ids)


def test_a_shard_of_another_version_is_scored_again(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path)
    log.commit("shard", [random_rows(2)])
    (path,) = tmp_path.rglob("*.parquet")
    path.parent.rename(tmp_path / "rd")  # where version 1 had it
    assert not log.holds("shard")
    assert log.identities() == []


def test_shards_are_read_in_the_requested_order(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path)
    for name in ("a", "b", "c"):
        log.commit(name, [random_rows(2, prefix=name)])
    assert [rows.ids[0] for rows in log.read(["c", "a"])] == ["c-0", "a-0"]


def test_a_shard_committed_twice_is_stored_once(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path)
    log.commit("a", [random_rows(3)])
    log.commit("a", [random_rows(3)])
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert next(iter(log.read(["a"]))).ids == ["id-0", "id-1", "id-2"]


def test_a_failed_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path)
    unwritable = random_rows(1)
    with pytest.raises(UnicodeEncodeError):
        log.commit("a", [ScoredRows(**{**vars(unwritable), "ids": ["\ud800"]})])
    assert not log.holds("a")
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_of_a_skipped_row_are_null_in_the_file(tmp_path: Path) -> None:
    ScoreLog(tmp_path).commit("a", [random_rows(2)])
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.column("score").is_null().to_pylist() == [True, False]
    assert table.column("skip_reason").to_pylist() == ["IMAGE_CORRUPT", None]
