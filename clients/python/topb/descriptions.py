"""What a server is, and what its models are."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topb.image_input import ImageInput


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes at most."""

    max_budget: int
    """The largest budget of a selection."""
    max_chunk_bytes: int
    """Image data in one chunk of a streamed pool, in bytes."""
    max_image_bytes: int
    """One encoded image, in bytes."""
    max_image_pixels: int
    """Height × width of one image."""
    max_images_per_score_call: int
    """Images in one call of `Client.score_images`."""
    max_concurrent_selections: int
    """Selections under way at once."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is."""

    version: str
    """Of topb on the server."""
    devices: tuple[str, ...]
    """The devices that score, such as "cpu" or "cuda:0"."""
    default_model: str
    """Id of the model that requests get which name none."""
    strategies: tuple[str, ...]
    """Names of the query strategies."""
    limits: Limits
    """What the server takes at most."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """One output of the graph."""

    name: str
    """In the graph: "score", "probabilities" or "features"."""
    meaning: str
    """For a person."""
    shape: tuple[int, ...]
    """Sizes after the batch dimension."""


@dataclass(frozen=True, slots=True)
class GateMeasurement:
    """One thing that the export was held to."""

    name: str
    """Of the gate."""
    measured: float
    """What the export came to."""
    limit: float
    """What it was held to."""
    meaning: str
    """For a person."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model that a server can score with, as the trainer described it."""

    id: str
    """First 16 hex digits of the sha256 of its graph."""
    is_default: bool
    """Whether requests that name no model get this one."""
    create_time: datetime.datetime | None
    """When it was exported, in UTC."""
    method: str
    """The method that trained the assistant, such as "aalu"."""
    round: int
    """0 for the round trained on the initial labelled set."""
    input: ImageInput
    """What the graph takes."""
    classes: tuple[str, ...]
    """Names of the classes, by index."""
    outputs: tuple[ModelOutput, ...]
    """What the graph gives."""
    strategies: tuple[str, ...]
    """Query strategies that the outputs allow."""
    labelled_count: int
    """How many labelled images it was trained on."""
    test_accuracy: float | None
    """Share of the test images classified rightly, where there was a test set."""
    seed: int
    """Of the training run."""
    configuration: Mapping[str, Any]
    """The resolved configuration of the training run."""
    library_versions: Mapping[str, str]
    """Of the libraries that trained and exported."""
    gates: tuple[GateMeasurement, ...]
    """What the export was held to."""
