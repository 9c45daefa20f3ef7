"""Try the settings of the selector that the paper leaves open, one at a time, on seeds that no study reports.

For each seed and labelled share, T is trained once on a random labelled set. Each variant then trains VAE and
assistant on its features, and is judged by its picks: the share of picks that T gets wrong, the rank
correlation of its scores with T's true loss (Spearman), the effective number of classes in the batch (the
exponential of the entropy of its labels) and, with --retrain, the accuracy of a new T that was also trained
on the picks.

    python tests/benchmarks/selector_sweep.py --root /path/of/fashion-mnist --seeds 100 --out sweep.json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import argument_parser, machine, write_json
from numpy.typing import NDArray
from scipy.stats import spearmanr

from topb_trainer.config import TrainConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data.opening import open_dataset
from topb_trainer.data.sets import Dataset
from topb_trainer.experiment.run import initial_rows
from topb_trainer.presets import load_experiment_preset
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import TaskOutputs, accuracy, accuracy_on, task_losses, task_outputs, train_task

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "as the preset": {},
    "features standardised": {"cotrain": {"standardise_features": True}},
    "features raw": {"cotrain": {"standardise_features": False}},
    "latent_size 8": {"vae": {"latent_size": 8}},
    "latent_size 32": {"vae": {"latent_size": 32}},
    "latent_size 64": {"vae": {"latent_size": 64}},
    "sampled latent": {"cotrain": {"latent_for_assistant": "sample"}},
    "kl summed": {"vae": {"kl_reduction": "sum"}},
    "wide MLPs": {"vae": {"hidden": (512, 256)}, "assistant": {"hidden": (512, 512)}},
    "epochs 50": {"cotrain": {"epochs": 50}},
    "epochs 50, kl summed": {"cotrain": {"epochs": 50}, "vae": {"kl_reduction": "sum"}},
    "epochs 5": {"cotrain": {"epochs": 5}},
    "no adversary (lossLearn)": {"cotrain": {"adversary": False}},
    "no ranking": {"cotrain": {"ranking": False}},
    "no prediction": {"cotrain": {"prediction": False}},
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--preset", default="small-fashion-mnist")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--step", type=float, default=0.1, help="share of the training set to pick")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--retrain", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("selector_sweep.json"))
    arguments = parser.parse_args()
    config = load_experiment_preset(arguments.preset)
    data = open_dataset(config.data, None, arguments.root, config.train.image)
    data = data.limited(config.protocol.train_images, config.protocol.test_images, 0)
    rows = [
        row
        for seed in arguments.seeds
        for share in arguments.shares
        for row in one_task(data, replace(config.train, seed=seed), share, arguments)
    ]
    write_json(arguments.out, {"machine": machine(), "command": " ".join(sys.argv), "rows": rows})


def one_task(
    data: Dataset, config: TrainConfig, share: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train T on a random share of the training set and judge the picks of each variant."""
    images, context = len(data.train.ids), RoundContext(config)
    labelled = initial_rows(images, round(share * images), config.seed)
    rest = np.setdiff1d(np.arange(images), labelled)
    model = train_task(data.train.subset(labelled), context)
    known = task_outputs(model, data.train.images[labelled], context)
    pool = task_outputs(model, data.train.images[rest], context)
    losses = task_losses(known, data.train.labels[labelled])
    budget = round(arguments.step * images)
    about = {
        "seed": config.seed,
        "share": share,
        "accuracy_before": accuracy_on(model, data.test, context),
        "accuracy_labelled": accuracy(known, data.train.labels[labelled]),
    }

    def judged(name: str, scores: NDArray[np.float32]) -> dict[str, Any]:
        picked = np.argsort(-scores, kind="stable")[:budget]
        row = about | {"variant": name} | qualities(pool, data.train.labels[rest], scores, picked)
        if arguments.retrain:
            grown = data.train.subset(np.concatenate([labelled, rest[picked]]))
            later = replace(context, index=1)
            row["accuracy_after"] = accuracy_on(train_task(grown, later), data.test, later)
        print(json.dumps(row), flush=True)
        return row

    probabilities = pool.logits.softmax(1)
    entropy = -(probabilities * probabilities.clamp_min(1e-12).log()).sum(1)  # (M)
    random = np.random.default_rng(config.seed).random(len(rest)).astype(np.float32)
    rows = [judged("random", random), judged("entropy", entropy.numpy(force=True))]
    for name in arguments.variants:
        changed = changed_config(config, VARIANTS[name])
        selector = cotrain(known, losses, pool, replace(context, config=changed))
        rows.append(judged(name, selector.score(pool).numpy(force=True)))
    return rows


def qualities(
    pool: TaskOutputs, labels: NDArray[np.int64], scores: NDArray[np.float32], picked: NDArray[np.int64]
) -> dict[str, float]:
    """Return the measures of a batch that need no further training."""
    wrong = pool.logits.argmax(1).numpy(force=True) != labels
    true_losses = task_losses(pool, labels).numpy(force=True)
    shares = np.bincount(labels[picked]) / len(picked)
    shares = shares[shares > 0]
    return {
        "wrong_in_pool": float(wrong.mean()),
        "wrong_in_picks": float(wrong[picked].mean()),
        "spearman_with_true_loss": float(spearmanr(scores, true_losses).statistic),
        "classes_worth": float(np.exp(-(shares * np.log(shares)).sum())),
    }


def changed_config(config: TrainConfig, changes: dict[str, dict[str, Any]]) -> TrainConfig:
    """Return a copy of the settings with the changes of a variant."""
    parts = {section: replace(getattr(config, section), **values) for section, values in changes.items()}
    return replace(config, **parts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
