"""Fill the logs of a model on one device of this machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from topb_scorer.bundle import Bundle
from topb_scorer.cancellation import check_of, checked
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits, PixelBudget
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.vectors import VectorShard
from topb_scorer.scoring.cores import usable_cores
from topb_scorer.scoring.encoded_rows import EncodedRows
from topb_scorer.scoring.model_logs import ModelLogs
from topb_scorer.scoring.model_session import HeadStage, ModelSession
from topb_scorer.scoring.pipeline import encode_shards
from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.scoring.shard_log import AlteredShardError
from topb_scorer.scoring.vector_rows import read_vectors

_PIXELS_A_DECODER = 2**24


@dataclass(frozen=True)
class EngineSettings:
    """The settings for scoring images. On the CPU, only `limits` can change a result.

    On a GPU, the device and the batch size determine the kernels, and thus how scores are rounded.
    """

    device: str = "cpu"
    """`cpu` or `cuda:<index>`."""
    batch_size: int | None = None
    """Images per batch of the encoder, at least 2; None for 32 on the CPU and 256 on a GPU."""
    session_threads: int | None = None
    """Threads that run the model on the CPU; None for one per usable core."""
    decode_threads: int | None = None
    """Threads that decode images; None for one per usable core."""
    limits: ImageLimits = DEFAULT_LIMITS
    """Size limits of images. Larger images are skipped."""

    @property
    def decoders(self) -> int:
        """The number of threads that decode images."""
        return self.decode_threads or usable_cores()

    def new_pixel_budget(self) -> PixelBudget:
        """Return a budget for the largest image, or for 16 megapixels a decoding thread if that is more."""
        return PixelBudget(max(self.limits.max_pixels, self.decoders * _PIXELS_A_DECODER))


class LocalEngine:
    """Scores with one bundle on one device of this machine. It can be shared between threads.

    Attributes:
        bundle: the model.
        session: the loaded graphs.
        budget: the pixels that may be decoded at once.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: EngineSettings = EngineSettings(),
        budget: PixelBudget | None = None,
    ) -> None:
        """Load the bundle's graphs on the device.

        Args:
            bundle: the model.
            settings: how images are scored.
            budget: the budget of all engines of this process; None for a new one.

        Raises:
            BundleError: with reason BUNDLE_GRAPH, if a graph does not match the manifest.
            DeviceError: the device cannot be used.
            InvalidRequestError: with reason BATCH_SIZE_TOO_SMALL.
        """
        self.bundle = bundle
        self.budget = budget or settings.new_pixel_budget()
        self._settings = settings
        default = 32 if settings.device == "cpu" else 256
        self.session = ModelSession(
            bundle,
            device=settings.device,
            batch_size=default if settings.batch_size is None else settings.batch_size,
            threads=settings.session_threads,
        )

    def fill(
        self,
        logs: ModelLogs,
        shards: Iterable[Shard | None],
        *,
        cancelled: threading.Event,
        on_rows: Callable[[int], None],
        on_commit: Callable[[Shard], None],
    ) -> None:
        """Score shards from their images, and commit each one to the logs as soon as it is finished.

        The encoder runs in batches that span shards of images. The head runs on its outputs for each shard,
        or on vectors that take their place.

        Args:
            logs: the logs to which the shards are committed, first to the feature log if that is written.
            shards: the shards, which are scored in this order. None means that no shard is ready: the partial
                batch is run now.
            cancelled: setting it stops the work within one batch.
            on_rows: called with the number of rows scored since the last call.
            on_commit: called with each shard after it was committed.

        Raises:
            BundleError: with reason BUNDLE_FEATURE_TYPE, if features cannot be kept as the manifest says.
            InvalidRequestError: the model cannot score such shards: MODEL_WITHOUT_ENCODER, VECTOR_WIDTH or
                IMAGES_NEEDED.
            SelectionCancelledError: `cancelled` was set.
            UnreadablePoolError: a shard cannot be read to its end.
        """
        with closing(self._encoded(logs, shards, cancelled)) as encoded:
            self._score(logs, encoded, on_rows=on_rows, on_commit=on_commit)

    def fill_from_features(
        self,
        logs: ModelLogs,
        shards: Iterable[Shard],
        *,
        cancelled: threading.Event,
        on_rows: Callable[[int], None],
        on_commit: Callable[[Shard], None],
    ) -> list[Shard]:
        """Score shards from their features in the feature log, without reading an image.

        Arguments and errors are the same as for `fill`, and so are the scores, bit for bit.

        Returns:
            the shards whose features were incomplete or altered. They are no longer in the feature log.
        """
        lost = []
        check = check_of(cancelled)
        for shard in checked(shards, check):
            try:
                self._score(
                    logs, checked(logs.features.read(shard), check), on_rows=on_rows, on_commit=on_commit
                )
            except AlteredShardError:
                logs.features.discard_altered([shard.identity])
                lost.append(shard)
        return lost

    def _score(
        self,
        logs: ModelLogs,
        encoded: Iterable[EncodedRows],
        *,
        on_rows: Callable[[int], None],
        on_commit: Callable[[Shard], None],
    ) -> None:
        """Apply the head to the rows of shards, and commit each shard to the score log when it ends."""
        head = HeadStage(self.session)
        scored: list[ScoredRows] = []
        for part in encoded:
            scored += head.take(part)
            on_rows(len(part.ids))
            if part.ends_shard:
                logs.scores.commit(part.shard.identity, scored)
                scored = []
                on_commit(part.shard)

    def _encoded(
        self, logs: ModelLogs, shards: Iterable[Shard | None], cancelled: threading.Event
    ) -> Generator[EncodedRows, None, None]:
        """Yield the rows of all shards in order, with the encoder's outputs or vectors in their place.

        They have been committed to the feature log, if it keeps them. Vectors are in the pool already, so
        they are kept only if the selection needs them.
        """
        for has_vectors, of_one_kind in groupby(shards, _kind_of_last_shard()):
            run: Iterator[Any] = of_one_kind
            if has_vectors is None:
                deque(run, maxlen=0)  # No shard is ready yet.
                continue
            rows = (
                read_vectors(run, self.bundle, cancelled=cancelled)
                if has_vectors
                else encode_shards(
                    run,
                    self.session.encoder,
                    self.bundle.input,
                    limits=self._settings.limits,
                    budget=self.budget,
                    decode_threads=self._settings.decoders,
                    cancelled=cancelled,
                )
            )
            keeps = logs.needs_features if has_vectors else logs.writes_features
            with closing(rows), closing(logs.features.keep(rows, self.bundle) if keeps else rows) as kept:
                yield from kept


def _kind_of_last_shard() -> Callable[[Shard | None], bool | None]:
    """Return a function that says whether the last shard has vectors; None before the first shard."""
    has_vectors: bool | None = None

    def key(shard: Shard | None) -> bool | None:
        nonlocal has_vectors
        if shard is not None:
            has_vectors = isinstance(shard, VectorShard)
        return has_vectors

    return key
