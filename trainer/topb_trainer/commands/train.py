"""`topb train`: one round of AALU, from labelled images and a pool to a bundle."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from topb_trainer.config import TrainConfig
from topb_trainer.data.reading import image_input, open_images, read_labelled, read_pool, read_test
from topb_trainer.data.sets import LabelledSet
from topb_trainer.presets import load_preset, preset_names
from topb_trainer.rounds import RoundData, TrainedRound, train_round
from topb_trainer.runtime.device import torch_device


@dataclass(frozen=True)
class TrainArguments:
    """Trains one round of AALU on labelled images and a pool of unlabelled ones, and exports it as a bundle.

    An option given here goes before the preset, the preset before the default; the defaults are the paper's.
    """

    labelled: Path
    """Labelled images: Parquet of id, label, and image (encoded) or path; or a folder of class/file.jpg."""
    pool: Path
    """Unlabelled images: Parquet of id, and image or path; or a folder. Labelled ids in it are left out."""
    out: Path
    """Directory of bundles; the new one is named by its model id."""
    test: Path | None = None
    """Test images, laid out like the labelled ones: for the accuracy in the manifest."""
    round: int = 0
    """0 trains on the initial labelled set. Weights and shuffles differ from round to round."""
    preset: str = "paper"
    """Settings by name, or the path of a TOML file."""
    json: bool = False
    """Print one JSON object for a program, and no progress."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def run(argv: Sequence[str]) -> int:
    """Runs `topb train` with the arguments after its name; returns the exit status.

    Raises:
        TrainerError, ScorerError: what went wrong, with a `reason`.
    """
    arguments = _parse(argv)
    config = arguments.config
    # What can be wrong at once is said before minutes of decoding and training.
    torch_device(config.device)
    for path in (arguments.labelled, arguments.pool, arguments.test):
        if path is not None:
            open_images(path)
    progress = not arguments.json
    target = image_input(config.image, arguments.labelled)
    labelled = read_labelled(arguments.labelled, target, progress=progress)
    pool = read_pool(arguments.pool, target, frozenset(labelled.ids), progress=progress)
    test = None
    if arguments.test is not None:
        test = read_test(arguments.test, target, labelled.classes, progress=progress)
    data = RoundData(labelled, pool, test, target)
    for remark in _remarks(data):
        print(remark, file=sys.stderr)
    trained = train_round(data, config, parent=arguments.out, round_index=arguments.round, progress=progress)
    print(json.dumps(_summary(trained, data)) if arguments.json else _told(trained, data))
    return 0


def _parse(argv: Sequence[str]) -> TrainArguments:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="paper")
    preset = first.parse_known_args(list(argv))[0].preset
    return tyro.cli(
        TrainArguments,
        prog="topb train",
        description=f"{inspect.getdoc(TrainArguments)} Presets: {', '.join(preset_names())}.",
        args=list(argv),
        default=TrainArguments(
            labelled=tyro.MISSING,
            pool=tyro.MISSING,
            out=tyro.MISSING,
            preset=preset,
            config=load_preset(preset),
        ),
    )


def _remarks(data: RoundData) -> list[str]:
    """What a person should know of the data before it is trained on."""
    pool, remarks = data.pool, []
    if pool.labelled:
        remarks.append(f"pool: {pool.labelled} rows left out, as their ids are labelled")
    if pool.duplicates:
        remarks.append(f"pool: {pool.duplicates} rows left out, as their ids came before")
    if pool.skipped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in pool.skipped.items())
        remarks.append(f"pool: {sum(pool.skipped.values())} images skipped ({reasons})")
    if data.test is not None:
        remarks += _test_remarks(data.test, data.labelled)
    return remarks


def _test_remarks(test: LabelledSet, labelled: LabelledSet) -> list[str]:
    remarks = []
    if unknown := int((test.labels < 0).sum()):
        remarks.append(
            f"test: {unknown} images are of classes that the labelled set does not have; they count as wrong"
        )
    unseen = sorted({*test.labels[test.labels >= 0].tolist()} - {*labelled.labels.tolist()})
    if unseen:
        names = ", ".join(test.classes[label] for label in unseen[:10]) + (", …" if len(unseen) > 10 else "")
        remarks.append(f"test: no labelled image shows {names}; the task model cannot have learned that")
    return remarks


def _summary(trained: TrainedRound, data: RoundData) -> dict[str, object]:
    manifest = trained.bundle.manifest
    return {
        "model_id": manifest.model_id,
        "path": str(trained.bundle.path),
        "method": manifest.method,
        "round": manifest.round,
        "labelled": len(data.labelled.ids),
        "classes": len(data.labelled.classes),
        "pool": {
            "unlabelled": len(data.pool.ids),
            "labelled": data.pool.labelled,
            "duplicates": data.pool.duplicates,
            "skipped": dict(data.pool.skipped),
        },
        "train_accuracy": trained.train_accuracy,
        "test_accuracy": trained.test_accuracy,
        "graph_bytes": trained.bundle.graph.stat().st_size,
        "gates": [
            {"name": gate.name, "measured": gate.measured, "limit": gate.limit} for gate in manifest.gates
        ],
    }


def _told(trained: TrainedRound, data: RoundData) -> str:
    manifest = trained.bundle.manifest
    test = "no test set" if trained.test_accuracy is None else f"test {trained.test_accuracy:.1%}"
    if data.test is not None:
        test += f" of {len(data.test.ids)}"
    megabytes = trained.bundle.graph.stat().st_size / 1e6
    lines = [
        f"model      {manifest.model_id} · {manifest.method} · round {manifest.round}",
        f"bundle     {trained.bundle.path} · graph of {megabytes:.1f} MB",
        f"images     {data.target.height} × {data.target.width} · {len(data.labelled.ids)} labelled of "
        f"{len(data.labelled.classes)} classes · {len(data.pool.ids)} unlabelled",
        f"accuracy   labelled {trained.train_accuracy:.1%} · {test}",
        "gates      measured    limit",
    ]
    lines += [
        f"           {gate.measured:<8.2g} ≤  {gate.limit:<8.2g} {gate.name}" for gate in manifest.gates
    ]
    return "\n".join(lines)
