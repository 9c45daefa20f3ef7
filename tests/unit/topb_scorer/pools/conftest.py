from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.pools import LocalFolder, S3Prefix, Store
from support.s3 import Bucket, s3_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        yield bucket


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty folder on each kind of store that pools are read from."""
    if request.param == "local":
        return LocalFolder(tmp_path)
    return S3Prefix(request.getfixturevalue("bucket"), uuid.uuid4().hex)


@pytest.fixture
def not_utf8() -> pa.Array:
    """A column of one string that is not UTF-8, which only shows when it is converted."""
    offsets = pa.py_buffer(np.array([0, 2], np.int32))
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
