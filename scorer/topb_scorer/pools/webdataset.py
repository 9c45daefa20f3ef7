"""Read pools from WebDataset tars. Consecutive members with the same key form a sample; the key is its id."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

from topb_scorer.pools.folder import is_image_name
from topb_scorer.pools.pool import PoolItem, Unreadable, identity_of
from topb_scorer.pools.storage import Location, ReadPattern
from topb_scorer.pools.storage.location import READ_ERRORS, open_buffered, too_large, unreadable_file

_SLICE_SAMPLES = 1024
_BLOCK_BYTES = 512
# The same rule as webdataset.tariterators.base_plus_ext: directories, then the name up to its first dot.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_READ_ERRORS = (*READ_ERRORS, tarfile.TarError, EOFError)
_FORMAT = "an uncompressed tar"


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    extension: str
    header: tarfile.TarInfo
    tar: tarfile.TarFile


@dataclass(frozen=True)
class WebDatasetShard:
    """Consecutive samples of one tar."""

    file: Location
    offset: int
    """Offset of the first sample's first header, in bytes."""
    rows: int
    identity: str
    max_bytes: int
    """The size of the largest image that is read, in bytes."""

    def items(self) -> Iterator[PoolItem]:
        """Yield each sample's image. A sample without an image is an unreadable row."""
        count = 0
        try:
            with open_buffered(self.file, ReadPattern.THROUGH) as file:
                file.seek(self.offset)
                for key, members in islice(_samples(file), self.rows):
                    yield self._item(key, members)
                    count += 1
            if count < self.rows:
                raise EOFError(
                    f"the file has {self.rows - count} samples fewer than when the pool was opened; "
                    "repeat the selection"
                )
        except _READ_ERRORS as error:
            raise unreadable_file(self.file, _FORMAT, error) from error

    def _item(self, key: str, members: Iterable[_Member]) -> PoolItem:
        image: bytes | Unreadable | None = None
        is_plain = False
        for member in members:
            # "jpg" takes precedence over "mask.png"; otherwise the first image of a sample is used.
            is_better = image is None or ("." not in member.extension and not is_plain)
            if is_better and is_image_name(f"_.{member.extension}"):
                image, is_plain = self._read(member), "." not in member.extension
        id_ = _id(key)
        if id_ != key:
            image = Unreadable("FILE_NAME_NOT_UTF8", f"the name of {id_} is not UTF-8")
        elif image is None:
            fault = f"sample {id_} has no member with the suffix of an image format"
            image = Unreadable("IMAGE_MISSING", fault)
        return PoolItem(id_, image)

    def _read(self, member: _Member) -> bytes | Unreadable:
        if member.header.size > self.max_bytes:
            return too_large(member.header.name, member.header.size, self.max_bytes)
        content = member.tar.extractfile(member.header)
        assert content is not None, "only regular members are read"
        return content.read()


def webdataset_shards(location: Location, max_bytes: int) -> list[WebDatasetShard]:
    """Return the shards of an uncompressed tar, which are slices of its samples.

    The key of a member is its name up to the first dot. Directories, links, members without a key (names
    without a dot or with a leading one) and WebDataset's own `__…__` members are ignored.

    This function reads all headers, to count the samples and to detect damage.

    Raises:
        UnreadablePoolError: the file is not a tar, is compressed, or is damaged.
    """
    starts: list[int] = []
    samples = 0
    try:
        stamp = location.stamp()
        with open_buffered(location, ReadPattern.SKIPPING) as file:
            for _, members in _samples(file):
                if samples % _SLICE_SAMPLES == 0:
                    starts.append(next(members).header.offset)
                samples += 1
    except _READ_ERRORS as error:
        raise unreadable_file(location, _FORMAT, error) from error
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


def webdataset_members(location: Location, extension: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield the id of each sample with the content of its member of this extension, or None without one.

    Raises:
        UnreadablePoolError: see `webdataset_shards`.
    """
    try:
        with open_buffered(location, ReadPattern.SKIPPING) as file:
            for key, members in _samples(file):
                content = None
                for member in members:
                    if member.extension == extension:
                        opened = member.tar.extractfile(member.header)
                        assert opened is not None, "only regular members are read"
                        content = opened.read()
                yield _id(key), content
    except _READ_ERRORS as error:
        raise unreadable_file(location, _FORMAT, error) from error


def _id(key: str) -> str:
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _samples(file: io.BufferedReader) -> Iterator[tuple[str, Iterator[_Member]]]:
    return groupby(_members(file), lambda member: member.key)


def _members(file: io.BufferedReader) -> Iterator[_Member]:
    """Yield the members that belong to samples, starting at the current position of the file."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (header := tar.next()) is not None:
            # Otherwise TarFile keeps every header that it has seen.
            tar.members.clear()  # type: ignore[attr-defined]
            match = _KEY_AND_EXTENSION.fullmatch(header.name)
            if not header.isreg() or match is None:
                continue
            key, extension = match.groups()
            name = key.rpartition("/")[2]
            if not (name.startswith("__") and name.endswith("__")):
                yield _Member(key, extension.lower(), header, tar)
        _check_end(file, tar.offset)


def _check_end(file: io.BufferedReader, offset: int) -> None:
    # If the file is cut off or damaged between two members, tarfile assumes that the archive ends there.
    file.seek(offset)
    block = file.read(_BLOCK_BYTES)
    if len(block) < _BLOCK_BYTES or any(block):
        raise tarfile.ReadError(
            f"there is neither a member nor the end of the archive at byte {offset}: it is cut off or damaged"
        )
    while rest := file.read(_BLOCK_BYTES * 64):
        if any(rest):
            raise tarfile.ReadError("there is data after the end of the archive")
