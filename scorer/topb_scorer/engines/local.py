"""Scores shards on one device of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

from topb_scorer.bundle import Bundle
from topb_scorer.errors import BundleError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.cores import usable_cores
from topb_scorer.scoring.pipeline import score_shards
from topb_scorer.scoring.score_log import ScoredRows, ScoreLog
from topb_scorer.scoring.session import OUTPUTS, ScoringSession


@dataclass(frozen=True)
class EngineSettings:
    """How images are scored; none of it changes a result on the CPU."""

    device: str = "cpu"
    """`cpu` or `cuda:<index>`."""
    batch_size: int | None = None
    """Images a run; None: 32 on the CPU, 256 on a GPU."""
    session_threads: int | None = None
    """Of one run on the CPU; None: one a core."""
    decode_threads: int | None = None
    """None: one a core."""
    limits: ImageLimits = DEFAULT_LIMITS
    """What is skipped rather than decoded."""


class LocalEngine:
    """One bundle on one device. Several threads may score with it at once."""

    def __init__(self, bundle: Bundle, settings: EngineSettings = EngineSettings()) -> None:
        """Loads the bundle's graph on the device.

        Raises:
            BundleError: the graph is not what the manifest says.
            DeviceError: a device cannot be used.
            InvalidRequestError: the batch size is below 2.
        """
        self.bundle = bundle
        self.settings = settings
        self.session = ScoringSession(
            bundle.graph,
            device=settings.device,
            batch_size=_default_batch_size(settings.device)
            if settings.batch_size is None
            else settings.batch_size,
            threads=settings.session_threads,
        )
        _check_graph(bundle, self.session)

    def fill(
        self,
        log: ScoreLog,
        shards: Iterable[Shard | None],
        *,
        cancelled: threading.Event,
        on_rows: Callable[[int], None],
        on_commit: Callable[[Shard], None],
    ) -> None:
        """Scores the shards and commits each to the log as it ends.

        Args:
            log: where shards are committed.
            shards: as `score_shards` takes them.
            cancelled: stops the work within one batch.
            on_rows: called with the number of rows done since the last call.
            on_commit: called once a shard is in the log.

        Raises:
            SelectionCancelledError: `cancelled` was set.
            UnreadablePoolError: a shard cannot be read to its end.
        """
        parts: list[ScoredRows] = []
        with closing(
            score_shards(
                shards,
                self.session,
                self.bundle.input,
                outputs=log.outputs,
                limits=self.settings.limits,
                decode_threads=self.settings.decode_threads or usable_cores(),
                cancelled=cancelled,
            )
        ) as scored:
            for part in scored:
                parts.append(part.rows)
                on_rows(len(part.rows.ids))
                if part.ends_shard:
                    log.commit(part.shard.identity, parts)
                    parts = []
                    on_commit(part.shard)


def _default_batch_size(device: str) -> int:
    return 32 if device == "cpu" else 256


def _check_graph(bundle: Bundle, session: ScoringSession) -> None:
    expected = (bundle.input.height, bundle.input.width)
    if session.image_shape != expected:
        raise BundleError(
            f"bundle {bundle.model_id}: the manifest speaks of images of {expected}, "
            f"the graph takes {session.image_shape}",
            reason="BUNDLE_GRAPH",
        )
    for output in OUTPUTS:
        shape = bundle.output_shape(output)
        if session.output_shapes.get(output) != shape:
            raise BundleError(
                f"bundle {bundle.model_id}: the manifest says that output {output!r} is {shape} an image, "
                f"the graph {session.output_shapes.get(output)}",
                reason="BUNDLE_GRAPH",
            )
