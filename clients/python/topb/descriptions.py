"""Descriptions of servers and their models."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topb.image_input import ImageInput


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server."""

    max_budget: int
    """Largest budget of a selection."""
    max_chunk_bytes: int
    """Largest image data of one chunk of a streamed pool, in bytes."""
    max_image_bytes: int
    """Largest encoded image, in bytes."""
    max_image_pixels: int
    """Largest height × width of one image."""
    max_images_per_score_call: int
    """Largest number of images in one call of `Client.score_images`."""
    max_concurrent_selections: int
    """Largest number of selections that run at the same time."""
    max_chunk_rows: int = 0
    """Largest number of images in one chunk of a streamed pool, or 0 if the server has no limit."""
    max_id_bytes: int = 0
    """Largest id of an image in bytes of UTF-8, or 0 if the server has no limit. Rows with longer ids are
    skipped."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The description of a server."""

    version: str
    """Version of topb on the server."""
    devices: tuple[str, ...]
    """The devices that run the models, such as "cpu" or "cuda:0"."""
    default_model: str
    """Id of the model for requests that do not name one."""
    strategies: tuple[str, ...]
    """Names of its query strategies."""
    limits: Limits
    """Its limits."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """One output of the model."""

    name: str
    """Its name: "features", "score", "probabilities", "hidden" or "latent"."""
    meaning: str
    """Description of its values."""
    shape: tuple[int, ...]
    """Its shape after the batch dimension."""


@dataclass(frozen=True, slots=True)
class GateMeasurement:
    """One check that the exported graph passed."""

    name: str
    """Name of the check."""
    measured: float
    """The measured value."""
    limit: float
    """The limit for the measured value."""
    meaning: str
    """Description of the measurement."""


@dataclass(frozen=True, slots=True)
class Model:
    """The trainer's description of one model of a server."""

    id: str
    """First 16 hexadecimal digits of a SHA-256 of graphs, classes, labelled set, accuracy and settings."""
    is_default: bool
    """Whether it is the server's default model."""
    create_time: datetime.datetime | None
    """When it was exported, in UTC."""
    method: str
    """The method that trained the assistant, such as "aalu"."""
    round: int
    """0 for the round trained on the initial labelled set."""
    input: ImageInput
    """The images that its encoder takes. Height and width are 0 if it has no encoder."""
    classes: tuple[str, ...]
    """Names of the classes, by index."""
    outputs: tuple[ModelOutput, ...]
    """The outputs of its encoder and its head."""
    strategies: tuple[str, ...]
    """Names of the query strategies that its manifest declares. A server also serves those that do not need
    the output `score`."""
    labelled_count: int
    """Number of labelled images it was trained on."""
    test_accuracy: float | None
    """Share of the test images classified correctly, or None without a test set."""
    seed: int
    """Seed of the training run."""
    configuration: Mapping[str, Any]
    """The resolved configuration of the training run."""
    library_versions: Mapping[str, str]
    """Versions of the libraries that trained and exported it."""
    gates: tuple[GateMeasurement, ...]
    """The checks that the exported graphs passed."""
    encoder_id: str = ""
    """Id of its encoder; empty if it has none. Models with the same encoder compute the same features."""
    feature_type: str = "float32"
    """The precision of its features: "float32", or "float16" if the encoder rounds them."""
    served_strategies: tuple[str, ...] = ()
    """Names of the query strategies that the server can run with it; empty if the server does not say."""
