"""What an encoder gave is kept without loss, in batches, and a later model needs no images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.bundles import write_bundle
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.errors import BundleError
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring.encoded_rows import EncodedRows, Skip
from topb_scorer.scoring.feature_log import ROWS_A_BATCH, FeatureLog, expected_bytes
from topb_scorer.scoring.shard_log import AlteredShardError

pytestmark = pytest.mark.scorer

ROWS = 2 * ROWS_A_BATCH + 37
WIDTH = 8
FEATURES = np.random.default_rng(0).normal(0, 1, (ROWS, WIDTH)).astype(np.float16).astype(np.float32)
DIGESTS = np.random.default_rng(1).integers(0, 256, (ROWS, 16)).astype(np.uint8)
IDS = [f"row-{row}" for row in range(ROWS)]
SKIPPED = {3: Skip("IMAGE_CORRUPT", "torn"), ROWS - 1: Skip("IMAGE_EMPTY", "no bytes")}
SHARD = ChunkShard(0, [], [])


@pytest.fixture(params=[bundle_pb2.FEATURE_TYPE_FLOAT32, bundle_pb2.FEATURE_TYPE_FLOAT16])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    bundle = open_bundle(write_bundle(tmp_path / "bundles"))
    bundle.manifest.feature_type = request.param
    return bundle


def parts(size: int, features: np.ndarray = FEATURES) -> Iterator[EncodedRows]:
    """Yield the rows as one shard in parts of `size`, all in the same buffer."""
    buffer = np.zeros((size, WIDTH), np.float32)
    for start in range(0, ROWS, size):
        stop = min(start + size, ROWS)
        buffer[: stop - start] = features[start:stop]
        skips = {row - start: skip for row, skip in SKIPPED.items() if start <= row < stop}
        outputs = {"features": buffer[: stop - start]}
        yield EncodedRows(SHARD, IDS[start:stop], DIGESTS[start:stop], outputs, skips, stop == ROWS)


@pytest.mark.parametrize("size", [32, 1000, ROWS])
def test_rows_read_back_bit_for_bit_in_batches_of_a_fixed_size(
    size: int, bundle: Bundle, tmp_path: Path
) -> None:
    log = FeatureLog(tmp_path / "log")
    passed_on = [part.ids for part in log.keep(parts(size), bundle)]
    assert [id_ for ids in passed_on for id_ in ids] == IDS
    read = list(log.read(SHARD))
    assert [len(part.ids) for part in read] == [ROWS_A_BATCH, ROWS_A_BATCH, 37]
    assert [part.ends_shard for part in read] == [False, False, True]
    assert [id_ for part in read for id_ in part.ids] == IDS
    assert np.concatenate([part.digests for part in read]).tobytes() == DIGESTS.tobytes()
    assert [dict(part.skips) for part in read] == [{3: SKIPPED[3]}, {}, {36: SKIPPED[ROWS - 1]}]
    scored = np.array([row not in SKIPPED for row in range(ROWS)])
    kept = np.concatenate([part.outputs["features"] for part in read])
    assert kept.dtype == np.float32
    assert kept[scored].tobytes() == FEATURES[scored].tobytes()
    assert not kept[~scored].any()
    outputs = [batch["features"].tobytes() for batch in log.read_outputs(SHARD.identity)]
    assert outputs == [part.outputs["features"].tobytes() for part in read]


def test_half_as_many_bits_take_half_the_space(bundle: Bundle, tmp_path: Path) -> None:
    log = FeatureLog(tmp_path / "log")
    list(log.keep(parts(32), bundle))
    (path,) = log.directory.rglob("*.parquet")
    half = bundle.manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT16
    assert expected_bytes(bundle, ROWS) == ROWS * (80 + WIDTH * (2 if half else 4))
    assert path.stat().st_size < 1.5 * expected_bytes(bundle, ROWS)


def test_a_shard_without_rows_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    log = FeatureLog(tmp_path / "log")
    none = EncodedRows(SHARD, [], DIGESTS[:0], {"features": FEATURES[:0]}, {}, ends_shard=True)
    assert len(list(log.keep(iter([none]), bundle))) == 1
    (read,) = log.read(SHARD)
    assert (read.ids, read.ends_shard, read.outputs["features"].shape) == ([], True, (0, WIDTH))


def test_a_shard_is_committed_before_its_last_rows_are_passed_on_and_not_earlier(
    bundle: Bundle, tmp_path: Path
) -> None:
    log = FeatureLog(tmp_path / "log")
    for part in log.keep(parts(100), bundle):
        assert log.holds(SHARD.identity) == part.ends_shard


def test_a_shard_that_is_not_read_to_its_end_leaves_nothing_behind(bundle: Bundle, tmp_path: Path) -> None:
    log = FeatureLog(tmp_path / "log")
    kept = log.keep(parts(100), bundle)
    next(kept)
    kept.close()
    assert not list(log.directory.rglob("*.parquet"))


def test_an_altered_shard_is_not_read_and_can_be_discarded(bundle: Bundle, tmp_path: Path) -> None:
    log = FeatureLog(tmp_path / "log")
    list(log.keep(parts(100), bundle))
    log.discard_altered([SHARD.identity])
    (path,) = log.directory.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for rows in (log.read(SHARD), log.read_outputs(SHARD.identity)):
        with pytest.raises(AlteredShardError, match="feature log"):
            next(rows)
    log.discard_altered([SHARD.identity])
    assert not log.holds(SHARD.identity)


def test_features_that_would_be_rounded_are_refused(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundles"))
    bundle.manifest.feature_type = bundle_pb2.FEATURE_TYPE_FLOAT16
    log = FeatureLog(tmp_path / "log")
    for wrong in (np.float32(1 / 3), np.float32(1e6)):
        features = FEATURES.copy()
        features[7, 2] = wrong
        with pytest.raises(BundleError, match="float16") as caught:
            list(log.keep(parts(100, features), bundle))
        assert caught.value.reason == "BUNDLE_FEATURE_TYPE"
    assert not log.holds(SHARD.identity)
    # What is not finite is kept as it is: the head skips the row.
    features = FEATURES.copy()
    features[7, :2] = np.nan, np.inf
    list(log.keep(parts(100, features), bundle))
    (first, *_) = log.read_outputs(SHARD.identity)
    assert first["features"][7].tobytes() == features[7].tobytes()


def test_every_output_of_the_encoder_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    latent = bundle.manifest.encoder_outputs.add(name="latent")
    latent.shape.append(3)
    means = np.random.default_rng(2).normal(0, 1, (ROWS, 3)).astype(np.float32)
    (whole,) = parts(ROWS)
    log = FeatureLog(tmp_path / "log")
    list(log.keep(iter([replace(whole, outputs={**whole.outputs, "latent": means})]), bundle))
    kept = np.concatenate([batch["latent"] for batch in log.read_outputs(SHARD.identity)])
    assert kept[4:-1].tobytes() == means[4:-1].tobytes()
