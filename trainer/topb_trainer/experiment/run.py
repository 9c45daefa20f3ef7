"""The paper's protocol: methods compared over rounds and seeds, each finished round a durable record.

Within a seed all methods start from the same labelled images and the same T; in later rounds T starts from
the same weights. Picks come from the exported bundle through the scorer's own code, as in production.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from topb_scorer.bundle import Bundle
from topb_scorer.durable import publish_file
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_trainer.config import TrainConfig
from topb_trainer.data.sets import Dataset, UnlabelledSet, subset
from topb_trainer.experiment.config import ExperimentConfig
from topb_trainer.experiment.records import Record, RecordStore, Settings, ids_sha256
from topb_trainer.methods import Method
from topb_trainer.models.resnet import Normalisation, ResNet18, stem_for
from topb_trainer.rounds import RoundData, accuracy_on, finish_round, train_round_task
from topb_trainer.runtime.device import torch_device
from topb_trainer.runtime.seeding import derived_seed
from topb_trainer.runtime.stopwatch import Stopwatch

_SHARD_IMAGES = 4096


@dataclass(frozen=True)
class _TrainedTask:
    model: ResNet18
    accuracy: float
    seconds: dict[str, float]


def settings_of(config: ExperimentConfig, data: Dataset) -> Settings:
    """Returns what decides the results on this data set."""
    about = {
        "name": data.name,
        "train_images": len(data.train.ids),
        "test_images": len(data.test.ids),
        "classes": len(data.train.classes),
        "sha256": data.sha256(),
    }
    # Through JSON, so that what is read back is equal.
    plain = json.loads(json.dumps({"data": about, **config.as_settings()}))
    return Settings(plain)


def run_experiment(
    data: Dataset,
    config: ExperimentConfig,
    methods: Sequence[Method],
    seeds: Sequence[int],
    store: RecordStore,
    *,
    on_record: Callable[[Record, bool], None] | None = None,
    progress: bool = False,
) -> None:
    """Runs what the store does not hold yet; what it holds is not run again.

    Args:
        data: its training set is the pool, its labels the oracle.
        config: the protocol, and each round's training.
        methods: compared.
        seeds: one run of every method each.
        store: of the settings of `data` and `config`.
        on_record: called with each record, in order, and whether it was finished just now.
        progress: whether to show bars on a terminal.

    Raises:
        ConfigurationError: the protocol does not fit the training set.
        TrainerError, ScorerError: as each part of a round says.
    """
    counts = config.protocol.labelled_counts(len(data.train.ids))
    for seed in seeds:
        for method in methods:
            run = _Run(data, config, method, seed, store, counts, progress)
            labelled = initial_rows(len(data.train.ids), counts[0], seed)
            for round_index in range(len(counts)):
                record = store.read(method.name, seed, round_index)
                fresh = record is None
                if record is None:
                    record = run.finished(round_index, labelled)
                    store.publish(record)
                if on_record is not None:
                    on_record(record, fresh)
                labelled = np.concatenate([labelled, np.array(record.picked, np.int64)])


def initial_rows(train_images: int, count: int, seed: int) -> NDArray[np.int64]:
    """Returns the rows labelled at random before the first round: a function of the seed, not of a method."""
    random = np.random.default_rng(derived_seed(seed, "initial"))
    return random.choice(train_images, count, replace=False).astype(np.int64)


def select_in_memory(
    bundle: Bundle, pool: UnlabelledSet, budget: int, strategy: str, *, seed: int, device: str
) -> tuple[str, ...]:
    """Returns the ids that the scorer picks from images in memory, first to last.

    Raises:
        ScorerError: the bundle or the device cannot be used.
    """
    engine = LocalEngine(bundle, EngineSettings(device=device))
    shards = [
        ChunkShard(start, pool.ids[start : start + _SHARD_IMAGES], pool.images[start : start + _SHARD_IMAGES])
        for start in range(0, len(pool.ids), _SHARD_IMAGES)
    ]
    spec = SelectionSpec(budget, strategy, seed)
    return tuple(select_from_pool(spec, engine, shards, cancelled=threading.Event()).ids)


@dataclass(frozen=True)
class _Run:
    """One method from one seed."""

    data: Dataset
    config: ExperimentConfig
    method: Method
    seed: int
    store: RecordStore
    counts: Sequence[int]
    progress: bool

    def finished(self, round_index: int, labelled: NDArray[np.int64]) -> Record:
        """Trains the round on the labelled rows and picks the next ones, but in the last round."""
        config = replace(self.method.configured(self.config.train), seed=self.seed)
        watch = Stopwatch(torch_device(config.device))
        task = self._task(round_index, labelled, config)
        picked: list[int] = []
        model_id, seconds = None, {**task.seconds}
        if round_index + 1 < len(self.counts):
            budget = self.counts[round_index + 1] - self.counts[round_index]
            picked, model_id, spent = self._picked(task, round_index, labelled, budget, config, watch)
            seconds |= spent
        train = self.data.train
        return Record(
            method=self.method.name,
            seed=self.seed,
            round=round_index,
            labelled=len(labelled),
            share=self.config.protocol.shares[round_index],
            accuracy=task.accuracy,
            labelled_sha256=ids_sha256(sorted(train.ids[row] for row in labelled.tolist())),
            picked=picked,
            picked_sha256=ids_sha256([train.ids[row] for row in picked]),
            model_id=model_id,
            settings_sha256=self.store.settings.sha256,
            seconds={part: round(value, 3) for part, value in seconds.items()},
        )

    def _picked(
        self,
        task: _TrainedTask,
        round_index: int,
        labelled: NDArray[np.int64],
        budget: int,
        config: TrainConfig,
        watch: Stopwatch,
    ) -> tuple[list[int], str, dict[str, float]]:
        """Returns the picked rows, the bundle's model id, and the seconds it took by part."""
        train = self.data.train
        rest = np.setdiff1d(np.arange(len(train.ids)), labelled)
        pool = UnlabelledSet(tuple(train.ids[row] for row in rest.tolist()), train.images[rest])
        data = RoundData(subset(train, labelled), pool, self.data.test, self.data.target)
        directory = Path(tempfile.mkdtemp(prefix="topb-experiment-"))
        try:
            trained = finish_round(
                task.model,
                data,
                config,
                self.method.kind,
                test_accuracy=task.accuracy,
                parent=directory,
                round_index=round_index,
                progress=self.progress,
            )
            with watch.timing("select"):
                ids = select_in_memory(
                    trained.bundle,
                    pool,
                    budget,
                    self.method.strategy,
                    seed=derived_seed(self.seed, "select", round_index),
                    device=config.device,
                )
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        row_of = dict(zip(pool.ids, rest.tolist(), strict=True))
        picked = [row_of[id_] for id_ in ids]
        return picked, trained.bundle.model_id, {**trained.seconds, **watch.seconds}

    def _task(self, round_index: int, labelled: NDArray[np.int64], config: TrainConfig) -> _TrainedTask:
        """The round's T; the first round's is trained once a seed and read back by every method."""
        if round_index > 0:
            return self._trained_task(round_index, labelled, config)
        file = self.store.initial(self.seed)
        if not file.exists():
            trained = self._trained_task(0, labelled, config)
            content = {
                "weights": trained.model.state_dict(),
                "accuracy": trained.accuracy,
                "seconds": trained.seconds,
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            publish_file(file, lambda path: torch.save(content, path))
        kept = torch.load(file, map_location="cpu", weights_only=True)
        device = torch_device(config.device)
        height, width = self.data.target.height, self.data.target.width
        model = ResNet18(
            Normalisation((0, 0, 0), (1, 1, 1)),
            len(self.data.train.classes),
            config.task.width,
            stem_for(config.task.stem, height, width),
        )
        model.load_state_dict(kept["weights"])
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return _TrainedTask(model.eval().requires_grad_(False), kept["accuracy"], kept["seconds"])

    def _trained_task(
        self, round_index: int, labelled: NDArray[np.int64], config: TrainConfig
    ) -> _TrainedTask:
        watch = Stopwatch(torch_device(config.device))
        with watch.timing("task"):
            model = train_round_task(
                subset(self.data.train, labelled), config, round_index=round_index, progress=self.progress
            )
        with watch.timing("test"):
            test_accuracy = accuracy_on(model, self.data.test, config, progress=self.progress)
        return _TrainedTask(model, test_accuracy, watch.seconds)
