"""Load encoder and head of a bundle on a device, and turn encoder outputs into rows of a score log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from topb_scorer.bundle import Bundle
from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.errors import BundleError, InvalidRequestError
from topb_scorer.pools.pool import DIGEST_BYTES
from topb_scorer.scoring.encoded_rows import EncodedRows, Skip
from topb_scorer.scoring.scored_rows import ScoredRows, scored_rows
from topb_scorer.scoring.session import Float32Array, GraphSession

HEAD_BATCH_SIZE = 256
"""Rows per batch of the head. Its matrix products are small, and a short last batch of a shard is padded."""


class ModelSession:
    """The encoder and the head of a bundle, loaded on a device. It can be shared between threads.

    Attributes:
        bundle: the model.
        head: None if the model has only features.
    """

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", batch_size: int = 32, threads: int | None = None
    ) -> None:
        """Load the graphs.

        Args:
            bundle: the model.
            device, threads: as for `GraphSession`.
            batch_size: images per batch of the encoder.

        Raises:
            BundleError: with reason BUNDLE_GRAPH, if a graph does not match the manifest.
            DeviceError: the device cannot be used.
            InvalidRequestError: with reason BATCH_SIZE_TOO_SMALL.
        """
        self.bundle = bundle
        self._encoder = (
            None
            if bundle.encoder is None
            else GraphSession(bundle.encoder, device=device, batch_size=batch_size, threads=threads)
        )
        self.head = (
            None
            if bundle.head is None
            else GraphSession(bundle.head, device=device, batch_size=HEAD_BATCH_SIZE, threads=threads)
        )
        _check_graphs(bundle, self._encoder, self.head)

    @property
    def encoder(self) -> GraphSession:
        """The encoder.

        Raises:
            InvalidRequestError: with reason MODEL_WITHOUT_ENCODER.
        """
        if self._encoder is None:
            raise model_without_encoder(self.bundle)
        return self._encoder

    def score(self, images: NDArray[np.uint8], *, check: Check = never_cancelled) -> dict[str, Float32Array]:
        """Return all outputs of any number of images: those of the encoder and those of the head.

        Args:
            images: uint8 (n, height, width, 3), RGB.
            check: called before each batch.

        Returns:
            the outputs by name, float32 (n, …).

        Raises:
            InvalidRequestError: with reason MODEL_WITHOUT_ENCODER.
            SelectionCancelledError: `check` raised it.
        """
        encoded = self.encoder.apply({"images": images}, check=check)
        return encoded if self.head is None else encoded | self.head.apply(encoded, check=check)


class HeadStage:
    """Applies the head to the encoder outputs of shards, in batches that do not span shards.

    So it does not matter whether the outputs come from the encoder or from where they were kept.
    """

    def __init__(self, session: ModelSession) -> None:
        """Allocate the memory for one batch.

        Args:
            session: the loaded model.
        """
        self._head = session.head
        self._buffers = None if self._head is None else self._head.new_buffers()
        self._encoded = {
            name: np.zeros((HEAD_BATCH_SIZE, *shape), np.float32)
            for name, shape in session.bundle.encoder_outputs.items()
        }
        if self._buffers is not None:
            self._encoded |= self._buffers.inputs
        self._ids: list[str] = []
        self._digests = np.zeros((HEAD_BATCH_SIZE, DIGEST_BYTES), np.uint8)
        self._skips: dict[int, Skip] = {}

    def take(self, part: EncodedRows) -> Iterator[ScoredRows]:
        """Take the next rows of a shard, and yield the rows that are scored now, in order.

        After the last rows of a shard, all of its rows have been yielded.
        """
        start = 0
        while start < len(part.ids):
            stop = min(len(part.ids), start + HEAD_BATCH_SIZE - len(self._ids))
            self._append(part, start, stop)
            start = stop
            if len(self._ids) == HEAD_BATCH_SIZE:
                yield self._scored()
        if part.ends_shard and self._ids:
            yield self._scored()

    def _append(self, part: EncodedRows, start: int, stop: int) -> None:
        held = len(self._ids)
        self._digests[held : held + stop - start] = part.digests[start:stop]
        for name, values in part.outputs.items():
            self._encoded[name][held : held + stop - start] = values[start:stop]
        for row, skip in part.skips.items():
            if start <= row < stop:
                self._skips[held + row - start] = skip
        self._ids += part.ids[start:stop]

    def _scored(self) -> ScoredRows:
        rows, ids, skips = len(self._ids), self._ids, self._skips
        self._ids, self._skips = [], {}
        outputs = dict(self._encoded)
        if self._head is not None and self._buffers is not None:
            if len(skips) < rows:
                self._head.run(self._buffers)
            outputs |= self._buffers.outputs
        taken = {name: values[:rows] for name, values in outputs.items()}
        digests = self._digests[:rows].copy()
        return scored_rows(ids, taken, skips, digests=digests)


def model_without_encoder(bundle: Bundle) -> InvalidRequestError:
    """Return the error to raise if a model without an encoder is to score images."""
    return InvalidRequestError(
        f"model {bundle.model_id} has no encoder and cannot score images; give vectors of "
        f"{bundle.output_shape('features')[0]} numbers, or choose a model with an encoder",
        reason="MODEL_WITHOUT_ENCODER",
        model=bundle.model_id,
    )


def _check_graphs(bundle: Bundle, encoder: GraphSession | None, head: GraphSession | None) -> None:
    size = (bundle.input.height, bundle.input.width, 3)
    if encoder is not None:
        _check_shapes(bundle, "encoder", {"images": size}, encoder.input_shapes)
        _check_shapes(bundle, "encoder", bundle.encoder_outputs, encoder.output_shapes)
    if head is not None:
        _check_shapes(bundle, "head", head.input_shapes, bundle.encoder_outputs)
        _check_shapes(bundle, "head", bundle.head_outputs, head.output_shapes)


def _check_shapes(
    bundle: Bundle, graph: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if found.get(name) != shape:
            raise BundleError(
                f"bundle {bundle.model_id}: for one row, {name!r} of the {graph} should have shape {shape}, "
                f"but has {found.get(name, 'none')}; export the bundle again",
                reason="BUNDLE_GRAPH",
            )
