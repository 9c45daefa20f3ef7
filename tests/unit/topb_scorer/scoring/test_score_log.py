from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import SCHEMA, ScoredRows, ScoreLog, Skip, scored_rows

pytestmark = pytest.mark.scorer


def outputs(score: list[float], probabilities: list[list[float]]) -> dict[str, NDArray[np.float32]]:
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
    for name in ("score", "entropy", "margin", "confidence", "predicted_class"):
        before, after = getattr(written, name), getattr(read, name)
        assert after.dtype == before.dtype, name
        assert after[kept].tobytes() == before[kept].tobytes(), name


def test_what_is_kept_of_the_outputs_is_what_the_definitions_say() -> None:
    rows = scored_rows(["a", "b"], outputs([0.25, 0.75], [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), {})
    assert rows.score.tolist() == [0.25, 0.75]
    assert rows.entropy.tolist() == [pytest.approx(1.5 * math.log(2)), 0.0]
    assert rows.margin.tolist() == [0.25, 1.0]
    assert rows.confidence.tolist() == [0.5, 1.0]
    assert rows.predicted_class.tolist() == [0, 1]
    assert rows.skips == {}


def test_the_entropy_of_a_certain_prediction_is_no_negative_zero() -> None:
    rows = scored_rows(["a"], outputs([0.0], [[1.0, 0.0]]), {})
    assert math.copysign(1, rows.entropy[0]) == 1


def test_of_equal_probabilities_the_first_class_is_predicted() -> None:
    assert scored_rows(["a"], outputs([0], [[0.25] * 4]), {}).predicted_class.tolist() == [0]


def test_with_one_class_the_margin_is_its_probability() -> None:
    assert scored_rows(["a"], outputs([0], [[1.0]]), {}).margin.tolist() == [1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_with_an_output_that_is_not_finite_is_skipped(bad: float) -> None:
    rows = scored_rows(["a", "b", "c"], outputs([bad, 0.5, 0.5], [[0.5, 0.5], [bad, 0.5], [0.5, 0.5]]), {})
    assert {row: skip.reason for row, skip in rows.skips.items()} == {
        0: "SCORE_NOT_FINITE",
        1: "SCORE_NOT_FINITE",
    }


def test_a_row_that_was_skipped_already_keeps_its_reason() -> None:
    corrupt = Skip("IMAGE_CORRUPT", "torn")
    assert scored_rows(["a"], outputs([math.nan], [[math.nan]]), {0: corrupt}).skips == {0: corrupt}


def test_buffers_may_be_filled_again_afterwards() -> None:
    buffers = outputs([0.5], [[0.75, 0.25]])
    rows = scored_rows(["a"], buffers, {})
    for buffer in buffers.values():
        buffer[:] = 9
    assert (rows.score[0], rows.confidence[0], rows.margin[0]) == (0.5, 0.75, 0.5)


@pytest.mark.parametrize("classes", [1, 2, 5, 10, 100, 257])
def test_a_row_is_valued_the_same_whatever_stands_beside_it(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, 0.3), 70).astype(np.float32)
    score = rng.random(70, np.float32)
    ids = [str(row) for row in range(70)]
    whole = scored_rows(ids, {"score": score, "probabilities": probabilities}, {})
    for size in (1, 2, 3, 7, 32):
        for start in range(0, 70, size):
            part = slice(start, start + size)
            rows = scored_rows(ids[part], {"score": score[part], "probabilities": probabilities[part]}, {})
            for name in ("entropy", "margin", "confidence", "predicted_class"):
                assert getattr(rows, name).tobytes() == getattr(whole, name)[part].tobytes(), (name, size)


def test_a_committed_shard_reads_back_bit_for_bit(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "log")
    parts = [random_rows(5), random_rows(1, seed=1), random_rows(9, seed=2)]
    log.commit("shard", parts)
    (read,) = log.read(["shard"])
    assert read.ids == [id_ for part in parts for id_ in part.ids]
    for start, part in zip((0, 5, 6), parts, strict=True):
        kept = slice(start, start + len(part.ids))
        shifted = {row - start: skip for row, skip in read.skips.items() if start <= row < kept.stop}
        columns = {
            name: getattr(read, name)[kept]
            for name in ("score", "entropy", "margin", "confidence", "predicted_class")
        }
        assert_same(ScoredRows(ids=read.ids[kept], skips=shifted, **columns), part)


def test_features_read_back_bit_for_bit(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    probabilities = np.array([[0.25, 0.75]] * 3, np.float32)
    scores = {"score": np.zeros(3, np.float32), "probabilities": probabilities, "features": features}
    log = ScoreLog(tmp_path, with_features=True)
    log.commit("empty", [])
    log.commit("shard", [scored_rows(["a", "b", "c"], scores, {1: Skip("IMAGE_EMPTY", "no bytes")})])
    (read,) = log.read_with_features(["empty", "shard"])
    assert read.features.tobytes() == features.tobytes()
    assert read.probabilities.tobytes() == probabilities.tobytes()
    assert (read.ids, list(read.skips)) == (["a", "b", "c"], [1])


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=5),
            st.floats(0, 1, width=32),
            st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=5)),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_ids_scores_and_reasons_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, str | None]]
) -> None:
    written = scored_rows(
        [id_ for id_, _, _ in rows],
        outputs([score for _, score, _ in rows], np.full((len(rows), 2), 0.5).tolist())
        if rows
        else {"score": np.zeros(0, np.float32), "probabilities": np.zeros((0, 2), np.float32)},
        {row: Skip(reason, reason * 2) for row, (_, _, reason) in enumerate(rows) if reason is not None},
    )
    log = ScoreLog(tmp_path_factory.mktemp("log"))
    log.commit("shard", [written])
    assert_same(next(iter(log.read(["shard"]))), written)


@pytest.mark.parametrize("parts", [[], [random_rows(0)]])
def test_a_shard_without_rows_is_committed_too(tmp_path: Path, parts: list[ScoredRows]) -> None:
    log = ScoreLog(tmp_path)
    log.commit("empty", parts)
    assert log.holds("empty")
    assert [rows.ids for rows in log.read(["empty"])] == [[]]


def test_shards_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path)
    for name in ("a", "b", "c"):
        log.commit(name, [random_rows(2, prefix=name)])
    assert [rows.ids[0] for rows in log.read(["c", "a"])] == ["c-0", "a-0"]


def test_another_log_of_the_same_directory_holds_what_was_committed(tmp_path: Path) -> None:
    ScoreLog(tmp_path / "log").commit("a", [random_rows(3)])
    again = ScoreLog(tmp_path / "log")
    assert again.holds("a")
    assert not again.holds("b")
    assert next(iter(again.read(["a"]))).ids == ["id-0", "id-1", "id-2"]


def test_a_shard_committed_twice_stands_once(tmp_path: Path) -> None:
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
