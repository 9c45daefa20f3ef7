"""Run an experiment by the protocol of the paper. Each finished round is a durable record.

With the same seed, all methods start from the same labelled images and the same T. In later rounds, T starts
from the same weights whatever the method. The scorer's own code selects from the exported bundle, as in
production.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from topb_scorer.bundle import Bundle
from topb_scorer.durable import publish_file, unpublished_directory
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.pools.stream import ChunkShard, VectorChunkShard
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_trainer.data.mapped import mapped_rows
from topb_trainer.data.sets import Dataset, LabelledSet, RoundData, UnlabelledSet
from topb_trainer.errors import InvalidDataError
from topb_trainer.experiment.chain import ids_sha256, labelled_sha256, require_continues
from topb_trainer.experiment.config import ExperimentConfig
from topb_trainer.experiment.records import Record, RecordStore, Settings
from topb_trainer.export.frozen import FeatureSource, encoded_dataset
from topb_trainer.methods import Method
from topb_trainer.models.task_network import TaskNetwork
from topb_trainer.rounds import finish_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.libraries import library_versions
from topb_trainer.runtime.seeding import derived_seed
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import accuracy_on, train_task, untrained_task
from topb_trainer.vaal import require_images

_SHARD_IMAGES = 4096

PROCEDURE = 2
"""The number of the rules by which this version turns settings into picks, raised whenever they change.

1: a pool keeps copies of labelled images, and equal scores of saturated assistants are ordered by id.
2: a pool lacks the copies of labelled images, and assistants rank by logits.
"""


def settings_of(config: ExperimentConfig, data: Dataset) -> Settings:
    """Return the settings that determine the results of an experiment on `data`."""
    about = {
        "name": data.name,
        "train_images": len(data.train.ids),
        "test_images": len(data.test.ids),
        "classes": len(data.train.classes),
        "sha256": data.sha256(),
    }
    return Settings({"procedure": PROCEDURE, "data": about, **config.as_settings()})


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
    """Run every round of every method and seed that the store does not hold yet.

    Args:
        data: the data set. Its training set is the pool, and the labels of the training set are the oracle.
        config: the protocol, and the training of each round.
        methods: the methods to compare.
        seeds: every method is run once with each seed.
        store: the records. Its settings must be those of `data` and `config`.
        on_record: called in order with each record and whether the record is new.
        progress: whether to show progress on standard error.

    Raises:
        ConfigurationError: the protocol does not fit the training set.
        InvalidDataError: a record does not continue the records before it.
        TrainerError, ScorerError: a step of a round failed.
    """
    counts = config.protocol.labelled_counts(len(data.train.ids))
    if any(method.kind == "vaal" for method in methods):
        require_images(config.train.task)
    encoder: FeatureSource | None = None
    for seed in seeds:
        for method in methods:
            train = replace(method.configured(config.train), seed=seed)
            labelled = initial_rows(len(data.train.ids), counts[0], seed)
            for index, share in enumerate(config.protocol.shares):
                record = store.read(method.name, seed, index)
                is_new = record is None
                if record is not None:
                    require_continues(record, labelled, data.train.ids, store.file(*record.key))
                else:
                    context = RoundContext(train, index, progress)
                    if train.task.trains_head and encoder is None:
                        # Once for all methods, seeds and rounds: none of them changes the encoder.
                        data, encoder = encoded_dataset(data, context)
                    budget = counts[index + 1] - counts[index] if index + 1 < len(counts) else 0
                    record = _Round(data, encoder, method, store, context, labelled).run(share, budget)
                    store.publish(record)
                if on_record is not None:
                    on_record(record, is_new)
                labelled = np.concatenate([labelled, np.array(record.picked, np.int64)])


def initial_rows(train_images: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the rows, int64 (count), that are labelled at random before the first round of any method."""
    random = np.random.default_rng(derived_seed(seed, "initial"))
    return random.choice(train_images, count, replace=False).astype(np.int64)


def unlabelled_rows(train: LabelledSet, labelled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that are neither labelled nor copies of a labelled image, int64 (M), ascending.

    Args:
        train: all images that can be labelled.
        labelled: int64 (N), the labelled rows.
    """
    known = {train.digests[row] for row in labelled.tolist()}
    rest = np.setdiff1d(np.arange(len(train.ids)), labelled)
    return rest[[train.digests[row] not in known for row in rest.tolist()]]


def select_in_memory(
    bundle: Bundle, pool: UnlabelledSet, budget: int, strategy: str, *, seed: int, device: str
) -> tuple[str, ...]:
    """Return the ids that the scorer selects from images or features in memory, in rank order.

    Raises:
        ScorerError: the bundle or the device cannot be used.
    """
    engine = LocalEngine(bundle, EngineSettings(device=device))
    parts = [slice(start, start + _SHARD_IMAGES) for start in range(0, len(pool.ids), _SHARD_IMAGES)]
    shards = [_chunk(part.start, pool.ids[part], pool.images[part]) for part in parts]
    spec = SelectionSpec(budget, strategy, seed)
    return tuple(select_from_pool(spec, engine, shards, cancelled=threading.Event()).ids)


def _chunk(seq: int, ids: Sequence[str], images: NDArray[Any]) -> ChunkShard | VectorChunkShard:
    """Return images (n, H, W, 3), or features (n, D), as a shard."""
    if images.ndim == 2:
        return VectorChunkShard(seq, ids, images, np.empty((len(ids), 0), np.float32))
    return ChunkShard(seq, ids, images)


@dataclass(frozen=True)
class _TrainedTask:
    model: TaskNetwork
    accuracy: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Round:
    """One round of one method and seed."""

    data: Dataset
    encoder: FeatureSource | None
    """The encoder, if it is not trained; `data` then holds its features in place of images."""
    method: Method
    store: RecordStore
    context: RoundContext
    labelled: NDArray[np.int64]
    """(N), the labelled rows of the training set."""

    def run(self, share: float, budget: int) -> Record:
        """Train T on the labelled rows, select `budget` more (0 in the last round), and return the record."""
        ids, seed = self.data.train.ids, self.context.config.seed
        task = self._task()
        picked: list[int] = []
        model_id, seconds = None, {**task.seconds}
        if budget:
            picked, model_id, selecting = self._select(task, budget)
            seconds |= selecting
        return Record(
            method=self.method.name,
            seed=seed,
            round=self.context.index,
            labelled=len(self.labelled),
            share=share,
            accuracy=task.accuracy,
            labelled_sha256=labelled_sha256(ids, self.labelled),
            picked=picked,
            picked_sha256=ids_sha256([ids[row] for row in picked]),
            model_id=model_id,
            settings_sha256=self.store.settings.sha256,
            seconds={part: round(value, 3) for part, value in seconds.items()},
            libraries=library_versions(),
        )

    def _select(self, task: _TrainedTask, budget: int) -> tuple[list[int], str, dict[str, float]]:
        """Return the picked rows in rank order, the model id of the bundle, and seconds by part."""
        train, config = self.data.train, self.context.config
        rest = unlabelled_rows(train, self.labelled)  # (M)
        rest_ids = tuple(train.ids[row] for row in rest.tolist())
        pool = UnlabelledSet(rest_ids, mapped_rows(train.images, rest))
        data = RoundData(train.subset(self.labelled), pool, self.data.test, self.data.target)
        watch = Stopwatch(self.context.device)
        # In the experiment's directory, so that the next run removes what a killed one left behind.
        with unpublished_directory(self.store.path) as directory:
            trained = finish_round(
                task.model,
                data,
                self.method.kind,
                self.context,
                test_accuracy=task.accuracy,
                parent=directory,
                encoder=self.encoder,
            )
            with watch.timing("select"):
                ids = select_in_memory(
                    trained.bundle,
                    pool,
                    budget,
                    self.method.strategy,
                    seed=derived_seed(config.seed, "select", self.context.index),
                    device=config.device,
                )
        row_of = dict(zip(pool.ids, rest.tolist(), strict=True))
        return [row_of[id_] for id_ in ids], trained.bundle.model_id, {**trained.seconds, **watch.seconds}

    def _task(self) -> _TrainedTask:
        """Return T of the round. The first round's T is trained once per seed, for all methods."""
        if self.context.index > 0:
            return self._trained_task()
        seed = self.context.config.seed
        file = self.store.initial(seed)
        place = {
            "settings_sha256": self.store.settings.sha256,
            "labelled_sha256": labelled_sha256(self.data.train.ids, self.labelled),
        }
        if not file.exists():
            trained = self._trained_task()
            content = {
                "place": place,
                "weights": trained.model.state_dict(),
                "accuracy": trained.accuracy,
                "seconds": trained.seconds,
            }
            publish_file(file, lambda path: torch.save(content, path))
        advice = f"delete it and the records of seed {seed}, and run the experiment again to repeat them"
        try:
            kept = torch.load(file, map_location="cpu", weights_only=True)
            of, weights, accuracy, seconds = (
                kept[name] for name in ("place", "weights", "accuracy", "seconds")
            )
        except Exception as error:
            # torch.load raises whatever the archive, the pickle or the file system does.
            raise InvalidDataError(
                f"{file} does not hold a trained model ({error}); {advice}", reason="RECORD_UNREADABLE"
            ) from error
        if of != place:
            raise InvalidDataError(
                f"{file} holds the model of another experiment or seed; {advice}", reason="RECORD_MISPLACED"
            )
        model = untrained_task(self.data.train.subset(self.labelled), self.context.config)
        model.load_state_dict(weights)
        model.to(self.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return _TrainedTask(model.eval().requires_grad_(False), accuracy, seconds)

    def _trained_task(self) -> _TrainedTask:
        watch = Stopwatch(self.context.device)
        with watch.timing("task"):
            model = train_task(self.data.train.subset(self.labelled), self.context)
        with watch.timing("test"):
            accuracy = accuracy_on(model, self.data.test, self.context)
        return _TrainedTask(model, accuracy, watch.seconds)
