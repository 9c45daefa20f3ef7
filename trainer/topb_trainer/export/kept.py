"""Read pools as the features of their images, which a feature log keeps for later rounds and selections."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from topb.v1 import bundle_pb2
from topb_scorer.bundle import ENCODER, Bundle, encoder_id_of
from topb_scorer.imaging import DEFAULT_LIMITS
from topb_scorer.pools import OpenPool, PoolItem, Unreadable
from topb_scorer.pools.pool import ImageShard
from topb_scorer.scoring.cores import usable_cores
from topb_scorer.scoring.encoded_rows import EncodedRows
from topb_scorer.scoring.feature_log import FeatureLog
from topb_scorer.scoring.model_logs import FEATURES
from topb_scorer.scoring.pipeline import encode_shards
from topb_scorer.scoring.session import GraphSession
from topb_scorer.scoring.shard_log import AlteredShardError
from topb_trainer.data.sets import EncodedImage
from topb_trainer.export.frozen import FrozenEncoder
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.progress import bar

_FEATURE_TYPES = {
    "float32": bundle_pb2.FEATURE_TYPE_FLOAT32,
    "float16": bundle_pb2.FEATURE_TYPE_FLOAT16,
}


@dataclass(frozen=True)
class KeptFeatures:
    """Encodes the shards that a feature log lacks, and reads all from the log."""

    encoder: FrozenEncoder
    log: FeatureLog
    context: RoundContext

    @property
    def feature_size(self) -> int:
        """The number D of features."""
        return self.encoder.feature_size

    def encoded(self, pool: OpenPool) -> Iterator[PoolItem]:
        """Encode what the log lacks, and return an iterator over the rows of a pool.

        Each row has an `EncodedImage` in place of the image, or is unreadable.

        Raises:
            ScorerError: a shard cannot be read to its end.
            OSError: the directory of the log cannot be written to.
        """
        shards = list({shard.identity: shard for shard in pool.image_shards}.values())
        self._encode([shard for shard in shards if not self.log.holds(shard.identity)])
        return (item for shard in shards for part in self._rows(shard) for item in _items(part))

    def _rows(self, shard: ImageShard) -> Iterator[EncodedRows]:
        try:
            yield from self.log.read(shard)
        except AlteredShardError:  # Then nothing was yielded.
            self.log.discard_altered([shard.identity])
            self._encode([shard])
            yield from self.log.read(shard)

    def _encode(self, shards: Sequence[ImageShard]) -> None:
        if not shards:
            return
        encoded = encode_shards(
            shards,
            GraphSession(self.encoder.graph, device=self.context.config.device),
            self.encoder.input,
            limits=DEFAULT_LIMITS,
            decode_threads=usable_cores(),
            cancelled=threading.Event(),
        )
        rows = sum(shard.rows for shard in shards)
        with (
            closing(encoded),
            closing(self.log.keep(encoded, as_bundle(self.encoder))) as kept,
        ):
            ids = (id_ for part in kept for id_ in part.ids)
            for _ in bar(ids, "features", "image", show=self.context.progress, total=rows):
                pass


def kept_features(encoder: FrozenEncoder, state: Path, context: RoundContext) -> KeptFeatures:
    """Return a reader that keeps features in a state directory, where the scorer finds them as well."""
    log = FeatureLog(state / FEATURES / as_bundle(encoder).encoder_id)
    return KeptFeatures(encoder, log, context)


def as_bundle(encoder: FrozenEncoder) -> Bundle:
    """Return what a bundle of this encoder says about it. It has no files."""
    file = bundle_pb2.BundleFile(name=ENCODER, sha256=hashlib.sha256(encoder.graph).hexdigest())
    manifest = bundle_pb2.Bundle(
        files=[file],
        input=encoder.input.to_message(),
        encoder_outputs=[bundle_pb2.ModelOutput(name="features", shape=[encoder.feature_size])],
        feature_type=_FEATURE_TYPES[encoder.feature_type],
    )
    manifest.encoder_id = encoder_id_of(manifest)
    return Bundle(Path(), manifest)


def _items(part: EncodedRows) -> Iterator[PoolItem]:
    features = part.outputs["features"]
    finite = np.asarray(np.isfinite(features).all(axis=1))
    for row, id_ in enumerate(part.ids):
        skip = part.skips.get(row)
        if skip is not None:
            yield PoolItem(id_, Unreadable(skip.reason, skip.detail))
        elif not finite[row]:
            yield PoolItem(
                id_, Unreadable("SCORE_NOT_FINITE", "the encoder gives features that are not finite")
            )
        else:
            # A copy, because the next rows overwrite these.
            image = EncodedImage(features[row].copy(), part.digests[row].tobytes())
            yield PoolItem(id_, cast("Any", image))
