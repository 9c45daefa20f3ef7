"""The head runs on the features of each shard, and its outputs do not depend on how they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from support.bundles import convolutional_graph, write_bundle
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring import model_session
from topb_scorer.scoring.encoded_rows import EncodedRows, Skip
from topb_scorer.scoring.model_session import HEAD_BATCH_SIZE, HeadStage, ModelSession
from topb_scorer.scoring.scored_rows import ScoredRows

pytestmark = pytest.mark.scorer

ROWS = 2 * HEAD_BATCH_SIZE + 37
FEATURES = np.random.default_rng(0).normal(0, 1, (ROWS, 8)).astype(np.float32)
DIGESTS = np.random.default_rng(1).integers(0, 256, (ROWS, 16)).astype(np.uint8)
IDS = [f"row-{row}" for row in range(ROWS)]
SKIPPED = {3: Skip("IMAGE_CORRUPT", "torn"), HEAD_BATCH_SIZE: Skip("IMAGE_EMPTY", "no bytes")}
COLUMNS = ("score", "entropy", "margin", "confidence", "predicted_class", "digests")


def parts(borders: Sequence[int], features: np.ndarray = FEATURES) -> Iterator[EncodedRows]:
    """Yield the rows as one shard, divided at the borders, in a buffer that is used again for each part."""
    shard, buffer = ChunkShard(0, [], []), np.zeros_like(features)
    for start, stop in zip([0, *borders], [*borders, ROWS], strict=True):
        buffer[: stop - start] = features[start:stop]
        skips = {row - start: skip for row, skip in SKIPPED.items() if start <= row < stop}
        outputs = {"features": buffer[: stop - start]}
        yield EncodedRows(shard, IDS[start:stop], DIGESTS[start:stop], outputs, skips, stop == ROWS)


def scored(session: ModelSession, encoded: Iterator[EncodedRows]) -> list[ScoredRows]:
    stage = HeadStage(session)
    return [rows for part in encoded for rows in stage.take(part)]


def joined(rows: list[ScoredRows], column: str) -> bytes:
    return b"".join(getattr(part, column).tobytes() for part in rows)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> ModelSession:
    return ModelSession(bundle, threads=1)


@pytest.mark.parametrize(
    "borders",
    [[], [1], [0, 0, 5], [HEAD_BATCH_SIZE], [HEAD_BATCH_SIZE - 1, HEAD_BATCH_SIZE + 1], [*range(1, ROWS)]],
)
def test_the_rows_of_a_shard_are_the_same_however_they_are_divided(
    session: ModelSession, borders: list[int]
) -> None:
    whole, divided = scored(session, parts([100])), scored(session, parts(borders))
    assert [id_ for rows in divided for id_ in rows.ids] == IDS
    assert [len(rows.ids) for rows in divided] == [HEAD_BATCH_SIZE, HEAD_BATCH_SIZE, 37]
    for column in COLUMNS:
        assert joined(divided, column) == joined(whole, column), column
    assert [dict(rows.skips) for rows in divided] == [{3: SKIPPED[3]}, {0: SKIPPED[HEAD_BATCH_SIZE]}, {}]


def test_kept_features_and_images_give_the_same_bits(session: ModelSession) -> None:
    images = np.random.default_rng(2).integers(0, 256, (ROWS, 16, 16, 3)).astype(np.uint8)
    outputs = session.score(images)
    kept = scored(session, parts([7], outputs["features"].copy()))
    assert joined(kept, "score") == outputs["score"].tobytes()
    assert joined(kept, "confidence") == outputs["probabilities"].max(axis=1).tobytes()


def test_the_head_does_not_run_on_rows_that_are_all_skipped(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = HeadStage(ModelSession(bundle))
    monkeypatch.setattr(model_session.GraphSession, "run", lambda *_: pytest.fail("there is nothing to run"))
    skips = dict.fromkeys(range(5), SKIPPED[3])
    part = EncodedRows(ChunkShard(0, [], []), IDS[:5], DIGESTS[:5], {"features": FEATURES[:5]}, skips, True)
    (rows,) = stage.take(part)
    assert rows.skips == skips


@pytest.mark.parametrize(
    ("outputs", "missing"),
    [
        (["probabilities", "features"], {"score"}),
        (["score", "features"], {"probabilities"}),
        (["features"], {"score", "probabilities"}),
    ],
)
def test_a_model_without_assistant_or_classifier_has_the_other_columns(
    outputs: list[str], missing: set[str], session: ModelSession, tmp_path: Path
) -> None:
    lacking = ModelSession(open_bundle(write_bundle(tmp_path, convolutional_graph(), outputs=outputs)))
    assert lacking.score(np.zeros((2, 16, 16, 3), np.uint8)).keys() == {*outputs}
    whole, rows = scored(session, parts([])), scored(lacking, parts([]))
    of_classifier = {"entropy", "margin", "confidence", "predicted_class"}
    absent = (missing & {"score"}) | (of_classifier if "probabilities" in missing else set())
    for column in COLUMNS:
        assert (joined(rows, column) == joined(whole, column)) == (column not in absent), column
    if "probabilities" in missing:
        assert all((part.predicted_class == -1).all() for part in rows)


def test_a_model_without_an_encoder_scores_features_and_refuses_images(
    session: ModelSession, tmp_path: Path
) -> None:
    without = ModelSession(open_bundle(write_bundle(tmp_path, encoder=False)))
    assert joined(scored(without, parts([])), "score") == joined(scored(session, parts([])), "score")
    with pytest.raises(InvalidRequestError, match="vectors of 8 numbers") as caught:
        without.score(np.zeros((2, 16, 16, 3), np.uint8))
    assert caught.value.reason == "MODEL_WITHOUT_ENCODER"
