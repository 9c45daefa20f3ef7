"""Real digits and tiny models, trained on one thread: they are too small to gain from a second core."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from support.images import encode
from topb.image_input import ImageInput
from topb_trainer.config import AssistantConfig, CotrainConfig, TaskConfig, TrainConfig, VaeConfig
from topb_trainer.data.sets import LabelledSet, RoundData, UnlabelledSet

DIGITS = tuple(str(digit) for digit in range(10))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_parquet(
    path: Path,
    ids: Sequence[object],
    images: Sequence[bytes | None],
    labels: Sequence[object] | None = None,
    classes: Sequence[str] | str | None = None,
) -> Path:
    """Write a table of images; `classes` are names, or the text of their metadata key."""
    columns: dict[str, object] = {"id": ids, "image": pa.array(images, pa.binary())}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns)
    if classes is not None:
        text = classes if isinstance(classes, str) else json.dumps(classes)
        table = table.replace_schema_metadata({"classes": text})
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Real 8 × 8 digits, uint8 (N, 8, 8, 3), and their labels (N)."""
    data = load_digits()
    grey = (data.images * 255 / 16).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), data.target.astype(np.int64)


@pytest.fixture(scope="session")
def digit_files(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with labelled.parquet (60), pool.parquet (those and 140 more) and test.parquet (100)."""
    images, labels = digits
    folder = tmp_path_factory.mktemp("digits")
    encoded = [encode(image) for image in images[:300]]
    ids = [f"digit-{i:03d}" for i in range(300)]
    write_parquet(folder / "labelled.parquet", ids[:60], encoded[:60], labels[:60].tolist(), DIGITS)
    write_parquet(folder / "pool.parquet", ids[:200], encoded[:200])
    write_parquet(folder / "test.parquet", ids[200:], encoded[200:], labels[200:300].tolist(), DIGITS)
    return folder


@pytest.fixture(scope="session")
def digit_round(digits: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> RoundData:
    """The same 60 labelled, 140 unlabelled and 100 test digits, in memory."""
    images, labels = digits
    ids = tuple(f"digit-{i:03d}" for i in range(300))
    return RoundData(
        LabelledSet(ids[:60], images[:60], labels[:60], DIGITS),
        UnlabelledSet(ids[60:200], images[60:200]),
        LabelledSet(ids[200:], images[200:300], labels[200:300], DIGITS),
        ImageInput(8, 8),
    )


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """Settings with which a round takes a second or two."""
    return TrainConfig(
        task=TaskConfig(width=4, epochs=2, batch_size=32, horizontal_flip=False),
        vae=VaeConfig(latent_size=4, hidden=(16, 8)),
        assistant=AssistantConfig(hidden=(16, 16)),
        cotrain=CotrainConfig(epochs=2, batch_size=32),
    )


def moved(update: Callable[[], object], *modules: nn.Module) -> list[list[bool]]:
    """Return for each parameter of each module whether `update` changes it."""
    before = [copy.deepcopy(module) for module in modules]
    update()
    return [differing(one, other) for one, other in zip(before, modules, strict=True)]


def differing(one: nn.Module, other: nn.Module) -> list[bool]:
    """Return for each parameter whether the modules differ in it."""
    return [not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
