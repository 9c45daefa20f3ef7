"""Measure the query time of Core-set, VAAL and AALU as in the paper's Table 2: one T, data set and machine.

Query time consists of training the selector and of selecting. It includes T's features of the labelled
images; for AALU, T's outputs for the pool and co-training; for VAAL, its training on the images; then scoring
the pool with the exported bundle and picking b images through the scorer's own code. It excludes T's training
and the export.

Selection runs in full. Training is timed once with one and once with more epochs or steps (--cotrain-epochs,
--vaal-steps), and extrapolated to the number of epochs in the paper along the line through both times: all
steps process tensors of the same size, so they take equally long, and what training takes before its first
step, such as building the networks and copying images to a GPU, is counted once.
Usage:

  python tests/benchmarks/query_time.py --data cifar10_train.parquet --test cifar10_test.parquet --out table_2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from measuring import argument_parser, machine, write_json

from topb_trainer.config import TaskConfig, TrainConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data.opening import open_dataset
from topb_trainer.data.sets import RoundData, UnlabelledSet
from topb_trainer.experiment.run import initial_rows, select_in_memory
from topb_trainer.rounds import finish_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import accuracy_on, task_losses, task_outputs, train_task
from topb_trainer.vaal import train_vaal

PAPER = {"core_set": 29.01, "vaal": 75.70, "aalu": 14.07}
STRATEGIES = {"core_set": "none", "vaal": "vaal", "aalu": "assistant"}
EPOCHS = 100


def main() -> None:
    arguments = parsed_arguments()
    begun = time.perf_counter()
    data = open_dataset(arguments.data, arguments.test, arguments.data_root, TrainConfig().image)
    data = data.limited(arguments.train_images, min(1000, len(data.test.ids)), 0)
    config = TrainConfig(
        device=arguments.device,
        task=TaskConfig(width=arguments.width, stem=arguments.stem, epochs=arguments.task_epochs),
    )
    size = len(data.train.ids)
    rows = initial_rows(size, size // 10, 0)
    known = set(rows.tolist())
    rest = [row for row in range(size) if row not in known]
    labelled = data.train.subset(rows)
    pool = UnlabelledSet(tuple(data.train.ids[row] for row in rest), data.train.images[rest])
    context = RoundContext(config)
    task_model = train_task(labelled, context)
    given = RoundData(labelled, pool, None, data.target)
    setting = {
        "training set": f"{size} images of {data.name}, {data.target.height} × {data.target.width}",
        "labelled": len(labelled.ids),
        "pool": len(pool.ids),
        "b": size // 20,
        "T": f"ResNet18 of width {arguments.width}, stem {arguments.stem}, {arguments.task_epochs} epochs",
        "T's test accuracy": accuracy_on(task_model, data.test, context),
        "device": arguments.device,
    }
    parts = {name: timed(name, task_model, given, context, size // 20, arguments) for name in STRATEGIES}
    result = {
        "setting": setting,
        "extrapolated": {
            "vaal training": f"1 and {arguments.vaal_steps} steps to {EPOCHS} epochs",
            "aalu co-training": f"1 and {arguments.cotrain_epochs} epochs to {EPOCHS}",
        },
        "methods": {name: summed(seconds, size // 20) for name, seconds in parts.items()},
        "paper": PAPER,
        "seconds_this_took": time.perf_counter() - begun,
        "machine": machine(),
    }
    write_json(arguments.out.with_suffix(".json"), result)
    arguments.out.with_suffix(".md").write_text(told(result))
    print(told(result))


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", default="cifar10", help="a published data set, or labelled training images")
    parser.add_argument("--test", type=Path, help="test images, if --data is a path")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--stem", choices=["auto", "cifar", "imagenet"], default="auto")
    parser.add_argument("--task-epochs", type=int, default=1)
    parser.add_argument("--cotrain-epochs", type=int, default=2)
    parser.add_argument("--vaal-steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("query_time"))
    return parser.parse_args()


def timed(
    name: str,
    task_model: torch.nn.Module,
    data: RoundData,
    context: RoundContext,
    budget: int,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Return the seconds by part, with training extrapolated."""
    print(name, file=sys.stderr, flush=True)
    config = context.config
    watch = Stopwatch(context.device)
    task_model.to(context.device)
    with watch.timing("features of the labelled"):
        known = task_outputs(task_model, data.labelled.images, context)
    if name == "aalu":
        with watch.timing("T's outputs for the pool"):
            unlabelled = task_outputs(task_model, data.pool.images, context)
        losses = task_losses(known, data.labelled.labels)

        def train(epochs: int) -> None:
            some = replace(config, cotrain=replace(config.cotrain, epochs=epochs))
            cotrain(known, losses, unlabelled, replace(context, config=some))

        watch.seconds["training of the selector"] = extrapolated(
            train, arguments.cotrain_epochs, EPOCHS, context
        )
    if name == "vaal":
        size = config.vaal.batch_size

        def train_on(steps: int) -> None:
            one = replace(config, vaal=replace(config.vaal, epochs=1))
            images = data.pool.images[: steps * size]
            train_vaal(data.labelled.images, images, replace(context, config=one))

        steps = EPOCHS * -(-len(data.pool.ids) // size)
        watch.seconds["training of the selector"] = extrapolated(
            train_on, arguments.vaal_steps, steps, context
        )
    with tempfile.TemporaryDirectory() as directory:
        bundle = exported(name, task_model, data, config, Path(directory))
        with watch.timing("scoring and picking"):
            select_in_memory(bundle, data.pool, budget, name, seed=0, device=arguments.device)
    return watch.seconds


def extrapolated(train: Callable[[int], None], many: int, total: int, context: RoundContext) -> float:
    """Return the seconds of `train(total)` on the line through those of `train(1)` and `train(many)`.

    Raises:
        SystemExit: `many` is less than 2, or took no longer than 1.
    """
    watch = Stopwatch(context.device)
    train(1)  # Excludes what a process does only once, such as choosing kernels.
    with watch.timing("one"):
        train(1)
    with watch.timing("many"):
        train(many)
    one, more = watch.seconds["one"], watch.seconds["many"]
    if many < 2 or more <= one:
        raise SystemExit(f"{many} steps or epochs took {more} s, and one took {one} s; time more of them")
    return one + (total - 1) * (more - one) / (many - 1)


def exported(name: str, task_model: torch.nn.Module, data: RoundData, config: TrainConfig, parent: Path):
    """Return a bundle of the method's full size after minimal training. Its weights do not affect the
    time."""
    few = replace(data, pool=UnlabelledSet(data.pool.ids[:2], data.pool.images[:2]))
    quick = replace(config, cotrain=replace(config.cotrain, epochs=1), vaal=replace(config.vaal, epochs=1))
    kind = STRATEGIES[name]
    trained = finish_round(task_model, few, kind, RoundContext(quick), test_accuracy=None, parent=parent)
    return trained.bundle


def summed(seconds: dict[str, float], budget: int) -> dict[str, object]:
    total = sum(seconds.values())
    return {"seconds": seconds, "total": total, "per_100": 100 * total / budget}


def told(result: dict) -> str:
    methods = result["methods"]
    aalu = methods["aalu"]["per_100"]
    lines = [
        "# Query time",
        "",
        "The table shows seconds per 100 picks, for training the selector and selecting (Table 2 of the "
        "paper). Each method ran once, so differences of tens of percent are not significant.",
        "",
        *(f"* {name}: {value}" for name, value in result["setting"].items()),
        *(f"* extrapolated: {name}, {how}" for name, how in result["extrapolated"].items()),
        f"* {result['machine']['processor']}, {result['machine']['cores']} cores, "
        f"{result['machine']['date']}; the whole run took {result['seconds_this_took']:.0f} s",
        "",
        "| method | seconds per 100 picks | × AALU | the paper's seconds | × AALU in the paper |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in methods.items():
        lines.append(
            f"| {name} | {found['per_100']:.2f} | {found['per_100'] / aalu:.2f} | {PAPER[name]:.2f} "
            f"| {PAPER[name] / PAPER['aalu']:.2f} |"
        )
    lines += ["", "The next table shows the parts of one query, in seconds:", ""]
    lines += ["| method | part | seconds |", "| --- | --- | ---: |"]
    for name, found in methods.items():
        lines += [f"| {name} | {part} | {value:.1f} |" for part, value in found["seconds"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
