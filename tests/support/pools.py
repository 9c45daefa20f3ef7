"""Build pools for tests, put them on stores, and read their items."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from support.images import encode, random_image
from topb.pools import Pool
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools import AllowedRoots, OpenPool, PoolItem, Unreadable, open_pool

IMAGE = encode(random_image(1))
ANYWHERE = AllowedRoots.anywhere()


class Store(Protocol):
    """A folder on a local or remote store."""

    def uri(self, key: str = "") -> str: ...

    def put(self, key: str, content: bytes) -> str: ...

    def remove(self, key: str) -> None: ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine."""

    root: Path

    def uri(self, key: str = "") -> str:
        return f"{self.root}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Write a file and return its path."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


def opened(
    uri: str | Path, *, roots: AllowedRoots = ANYWHERE, limits: ImageLimits = DEFAULT_LIMITS, **layout: Any
) -> OpenPool:
    """Open the pool; `layout` has the format and columns of a `topb.Pool`."""
    return open_pool(Pool(uri, **layout), roots=roots, limits=limits)


def items(uri: str | Path, **options: Any) -> list[PoolItem]:
    """Return the items of all shards, in order."""
    return [item for shard in opened(uri, **options).shards for item in shard.items()]


def reasons(uri: str | Path, **options: Any) -> dict[str, str]:
    """Return by id the reason why a row cannot be read, or "" if it can."""
    return {item.id: reason_of(item.image) for item in items(uri, **options)}


def reason_of(image: object) -> str:
    """Return the reason why the image cannot be read, or "" if it can."""
    return image.reason if isinstance(image, Unreadable) else ""


def identities(uri: str | Path, **options: Any) -> list[str]:
    """Return the identities of the shards."""
    return [shard.identity for shard in opened(uri, **options).shards]


def parquet_bytes(columns: Mapping[str, Any], **options: Any) -> bytes:
    """Return the bytes of a Parquet file with these columns."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def tar_bytes(members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar archive of these names and contents."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()
