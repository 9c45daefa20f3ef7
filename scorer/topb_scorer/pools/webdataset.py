"""WebDataset: tar files whose members with one key are one sample."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.ahead import answers_ahead
from topb_scorer.pools.folder import is_image_name
from topb_scorer.pools.locations import Place, S3Path
from topb_scorer.pools.pool import Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.storage import READ_ERRORS, Storage

_SLICE_SAMPLES = 1024
_SCAN_BYTES = 1 << 13
_BLOCK_BYTES = 512
# As webdataset.tariterators.base_plus_ext has it: directories, then the name up to its first dot.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_READ_ERRORS = (*READ_ERRORS, tarfile.TarError, EOFError)


@dataclass(frozen=True)
class WebDatasetShard:
    """A run of a tar file's samples."""

    file: Place
    offset: int
    """Of the first sample's first header."""
    rows: int
    identity: str
    storage: Storage

    def items(self) -> Iterator[PoolItem]:
        """Each sample's image; a sample without one is a row that cannot be read."""
        count = 0
        try:
            with self.storage.open_buffered(self.file) as file:
                file.seek(self.offset)
                for item in self._items(file):
                    yield item
                    count += 1
                    if count == self.rows:
                        return
        except _READ_ERRORS as error:
            raise _torn(self.file, error) from error
        raise _torn(self.file, f"{self.rows - count} samples less than when the pool was opened")

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
        max_bytes = self.storage.limits.max_bytes
        if member.size > max_bytes:
            return Unreadable(
                "IMAGE_TOO_LARGE", f"{member.name}: {member.size} bytes; at most {max_bytes} are read"
            )
        content = tar.extractfile(member)
        assert content is not None, "only regular members come this far"
        return content.read()


@dataclass
class _Sample:
    key: str
    image: bytes | Unreadable | None = None
    extension: str = ""

    def wants(self, extension: str) -> bool:
        # "jpg" before "mask.png", and the first of its like.
        better = self.image is None or ("." in self.extension and "." not in extension)
        return better and is_image_name(f"_.{extension}")

    def take(self, extension: str, image: bytes | Unreadable) -> None:
        self.extension, self.image = extension, image

    def item(self) -> PoolItem:
        id_ = self.key.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if id_ != self.key:
            return PoolItem(id_, Unreadable("FILE_NAME_NOT_UTF8", f"the name of {id_} is not UTF-8"))
        if self.image is None:
            return PoolItem(id_, Unreadable("IMAGE_MISSING", f"sample {id_} has no member named as an image"))
        return PoolItem(id_, self.image)


def open_webdataset(files: Sequence[Place], storage: Storage) -> Pool:
    """The samples of tar files; an id is a sample's key: the name of its members up to the first dot.

    All headers are read, which tells a torn file and how many samples there are. No part of a sample are
    directories, links, and members without a key (no dot, or a leading one) or with one of WebDataset's own,
    `__…__`.

    Raises:
        UnreadablePoolError: a file is no tar, is compressed, or is torn.
    """

    def shards_of(file: Place) -> list[WebDatasetShard]:
        return _shards_of(file, storage)

    opened = answers_ahead(shards_of, files, waits=lambda file: isinstance(file, S3Path))
    return Pool([shard for shards in opened for shard in shards])


def _shards_of(path: Place, storage: Storage) -> list[WebDatasetShard]:
    starts: list[int] = []
    samples = 0
    last_key = None
    try:
        stamp = storage.stamp_of(path)
        # A small window: between the headers of a local file nothing need be read.
        with storage.open_buffered(path, local_bytes=_SCAN_BYTES) as file:
            for key, _, member, _ in _members(file):
                if key != last_key:
                    if samples % _SLICE_SAMPLES == 0:
                        starts.append(member.offset)
                    samples, last_key = samples + 1, key
    except _READ_ERRORS as error:
        raise _torn(path, error) from error
    return [
        WebDatasetShard(
            file=path,
            offset=offset,
            rows=min(_SLICE_SAMPLES, samples - i * _SLICE_SAMPLES),
            identity=identity_of("webdataset", str(path), stamp, i),
            storage=storage,
        )
        for i, offset in enumerate(starts)
    ]


def _members(file: io.BufferedReader) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """Key, extension and member of all that belongs to samples, from where `file` stands on."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            # Or the archive would remember all that it has seen.
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
    """To tarfile, an archive that breaks off between members or has a damaged header there is at its end."""
    file.seek(offset)
    block = file.read(_BLOCK_BYTES)
    if len(block) < _BLOCK_BYTES or any(block):
        raise tarfile.ReadError(f"no member and no end of the archive at byte {offset}: torn or damaged")
    while rest := file.read(_BLOCK_BYTES * 64):
        if any(rest):
            raise tarfile.ReadError("goes on after the end of the archive")


def _torn(path: Place, fault: object) -> UnreadablePoolError:
    return UnreadablePoolError(
        f"{path} cannot be read as an uncompressed tar: {fault}", reason="POOL_UNREADABLE", file=path
    )
