"""What the records of one experiment come to: curves, differences from Random, labels saved, query times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topb_trainer.errors import InvalidDataError
from topb_trainer.experiment.records import Record, open_records
from topb_trainer.methods import METHODS, Method
from topb_trainer.report.statistics import Summary, crossing, summary_of

BASELINE = "random"

_QUERY_PARTS = ("labelled_features", "selector", "select")
"""Of the seconds of a round: what the paper calls query time, training of the selector and selection."""


@dataclass(frozen=True)
class LabelsNeeded:
    """How many labels a method needs for Random's final accuracy, both by their mean curves."""

    labels: float | None
    """None where the method does not reach it."""
    goal: float
    """Random's mean accuracy in the last round."""
    final_labels: int
    """What Random needs."""
    n: int
    """Seeds that both curves are means of."""


class Study:
    """The records of one experiment, or of several of the same settings on other seeds."""

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

    def accuracy(self, method: str, round_index: int) -> Summary | None:
        """Returns test accuracy over seeds; None without a record."""
        found = self._by_round.get((method, round_index))
        return summary_of([record.accuracy for record in found.values()]) if found else None

    def difference(self, method: str, round_index: int) -> Summary | None:
        """Returns accuracy minus Random's, seed by seed; None where no seed has both."""
        theirs = self._by_round.get((method, round_index), {})
        baseline = self._by_round.get((BASELINE, round_index), {})
        shared = sorted(theirs.keys() & baseline.keys())
        if not shared:
            return None
        return summary_of([theirs[seed].accuracy - baseline[seed].accuracy for seed in shared])

    def labels_needed(self, method: str) -> LabelsNeeded | None:
        """Returns the labels needed for Random's final accuracy; None where no seed has both curves whole."""
        seeds = sorted(self._whole_seeds(method) & self._whole_seeds(BASELINE))
        if not seeds:
            return None
        goal = self._mean_curve(BASELINE, seeds)[-1]
        labels = [float(self.labelled[round_index]) for round_index in self.rounds]
        return LabelsNeeded(
            crossing(labels, self._mean_curve(method, seeds), goal), goal, int(labels[-1]), len(seeds)
        )

    def query_seconds(self, method: str) -> Summary | None:
        """Returns seconds a 100 picks, over rounds and seeds: training of the selector plus selection."""
        per_hundred = [
            100 * sum(record.seconds.get(part, 0.0) for part in _QUERY_PARTS) / len(record.picked)
            for record in self.records
            if record.method == method and record.picked
        ]
        return summary_of(per_hundred) if per_hundred else None

    def seeds(self, method: str) -> list[int]:
        """Returns the seeds that a method has a record of."""
        return sorted({record.seed for record in self.records if record.method == method})

    def _whole_seeds(self, method: str) -> set[int]:
        found = [self._by_round.get((method, round_index), {}).keys() for round_index in self.rounds]
        return set.intersection(*(set(seeds) for seeds in found))

    def _mean_curve(self, method: str, seeds: Sequence[int]) -> list[float]:
        return [
            summary_of([self._by_round[method, index][seed].accuracy for seed in seeds]).mean
            for index in self.rounds
        ]


def read_study(paths: Sequence[Path]) -> Study:
    """Reads the experiments in these directories, all of the same settings, as one.

    Raises:
        InvalidDataError: a directory holds no experiment or one of other settings, there is no record, or a
            method and seed has records in two of them.
    """
    stores = [open_records(path) for path in paths]
    for store in stores[1:]:
        if store.settings.sha256 != stores[0].settings.sha256:
            raise InvalidDataError(
                f"{store.path} is an experiment of other settings than {stores[0].path}; report it by itself",
                reason="EXPERIMENT_SETTINGS",
            )
    records: dict[tuple[str, int, int], Record] = {}
    for store in stores:
        for record in store.records():
            key = (record.method, record.seed, record.round)
            if key in records:
                raise InvalidDataError(
                    f"{store.path}: {record.method} from seed {record.seed} stands in another directory too",
                    reason="RECORD_TWICE",
                )
            if record.method not in METHODS:
                raise InvalidDataError(
                    f"{store.path}: a record of the method {record.method!r}, which is not known",
                    reason="METHOD_UNKNOWN",
                )
            records[key] = record
    if not records:
        raise InvalidDataError(f"{paths[0]} holds no finished round yet", reason="NO_RECORDS")
    return Study(list(records.values()), stores[0].settings.values)
