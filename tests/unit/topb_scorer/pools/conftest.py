from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.pools import LocalFolder, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty folder. tests/integration/scorer runs the same tests on S3."""
    return LocalFolder(tmp_path)


@pytest.fixture
def not_utf8() -> pa.Array:
    """A column of one string that is not UTF-8, which only shows when it is converted."""
    offsets = pa.py_buffer(np.array([0, 2], np.int32))
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
