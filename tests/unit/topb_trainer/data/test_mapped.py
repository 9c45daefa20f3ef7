"""Decoded images live in a file, and training does not copy all of them."""

from __future__ import annotations

import errno
import os
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from support.images import encode
from topb.image_input import ImageInput
from topb_trainer.config import TaskConfig, TrainConfig, VaalConfig
from topb_trainer.data.mapped import ImageFile, mapped_rows
from topb_trainer.data.reading import read_labelled
from topb_trainer.errors import InvalidDataError
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import train_task
from topb_trainer.vaal import train_vaal

from ..conftest import write_parquet


@pytest.mark.slow
def test_reading_and_training_allocate_less_than_the_images_take(tmp_path: Path) -> None:
    images = [encode(np.full((8, 8, 3), value, np.uint8)) for value in range(200)]
    path = write_parquet(tmp_path / "l.parquet", list(range(1000)), images * 5, [0, 1] * 500)
    context = RoundContext(
        TrainConfig(
            task=TaskConfig(width=2, epochs=1, stem="imagenet"),
            vaal=VaalConfig(channels=(2, 2, 2, 2), hidden=(4, 4), latent_size=2, epochs=1),
        )
    )
    tracemalloc.start()
    try:
        labelled = read_labelled(path, ImageInput(96, 96))
        train_task(labelled, context)
        train_vaal(labelled.images, labelled.images[:500], context)
        subset = labelled.subset(np.arange(900))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is in flight: a batch of 256 decoded images, and the histogram of 64.
    assert peak < labelled.images.nbytes / 2
    assert labelled.images[:, 0, 0, 0].tolist() == [*range(200)] * 5
    assert np.array_equal(subset.images, labelled.images[:900])


def test_mapped_images_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    images = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)
    copied = mapped_rows(images, np.array([4, 0, 4]))
    assert np.array_equal(copied, images[[4, 0, 4]])
    assert list(tmp_path.iterdir()) == []
    assert mapped_rows(images, np.array([], np.int64)).shape == (0, 2, 3, 3)


def test_a_full_temporary_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    with (
        pytest.raises(InvalidDataError, match=f"{os.strerror(errno.ENOSPC)} .* set TMPDIR") as caught,
        ImageFile(2, 2) as full,
    ):
        full.append(np.zeros((2, 2, 3), np.uint8))
    assert caught.value.reason == "TEMPORARY_DIRECTORY_FULL"
