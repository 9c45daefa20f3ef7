"""Compare `aalu`, diversified `aalu` and `random` over one round at one budget.

For each seed, T, VAE and assistant are trained once on the initial labelled set. Each strategy picks b images
from the same pool through the exported bundle, and T is trained again, from the same initial weights, on the
labelled set and the picks. The redundancy of a batch is measured by the mean distance of a pick to its
nearest other pick in T's features: the smaller it is, the more redundant the batch. Usage:

  python tests/benchmarks/diversify_round.py --root /path/of/fashion-mnist --out diversify_round.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import argument_parser, machine, write_json

from topb_scorer.engines.local import LocalEngine
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_trainer.data.opening import open_dataset
from topb_trainer.data.sets import Dataset, RoundData, UnlabelledSet
from topb_trainer.presets import load_experiment_preset
from topb_trainer.rounds import train_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import accuracy_on, train_task

VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "random": ("random", {}),
    "aalu": ("aalu", {}),
    "aalu, diversify=2": ("aalu", {"diversify": "2"}),
    "aalu, diversify=5": ("aalu", {"diversify": "5"}),
}


def nearest_other(features: np.ndarray) -> float:
    """Return the mean distance of float32 (n, D) rows to their nearest other rows."""
    exact = features.astype(np.float64)
    squared = (exact**2).sum(axis=1)
    distances = squared[:, None] + squared[None] - 2 * exact @ exact.T
    np.fill_diagonal(distances, np.inf)
    return float(np.sqrt(np.maximum(distances.min(axis=1), 0)).mean())


def one_seed(data: Dataset, arguments: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    config = replace(load_experiment_preset(arguments.preset).train, seed=seed)
    rows = np.random.default_rng(seed).permutation(len(data.train.ids))
    labelled_rows = rows[: arguments.labelled]
    pool_rows = rows[arguments.labelled : arguments.labelled + arguments.pool]
    labelled, pool_labels = data.train.subset(labelled_rows), data.train.subset(pool_rows)
    pool = UnlabelledSet(pool_labels.ids, pool_labels.images)
    measured = {}
    with tempfile.TemporaryDirectory() as parent:
        trained = train_round(
            RoundData(labelled, pool, data.test, data.target), RoundContext(config), Path(parent)
        )
        engine = LocalEngine(trained.bundle)
        features = dict(zip(pool.ids, engine.session.score(pool.images)["features"], strict=True))
        for name, (strategy, options) in VARIANTS.items():
            result = select_from_pool(
                SelectionSpec(arguments.budget, strategy, seed, options=options),
                engine,
                [ChunkShard(0, pool.ids, pool.images)],
                cancelled=threading.Event(),
            )
            at = {id_: i for i, id_ in enumerate(pool.ids)}
            picked = pool_rows[[at[id_] for id_ in result.ids]]
            grown = data.train.subset(np.concatenate([labelled_rows, picked]))
            context = RoundContext(config, index=1)
            model = train_task(grown, context)
            measured[name] = {
                "accuracy_before": trained.test_accuracy or 0.0,
                "accuracy": accuracy_on(model, data.test, context),
                "nearest_other_pick": nearest_other(np.stack([features[id_] for id_ in result.ids])),
                "classes": len(set(data.train.labels[picked].tolist())),
                **result.measures,
            }
            print(seed, name, measured[name], flush=True)
    return measured


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--preset", default="small-fashion-mnist", help="preset of an experiment")
    parser.add_argument("--labelled", type=int, default=1000)
    parser.add_argument("--pool", type=int, default=9000)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    preset = load_experiment_preset(arguments.preset)
    data = open_dataset(preset.data, None, arguments.root, preset.train.image)
    runs = [one_seed(data, arguments, seed) for seed in range(arguments.seeds)]
    table = {
        name: {
            key: {
                "mean": statistics.mean(run[name][key] for run in runs),
                "sd": statistics.stdev(run[name][key] for run in runs) if len(runs) > 1 else None,
                "n": len(runs),
            }
            for key in runs[0][name]
        }
        for name in VARIANTS
    }
    results = {"machine": machine(), "command": " ".join(sys.argv), "table": table, "runs": runs}
    if arguments.out:
        write_json(arguments.out, results)
    write_json(None, table)


if __name__ == "__main__":
    main()
