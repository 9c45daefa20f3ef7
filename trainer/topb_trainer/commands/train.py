"""The `topb train` command, which trains one round of AALU on labelled images and a pool and exports its
bundle."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topb.commands.options import JSON, Option
from topb.image_input import ImageInput
from topb_trainer.commands.dataclass_options import (
    SettingsCommand,
    dataclass_options,
    from_options,
    preset_option,
    require_writable,
)
from topb_trainer.config import TrainConfig
from topb_trainer.presets import load_preset, preset_names

if TYPE_CHECKING:
    from topb_trainer.data.sets import LabelledSet, RoundData, Target
    from topb_trainer.rounds import TrainedRound


@click.command(
    cls=SettingsCommand,
    params=[
        Option(
            "--labelled PATH",
            "Labelled images: Parquet with id, label, and image or path; CSV with id, label and path; a "
            "folder of class/file.jpg; or WebDataset with a member .cls in each sample. Or labelled vectors: "
            "Parquet with id, label and embedding.",
            required=True,
        ),
        Option(
            "--pool PATH",
            "Unlabelled images: Parquet with id, and image or path; CSV with id and path; a folder; or "
            "WebDataset. If vectors are labelled: Parquet with id and embedding, or .npy. Labelled rows are "
            "left out, by id or by content.",
            required=True,
        ),
        Option(
            "--out DIR",
            "Directory of bundles. The new bundle is a subdirectory named after its model id.",
            required=True,
        ),
        Option(
            "--test PATH",
            "Test images, laid out like the labelled ones. The manifest records the accuracy on them.",
        ),
        Option(
            "--round N",
            "Index of the round. 0 trains on the initial labelled set. "
            "Weights and shuffles differ between rounds.",
            name="round_index",
            default=0,
        ),
        Option(
            "--weights FILE",
            "Weights that were kept when a gate refused the bundle. They are exported instead of training. "
            "All other options must be those of the training, except --device and --export.*.",
        ),
        Option(
            "--state DIR",
            "State directory in which the features of an encoder that is not trained are kept, for later "
            "rounds and for servers with the same --state.",
            show_default="computed in each round",
        ),
        preset_option(preset_names(), load_preset, default="paper"),
        JSON,
        *dataclass_options(TrainConfig()),
    ],
)
def run(
    labelled: Path,
    pool: Path,
    out: Path,
    test: Path | None,
    round_index: int,
    weights: Path | None,
    state: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train one round of AALU on labelled images and a pool of unlabelled ones, and export it as a bundle.

    The defaults are the settings of the paper. With --json no progress is shown. Labelled vectors give a
    bundle without an encoder, whose pools are vectors.
    """
    # Imported here because torch takes seconds to import; help, completion and usage errors need not wait.
    from topb_trainer.data.decoding import first_images, open_images
    from topb_trainer.data.reading import read_labelled, read_pool, read_test, target_of
    from topb_trainer.data.sets import RoundData
    from topb_trainer.encoders.opening import completed, for_rows
    from topb_trainer.export.frozen import freeze
    from topb_trainer.export.kept import kept_features
    from topb_trainer.rounds import export_round, train_round
    from topb_trainer.runtime.context import RoundContext
    from topb_trainer.runtime.data_parallel import devices_from
    from topb_trainer.runtime.device import torch_device
    from topb_trainer.runtime.scratch import scratch_directory
    from topb_trainer.task import require_images_for_processes

    given = from_options(TrainConfig(), settings)
    # Fail before minutes of decoding and training.
    if weights is None:
        devices_from(torch_device(given.device), given.task.processes)
    config = completed(for_rows(given, open_images(labelled).vectors))
    context = RoundContext(config, round_index, progress=not as_json)
    require_writable(out)
    for path in (labelled, pool, test):
        if path is not None:
            open_images(path)
    target = target_of(config.image, labelled)
    progress, encoder = not as_json, None
    with ExitStack() as stack:
        rows: Target = target
        if config.task.trains_head and isinstance(target, ImageInput):
            encoder = freeze(config, target, partial(first_images, pool, config.export.gate_images, target))
            kept = state or stack.enter_context(scratch_directory("topb-features-"))
            rows = kept_features(encoder, kept, context)
        labelled_set = read_labelled(labelled, rows, progress=progress)
        if weights is None:
            require_images_for_processes(len(labelled_set.ids), config.task)
        data = RoundData(
            labelled_set,
            read_pool(pool, rows, labelled_set.digest_of(), progress=progress),
            None if test is None else read_test(test, rows, labelled_set.classes, progress=progress),
            target,
        )
    for remark in _remarks(data):
        print(remark, file=sys.stderr)
    if weights is None:
        trained = train_round(data, context, out, encoder)
    else:
        trained = export_round(weights, data, context, out, encoder)
    if as_json:
        print(json.dumps(_as_dict(trained, data)))
    else:
        print(_as_text(trained, data))


def _remarks(data: RoundData) -> list[str]:
    """Return a remark on each property of the data that a user may not expect."""
    pool, remarks = data.pool, []
    found = len(data.labelled.ids) - pool.labelled_absent
    if not found:
        remarks.append("pool: it has none of the labelled images, neither by id nor by content")
    else:
        remarks.append(
            f"pool: {pool.labelled} rows left out because they are labelled: "
            f"{found} of the {len(data.labelled.ids)} labelled images are in the pool"
        )
    if pool.duplicates:
        remarks.append(f"pool: {pool.duplicates} rows left out because an earlier row has the same id")
    if pool.skipped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in pool.skipped.items())
        remarks.append(f"pool: {sum(pool.skipped.values())} images skipped ({reasons})")
    if data.test is not None:
        remarks += _test_remarks(data.test, data.labelled)
    return remarks


def _test_remarks(test: LabelledSet, labelled: LabelledSet) -> list[str]:
    remarks = []
    known = set(labelled.digests)
    if seen := sum(digest in known for digest in test.digests):
        remarks.append(
            f"test: {seen} of the {len(test.ids)} test images are labelled images; the accuracy on images "
            "that the task model was trained on does not say how well it generalises"
        )
    if unknown := int((test.labels < 0).sum()):
        remarks.append(
            f"test: {unknown} images have classes that the labelled set does not have; they count as wrong"
        )
    unseen = sorted({*test.labels[test.labels >= 0].tolist()} - {*labelled.labels.tolist()})
    if unseen:
        names = ", ".join(test.classes[label] for label in unseen[:10]) + (", …" if len(unseen) > 10 else "")
        remarks.append(
            f"test: no labelled image shows {names}; the task model cannot have learned these classes"
        )
    return remarks


def _as_dict(trained: TrainedRound, data: RoundData) -> dict[str, object]:
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
            "labelled_absent": data.pool.labelled_absent,
            "duplicates": data.pool.duplicates,
            "skipped": dict(data.pool.skipped),
        },
        "train_accuracy": trained.train_accuracy,
        "test_accuracy": trained.test_accuracy,
        "graph_bytes": trained.bundle.graph_bytes,
        "gates": [
            {"name": gate.name, "measured": gate.measured, "limit": gate.limit} for gate in manifest.gates
        ],
    }


def _as_text(trained: TrainedRound, data: RoundData) -> str:
    manifest = trained.bundle.manifest
    test = "no test set" if trained.test_accuracy is None else f"test {trained.test_accuracy:.1%}"
    if data.test is not None:
        test += f" of {len(data.test.ids)}"
    megabytes = trained.bundle.graph_bytes / 1e6
    size = f"vectors    {data.target.width} numbers"
    if isinstance(data.target, ImageInput):
        size = f"images     {data.target.height} × {data.target.width}"
    lines = [
        f"model      {manifest.model_id} · {manifest.method} · round {manifest.round}",
        f"bundle     {trained.bundle.path} · graphs of {megabytes:.1f} MB",
        f"{size} · {len(data.labelled.ids)} labelled of "
        f"{len(data.labelled.classes)} classes · {len(data.pool.ids)} unlabelled",
        f"accuracy   labelled {trained.train_accuracy:.1%} · {test}",
        "gates      measured    limit",
    ]
    lines += [
        f"           {gate.measured:<8.2g} ≤  {gate.limit:<8.2g} {gate.name}" for gate in manifest.gates
    ]
    return "\n".join(lines)
