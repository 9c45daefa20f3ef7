"""Keep the weights of a trained model whose export failed, and load them for another try."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from topb_scorer.durable import publish_file
from topb_trainer.config import ExportConfig
from topb_trainer.data.sets import LabelledSet
from topb_trainer.errors import ConfigurationError
from topb_trainer.runtime.context import RoundContext


def keep_weights(model: nn.Module, labelled: LabelledSet, context: RoundContext, parent: Path) -> Path:
    """Write the weights of a trained model to a new file in the directory `parent`, and return its path."""
    training = training_digest(labelled, context)
    path = parent / f"unexported-{training[:16]}.pt"
    content = {"training": training, "weights": model.state_dict()}
    publish_file(path, lambda beside: torch.save(content, beside))
    return path


def load_weights(path: Path, model: nn.Module, labelled: LabelledSet, context: RoundContext) -> None:
    """Load weights that `keep_weights` wrote into a model of the same layers. Only tensors are unpickled.

    Raises:
        ConfigurationError: with reason WEIGHTS_UNREADABLE, or WEIGHTS_OF_ANOTHER_ROUND if the settings, the
            round or the labelled images differ from those of the training.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        training, weights = content["training"], content["weights"]
    except Exception as error:
        # torch.load raises whatever the archive, the pickle or the file system does.
        raise ConfigurationError(
            f"{path} holds no weights of a failed export: {error}", reason="WEIGHTS_UNREADABLE", path=path
        ) from error
    if training != training_digest(labelled, context):
        raise ConfigurationError(
            f"the weights in {path} are those of other settings, another round or other labelled images; "
            "give the same as for the training: only --device and --export.* may differ",
            reason="WEIGHTS_OF_ANOTHER_ROUND",
            path=path,
        )
    model.load_state_dict(weights)


def training_digest(labelled: LabelledSet, context: RoundContext) -> str:
    """Return a digest of what makes weights belong to a round: settings, index and labelled images."""
    settings = replace(context.config, device="cpu", export=ExportConfig()).as_dict()
    about = [settings, context.index, labelled.ids, labelled.labels.tolist(), labelled.classes]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()
