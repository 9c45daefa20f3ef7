"""Let the vectors of a pool take the place of an encoder's outputs."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import numpy as np

from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.cancellation import check_of
from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.pool import DIGEST_BYTES, NO_DIGEST, content_digest
from topb_scorer.pools.vectors import Float32Array, VectorLayout, VectorRows, VectorShard
from topb_scorer.scoring.batches import read_ahead
from topb_scorer.scoring.encoded_rows import EncodedRows, Skip
from topb_scorer.scoring.no_model import NoModel

_BLOCKS_READ_AHEAD = 4


def check_vectors_fit(bundle: Bundle, layout: VectorLayout) -> None:
    """Check that vectors can take the place of the outputs of a model's encoder.

    Args:
        bundle: the model.
        layout: the sizes of the rows of a pool.

    Raises:
        InvalidRequestError: with reason VECTOR_WIDTH or IMAGES_NEEDED.
    """
    needed = bundle.encoder_outputs
    others = sorted(needed.keys() - {"features", "probabilities"})
    if others:
        raise InvalidRequestError(
            f"the head of model {bundle.model_id} takes further outputs of the encoder than features: "
            f"{', '.join(others)}; give images instead of vectors, or choose another model",
            reason="IMAGES_NEEDED",
            model=bundle.model_id,
        )
    expected = VectorLayout(*needed["features"], *needed.get("probabilities", (0,)))
    found = VectorLayout(layout.width, layout.classes if "probabilities" in needed else 0)
    if layout.width and found != expected:
        takes = (
            f"the first of them is one of {expected}; expected one size in a pool"
            if isinstance(bundle, NoModel)
            else f"model {bundle.model_id} takes {expected}; give vectors of the encoder that it was trained "
            "on, or choose another model"
        )
        raise InvalidRequestError(
            f"the pool has {found}, but {takes}",
            reason="VECTOR_WIDTH",
            model=bundle.model_id,
            width=layout.width,
        )


def read_vectors(
    shards: Iterable[VectorShard | None], bundle: Bundle, *, cancelled: threading.Event
) -> Generator[EncodedRows, None, None]:
    """Yield the rows of shards as if the bundle's encoder had made their vectors, rounded as it rounds them.

    A thread reads a few blocks ahead. Closing the generator stops it.

    Args:
        shards: the shards, which are read in this order. None means that no shard is ready.
        bundle: the model.
        cancelled: checked before each block.

    Raises:
        InvalidRequestError: the vectors do not fit the model; see `check_vectors_fit`.
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end.
    """
    check = check_of(cancelled)
    with closing(read_ahead(_blocks(shards, bundle), _BLOCKS_READ_AHEAD)) as ready:
        for rows in ready:
            check()
            if rows is not None:
                yield rows


def _blocks(shards: Iterable[VectorShard | None], bundle: Bundle) -> Iterator[EncodedRows | None]:
    shapes = bundle.encoder_outputs
    for shard in shards:
        if shard is None:
            yield None
            continue
        check_vectors_fit(bundle, shard.layout)
        for block in shard.blocks(with_probabilities="probabilities" in shapes):
            outputs = {"features": _rounded(block.vectors, bundle)}
            if "probabilities" in shapes:
                outputs["probabilities"] = block.probabilities
            for name, values in outputs.items():
                # A pool without any vector has no width. All of its rows are skipped.
                if values.shape[1:] != shapes[name]:
                    outputs[name] = np.zeros((len(block.ids), *shapes[name]), np.float32)
            skips = {row: Skip(fault.reason, fault.detail) for row, fault in block.faults.items()}
            yield EncodedRows(shard, block.ids, _digests(block), outputs, skips, ends_shard=False)
        none = {name: np.zeros((0, *shape), np.float32) for name, shape in shapes.items()}
        yield EncodedRows(shard, [], np.zeros((0, DIGEST_BYTES), np.uint8), none, {}, ends_shard=True)


def _rounded(vectors: Float32Array, bundle: Bundle) -> Float32Array:
    if bundle.manifest.feature_type != bundle_pb2.FEATURE_TYPE_FLOAT16:
        return vectors
    with np.errstate(over="ignore"):
        return vectors.astype(np.float16).astype(np.float32)


def _digests(block: VectorRows) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    reasons = {"VECTOR_MISSING", "VECTOR_WIDTH"}
    absent = {row for row, fault in block.faults.items() if fault.reason in reasons}
    digests = [
        NO_DIGEST if row in absent else content_digest(vector) for row, vector in enumerate(block.vectors)
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
