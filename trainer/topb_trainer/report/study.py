"""Evaluate the records of an experiment: accuracies, differences from Random, labels needed, query times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from topb_trainer.errors import InvalidDataError
from topb_trainer.experiment.chain import require_chains
from topb_trainer.experiment.records import Record, open_records
from topb_trainer.methods import METHODS, Method
from topb_trainer.report.statistics import Summary, crossing, summary_of

BASELINE = "random"

_QUERY_PARTS = ("labelled_features", "selector", "select")
"""The parts of a round that make up the paper's query time: training the selector, and selecting."""


@dataclass(frozen=True)
class LabelsNeeded:
    """The labels with which methods reach Random's final accuracy, by mean curves over the same seeds."""

    seeds: tuple[int, ...]
    """The seeds over which every curve is averaged."""
    goal: float
    """Random's mean accuracy in the last round."""
    labels: Mapping[str, float | None]
    """The number of labels at which the curve of each method first reaches the goal, Random's included; None
    if it does not."""


class Study:
    """The records of an experiment, or of several with the same settings and different seeds."""

    def __init__(self, records: Sequence[Record], settings: Mapping[str, Any]) -> None:
        self.records = records
        self.settings = settings
        self._by_round: dict[tuple[str, int], dict[int, Record]] = defaultdict(dict)
        for record in records:
            self._by_round[record.method, record.round][record.seed] = record
        present = {record.method for record in records}
        self.methods: list[Method] = [method for name, method in METHODS.items() if name in present]
        self.rounds = sorted({record.round for record in records})
        self.shares = {record.round: record.share for record in records}
        self.labelled = {record.round: record.labelled for record in records}

    def accuracy(self, method: str, round_index: int, among: Sequence[str] = ()) -> Summary | None:
        """Return the test accuracy over seeds, or None if there is no record.

        Only those seeds count that all methods of `among` have, except those without a record of the round.
        """
        found = self._by_round.get((method, round_index), {})
        others = [self._by_round.get((other, round_index), {}) for other in among]
        shared = set(found).intersection(*(other for other in others if other))
        return summary_of([record.accuracy for seed, record in found.items() if seed in shared])

    def difference(self, method: str, round_index: int, other: str = BASELINE) -> Summary | None:
        """Return the accuracy minus that of another method, paired by seed, or None if no seed has both."""
        ours = self._by_round.get((method, round_index), {})
        theirs = self._by_round.get((other, round_index), {})
        shared = sorted(ours.keys() & theirs.keys())
        return summary_of([ours[seed].accuracy - theirs[seed].accuracy for seed in shared])

    def labels_needed(self) -> list[LabelsNeeded]:
        """Return the labels needed for Random's final accuracy, for each set of seeds that a method shares
        with Random, the largest first. A set has all methods that have all its seeds."""
        complete = {method.name: self._complete_seeds(method.name) for method in self.methods}
        baseline = complete.pop(BASELINE, set())
        shared = {tuple(sorted(seeds & baseline)) for seeds in complete.values()}
        labels = [float(self.labelled[index]) for index in self.rounds]
        found = []
        for seeds in sorted(filter(None, shared), key=lambda seeds: (-len(seeds), seeds)):
            goal = self._mean_curve(BASELINE, seeds)[-1]
            names = [BASELINE, *(name for name, theirs in complete.items() if theirs >= set(seeds))]
            needed = {name: crossing(labels, self._mean_curve(name, seeds), goal) for name in names}
            found.append(LabelsNeeded(seeds, goal, needed))
        return found

    def query_seconds(self, method: str) -> Summary | None:
        """Return the query time in seconds per 100 picks, over rounds and seeds; None without picks."""
        per_hundred = [
            100 * sum(record.seconds.get(part, 0.0) for part in _QUERY_PARTS) / len(record.picked)
            for record in self.records
            if record.method == method and record.picked
        ]
        return summary_of(per_hundred)

    def seeds(self, method: str) -> list[int]:
        """Return the seeds with a record of a method."""
        return sorted({record.seed for record in self.records if record.method == method})

    def _complete_seeds(self, method: str) -> set[int]:
        found = [self._by_round.get((method, round_index), {}).keys() for round_index in self.rounds]
        return set.intersection(*(set(seeds) for seeds in found))

    def _mean_curve(self, method: str, seeds: Sequence[int]) -> list[float]:
        return [
            fmean(self._by_round[method, index][seed].accuracy for seed in seeds) for index in self.rounds
        ]


def read_study(paths: Sequence[Path]) -> Study:
    """Read the experiments in these directories as one.

    Raises:
        InvalidDataError: a directory holds no experiment or one with other settings, there is no record, or
            two directories have records of the same method and seed, or a record does not follow from the
            record before it.
    """
    stores = [open_records(path) for path in paths]
    for store in stores[1:]:
        if store.settings.sha256 != stores[0].settings.sha256:
            raise InvalidDataError(
                f"{store.path} has other settings than {stores[0].path}; report it separately",
                reason="EXPERIMENT_SETTINGS",
            )
    records: dict[tuple[str, int, int], Record] = {}
    for store in stores:
        for record in store.records():
            if record.key in records:
                raise InvalidDataError(
                    f"{store.path}: records of {record.method} with seed {record.seed} are in another "
                    "directory too; report one of the two",
                    reason="RECORD_TWICE",
                )
            if record.method not in METHODS:
                raise InvalidDataError(
                    f"{store.path}: the method {record.method!r} of a record is unknown; "
                    f"expected one of {', '.join(METHODS)}",
                    reason="METHOD_UNKNOWN",
                )
            records[record.key] = record
    if not records:
        raise InvalidDataError(
            f"{paths[0]} holds no finished round yet; run topb experiment first", reason="NO_RECORDS"
        )
    found = [records[key] for key in sorted(records)]
    require_chains(found)
    return Study(found, stores[0].settings.values)
