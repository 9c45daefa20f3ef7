"""Time a round whose encoder is frozen: T is trained on kept features, and its entropy picks from a pool."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from query_time import extrapolated

from topb.image_input import ImageInput
from topb_trainer.cotrain import cotrain
from topb_trainer.data.sets import LabelledSet, RoundData, UnlabelledSet
from topb_trainer.experiment.run import initial_rows, select_in_memory
from topb_trainer.export.frozen import FrozenEncoder
from topb_trainer.presets import load_preset
from topb_trainer.rounds import finish_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import TaskOutputs, task_losses, task_outputs, train_task

TIMED_STEPS = 40
"""Mini-batches of co-training that are timed."""


def timed_round(
    given: LabelledSet, images: LabelledSet, encoder: FrozenEncoder, context: RoundContext
) -> dict:
    """Return the seconds of the parts of a round, and what encoding the pool would take.

    Args:
        given: the kept features of all images, float32 (N, D). A tenth of them counts as labelled.
        images: some of the images, whose encoding is timed.
        encoder: the encoder that made the features.
        context: the round.
    """
    total = len(given.ids)
    rows = initial_rows(total, total // 10, 0)
    rest = np.setdiff1d(np.arange(total), rows)
    labelled = given.subset(rows)
    pool = UnlabelledSet(tuple(given.ids[row] for row in rest.tolist()), given.images[rest])
    target: ImageInput = encoder.input
    watch = Stopwatch(context.device)
    with watch.timing("encode"):
        encoder.features(images.images, "images", context)
    with watch.timing("train T"):
        model = train_task(labelled, context)
    data = RoundData(labelled, pool, None, target)
    with tempfile.TemporaryDirectory() as directory:
        with watch.timing("export and gates"):
            trained = finish_round(
                model, data, "none", context, test_accuracy=None, parent=Path(directory), encoder=encoder
            )
        with watch.timing("score the pool and pick"):
            select_in_memory(trained.bundle, pool, total // 20, "entropy", seed=0, device="cpu")
    with watch.timing("T's outputs for the pool"):
        unlabelled = task_outputs(model, pool.images, context)
    known = task_outputs(model, labelled.images, context)
    cotraining = {
        preset: cotraining_seconds(known, labelled.labels, unlabelled, configured(preset, context))
        for preset in ("paper", "small")
    }
    encoding = watch.seconds.pop("encode") * len(pool.ids) / len(images.ids)
    return {
        "labelled": len(labelled.ids),
        "pool": len(pool.ids),
        "picks": total // 20,
        "seconds": watch.seconds,
        "cotraining": cotraining,
        "encoding_seconds": encoding,
        "encoded": len(images.ids),
    }


def configured(preset: str, context: RoundContext) -> RoundContext:
    """Return the round with the VAE, the assistant and the co-training of a preset."""
    named = load_preset(preset)
    config = replace(context.config, vae=named.vae, assistant=named.assistant, cotrain=named.cotrain)
    return replace(context, config=config)


def cotraining_seconds(
    known: TaskOutputs, labels: NDArray[np.int64], unlabelled: TaskOutputs, context: RoundContext
) -> dict[str, float]:
    """Return the seconds of all epochs of co-training, extrapolated from `TIMED_STEPS` mini-batches."""
    size, epochs = context.config.cotrain.batch_size, context.config.cotrain.epochs
    losses = task_losses(known, labels)
    once = replace(context.config.cotrain, epochs=1)
    one_epoch = replace(context, config=replace(context.config, cotrain=once))

    def train(steps: int) -> None:
        some = TaskOutputs(unlabelled.features[: steps * size], unlabelled.logits[: steps * size])
        cotrain(known, losses, some, one_epoch)

    steps = epochs * -(-len(unlabelled.features) // size)
    return {"epochs": epochs, "seconds": extrapolated(train, TIMED_STEPS, steps, context)}
