"""Random images for tests, generated from a seed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def random_image(seed: int, height: int = 16, width: int = 16) -> NDArray[np.uint8]:
    """Return uint8 (height, width, 3): a smooth gradient of random colours, which JPEG hardly changes."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encode(image: NDArray[np.uint8], format_: str = "PNG") -> bytes:
    """Return the encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_)
    return buffer.getvalue()


def random_pool(count: int, *, first_seed: int = 0) -> list[tuple[str, bytes]]:
    """Return the ids img-00000, img-00001, … and the PNGs of `count` random images."""
    return [(f"img-{i:05d}", encode(random_image(first_seed + i))) for i in range(count)]


def write_parquet(
    path: Path, rows: Sequence[tuple[str | None, bytes | None]], *, row_group: int = 64
) -> Path:
    """Write a Parquet pool of ids and encoded images."""
    table = pa.table(
        {
            "id": pa.array([id_ for id_, _ in rows], pa.string()),
            "image": pa.array([image for _, image in rows], pa.binary()),
        }
    )
    pq.write_table(table, path, row_group_size=row_group)
    return path
