"""Read pools from folders of image files. Each file is a row; its id is its path relative to the folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.pool import PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.slicing import slices
from topb_scorer.pools.storage import FoundFile, Location
from topb_scorer.pools.storage.location import read_image


@dataclass(frozen=True)
class FolderShard:
    """A slice of a folder's files, sorted by id."""

    folder: Location
    files: tuple[FoundFile, ...]
    max_bytes: int
    """The size of the largest image that is read, in bytes."""

    @property
    def identity(self) -> str:
        """A digest of the folder's location and of the names, sizes and modification times of the files."""
        stamps = [(file.id, file.size, file.modified_ns) for file in self.files]
        return identity_of("folder", str(self.folder), stamps)

    @property
    def rows(self) -> int:
        return len(self.files)

    def items(self) -> Iterator[PoolItem]:
        """Yield each file's bytes. A file without the suffix of an image format is an unreadable row."""
        return map_ahead(self._item, self.files, is_remote=lambda _: self.folder.is_remote)

    def _item(self, file: FoundFile) -> PoolItem:
        return PoolItem(file.id, self._image(file))

    def _image(self, file: FoundFile) -> bytes | Unreadable:
        if not file.is_utf8:
            return Unreadable("FILE_NAME_NOT_UTF8", f"the name of {file.id} is not UTF-8")
        if not is_image_name(file.id):
            return Unreadable("FILE_NOT_AN_IMAGE", f"{file.id} does not have the suffix of an image format")
        try:
            location = self.folder.child(file.id)
        except (AccessDeniedError, InvalidRequestError) as error:
            return Unreadable("FILE_NOT_ALLOWED", str(error))
        return read_image(location, self.max_bytes)


def folder_shards(folder: Location, files: Sequence[FoundFile], max_bytes: int) -> list[FolderShard]:
    """Return the shards of a folder, which are slices of its files. `files` must be sorted by id."""
    return [FolderShard(folder, tuple(slice_), max_bytes) for slice_ in slices(files, lambda file: file.id)]


def is_image_name(name: str) -> bool:
    """Return whether Pillow reads files with this name's suffix."""
    return Path(name).suffix.lower() in Image.registered_extensions()
