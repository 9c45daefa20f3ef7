"""Pools that are WebDataset tars: consecutive members with one key are one sample, and the key is its id."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.folder import is_image_name
from topb_scorer.pools.pool import OpenPool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.storage import Location, ReadPattern
from topb_scorer.pools.storage.location import READ_ERRORS, open_buffered

_SLICE_SAMPLES = 1024
_BLOCK_BYTES = 512
# The same rule as webdataset.tariterators.base_plus_ext: directories, then the name up to its first dot.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_READ_ERRORS = (*READ_ERRORS, tarfile.TarError, EOFError)


@dataclass(frozen=True)
class WebDatasetShard:
    """Consecutive samples of one tar."""

    file: Location
    offset: int
    """Offset of the first sample's first header, in bytes."""
    rows: int
    identity: str
    max_bytes: int
    """The largest image that is read."""

    def items(self) -> Iterator[PoolItem]:
        """Yield each sample's image. A sample without one is an unreadable row."""
        count = 0
        try:
            with open_buffered(self.file, ReadPattern.THROUGH) as file:
                file.seek(self.offset)
                for item in self._items(file):
                    yield item
                    count += 1
                    if count == self.rows:
                        return
        except _READ_ERRORS as error:
            raise _unreadable(self.file, error) from error
        raise _unreadable(self.file, f"it has {self.rows - count} samples less than when the pool was opened")

    def _items(self, file: io.BufferedReader) -> Iterator[PoolItem]:
        sample: _Sample | None = None
        for key, extension, member, tar in _members(file):
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample.item()
                sample = _Sample(key)
            if sample.wants(extension):
                sample.take(extension, self._read(member, tar))
        if sample is not None:
            yield sample.item()

    def _read(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> bytes | Unreadable:
        if member.size > self.max_bytes:
            return Unreadable(
                "IMAGE_TOO_LARGE", f"{member.name} has {member.size} bytes; the limit is {self.max_bytes}"
            )
        content = tar.extractfile(member)
        assert content is not None, "only regular members are read"
        return content.read()


@dataclass
class _Sample:
    key: str
    image: bytes | Unreadable | None = None
    extension: str = ""

    def wants(self, extension: str) -> bool:
        # "jpg" takes precedence over "mask.png", and among equals the first one counts.
        better = self.image is None or ("." in self.extension and "." not in extension)
        return better and is_image_name(f"_.{extension}")

    def take(self, extension: str, image: bytes | Unreadable) -> None:
        self.extension, self.image = extension, image

    def item(self) -> PoolItem:
        id_ = self.key.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if id_ != self.key:
            return PoolItem(id_, Unreadable("FILE_NAME_NOT_UTF8", f"the name of {id_} is not UTF-8"))
        if self.image is None:
            return PoolItem(
                id_,
                Unreadable("IMAGE_MISSING", f"sample {id_} has no member with the suffix of an image format"),
            )
        return PoolItem(id_, self.image)


def open_webdataset(files: Sequence[Location], *, max_bytes: int) -> OpenPool:
    """Return the pool of the samples of `files`.

    A key is the name of a member up to its first dot. Directories, links, members without a key (no dot, or a
    leading one) and WebDataset's own `__…__` members are ignored.

    All headers are read, to count the samples and to find damaged files.

    Args:
        files: Uncompressed tars.
        max_bytes: The largest image that is read.

    Raises:
        UnreadablePoolError: A file is not a tar, is compressed, or is damaged.
    """

    def shards_of(file: Location) -> list[WebDatasetShard]:
        return _shards_of(file, max_bytes)

    opened = map_ahead(shards_of, files, is_remote=lambda file: file.is_remote)
    return OpenPool([shard for shards in opened for shard in shards])


def _shards_of(location: Location, max_bytes: int) -> list[WebDatasetShard]:
    starts: list[int] = []
    samples = 0
    last_key = None
    try:
        stamp = location.stamp()
        with open_buffered(location, ReadPattern.SKIPPING) as file:
            for key, _, member, _ in _members(file):
                if key != last_key:
                    if samples % _SLICE_SAMPLES == 0:
                        starts.append(member.offset)
                    samples, last_key = samples + 1, key
    except _READ_ERRORS as error:
        raise _unreadable(location, error) from error
    return [
        WebDatasetShard(
            file=location,
            offset=offset,
            rows=min(_SLICE_SAMPLES, samples - i * _SLICE_SAMPLES),
            identity=identity_of("webdataset", str(location), stamp, i),
            max_bytes=max_bytes,
        )
        for i, offset in enumerate(starts)
    ]


def _members(file: io.BufferedReader) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """Yield key, extension and header of each member of a sample, from the current position on."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            # Otherwise TarFile keeps every header that it has seen.
            tar.members.clear()  # type: ignore[attr-defined]
            match = _KEY_AND_EXTENSION.fullmatch(member.name)
            if not member.isreg() or match is None:
                continue
            key, extension = match.groups()
            name = key.rpartition("/")[2]
            if not (name.startswith("__") and name.endswith("__")):
                yield key, extension.lower(), member, tar
        _check_end(file, tar.offset)


def _check_end(file: io.BufferedReader, offset: int) -> None:
    # tarfile takes a file that is cut off or damaged between two members for one that ends there.
    file.seek(offset)
    block = file.read(_BLOCK_BYTES)
    if len(block) < _BLOCK_BYTES or any(block):
        raise tarfile.ReadError(
            f"neither a member nor the end of the archive at byte {offset}: it is cut off or damaged"
        )
    while rest := file.read(_BLOCK_BYTES * 64):
        if any(rest):
            raise tarfile.ReadError("there is data after the end of the archive")


def _unreadable(location: Location, fault: object) -> UnreadablePoolError:
    return UnreadablePoolError(
        f"{location} cannot be read as an uncompressed tar: {fault}", reason="POOL_UNREADABLE", file=location
    )
