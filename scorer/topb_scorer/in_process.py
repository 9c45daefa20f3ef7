"""Select images in this process instead of on a server, with the same code and the same result."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from topb.pools import Pool
from topb.progress import Progress
from topb.results import SelectionResult
from topb_scorer.bundle import open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.pools import AllowedRoots, open_pool, read_exclusion
from topb_scorer.pools.digests_by_id import DigestsById
from topb_scorer.scoring.layout import checked_version
from topb_scorer.scoring.model_logs import logs_in
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.serving import check_no_model_needed, scored_by
from topb_scorer.selecting.spec import DEFAULT_STRATEGY, SelectionSpec


def select_batch(
    pool: str | os.PathLike[str] | Pool,
    budget: int,
    *,
    bundle: str | Path | None = None,
    strategy: str = DEFAULT_STRATEGY,
    seed: int = 0,
    exclude: Iterable[str] | Mapping[str, bytes] | SelectionResult = (),
    exclude_uri: str | None = None,
    exclude_column: str = "id",
    include_labelled: bool = False,
    strategy_options: Mapping[str, str] | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    state: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> SelectionResult:
    """Select the b best images or vectors of a pool that this process can read.

    Args:
        pool: a path, a glob, or a file:// or s3:// URI of a pool in any format, or a `topb.Pool`, which also
            describes its layout.
        budget: b, at least 1.
        bundle: the directory of the model's bundle; None to select from a pool of vectors without a model.
        strategy: the name of a query strategy.
        seed: the seed of strategies that draw at random.
        exclude: images to leave out: their ids, the content digest of each by its id (`b""` if it is not
            known), or the result of an earlier selection.
        exclude_uri: a Parquet file with further images to leave out, such as a bundle's `labelled.parquet`.
            If it has content digests in a column `digest`, images are found under other ids too.
        exclude_column: the column of that file that contains the ids.
        include_labelled: whether images that the model was trained on may be picked. By default they are left
            out, by id or by content.
        strategy_options: options of the strategy: a mapping from name to value, both text.
        device: "cpu" or "cuda:<index>".
        batch_size: images per batch; None for the device's default.
        state: a directory that keeps scores, and the features of encoders that training leaves as they are,
            for later selections; None to keep nothing. It may be the state directory of servers.
        progress: called with the progress while images are scored.

    Returns:
        the ranked picks, and the accounts, which count every row of the pool.

    Raises:
        ScorerError: the request is invalid, or the pool, the bundle, the device or the state directory cannot
            be used; `reason` says why.
        OSError: the state directory cannot be written to.
    """
    started = time.monotonic()
    roots = AllowedRoots.anywhere()
    if isinstance(exclude, SelectionResult):
        exclude = exclude.ids
    excluded = DigestsById.of(exclude) if isinstance(exclude, Mapping) else DigestsById.pairs(exclude)
    if exclude_uri is not None:
        excluded = excluded.updated(read_exclusion(exclude_uri, exclude_column, roots))
    spec = SelectionSpec(budget, strategy, seed, excluded, dict(strategy_options or {}), include_labelled)
    if bundle is None:
        check_no_model_needed(spec)
    model = None if bundle is None else open_bundle(Path(bundle))
    opened = open_pool(pool, roots=roots)
    scoring = scored_by(model, spec, opened.vectors)
    logs = None
    if state is not None:
        checked_version(Path(state))
        logs = logs_in(Path(state), scoring, needs_features=spec.needs_features, keep_features="frozen")
    engine = LocalEngine(scoring, EngineSettings(device=device, batch_size=batch_size))
    observer = _ProgressObserver(progress, opened.rows, started) if progress else SelectionObserver()
    result = select_from_pool(
        spec, engine, opened.shards, logs, observer=observer, cancelled=threading.Event()
    )
    return replace(result, pool=os.fspath(pool.uri if isinstance(pool, Pool) else pool))


class _ProgressObserver(SelectionObserver):
    def __init__(self, progress: Callable[[Progress], None], total: int, started: float) -> None:
        self._progress = progress
        self._total = total
        self._started = started
        self._read = 0

    def on_rows(self, count: int) -> None:
        self._read += count
        self._progress(
            Progress(read=self._read, total=self._total, elapsed_seconds=time.monotonic() - self._started)
        )
