"""A folder of image files, listed once and cut into slices that stay put when files come and go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from topb_scorer.pools.ahead import answers_ahead
from topb_scorer.pools.files import read_image, read_object
from topb_scorer.pools.locations import Place, S3Path
from topb_scorer.pools.pool import Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.slices import slices
from topb_scorer.pools.storage import FoundFile, Storage


@dataclass(frozen=True)
class FolderShard:
    """A run of a folder's files in the order of their ids."""

    root: Place
    files: tuple[FoundFile, ...]
    storage: Storage

    @property
    def identity(self) -> str:
        """Of the folder and of the names, sizes and modification times of the files."""
        stamps = [(file.id, file.size, file.modified_ns) for file in self.files]
        return identity_of("folder", str(self.root), stamps)

    @property
    def rows(self) -> int:
        """One a file."""
        return len(self.files)

    def items(self) -> Iterator[PoolItem]:
        """Each file's bytes; a file whose name is not that of an image is a row that cannot be read."""
        return answers_ahead(self._item, self.files, waits=lambda _: isinstance(self.root, S3Path))

    def _item(self, file: FoundFile) -> PoolItem:
        return PoolItem(file.id, self._image(file))

    def _image(self, file: FoundFile) -> bytes | Unreadable:
        if not file.is_utf8:
            return Unreadable("FILE_NAME_NOT_UTF8", f"the name of {file.id} is not UTF-8")
        if not is_image_name(file.id):
            return Unreadable("FILE_NOT_AN_IMAGE", f"{file.id} is not named as an image")
        if isinstance(self.root, Path):
            return read_image(str(self.root / file.id), None, self.storage)
        return read_object(self.root.below(file.id), self.storage)


def open_folder(root: Place, files: Iterable[FoundFile], storage: Storage) -> Pool:
    """The files below `root`. An id is a path relative to `root`, with `/`."""
    ordered = sorted(files, key=_id_of)
    return Pool([FolderShard(root, tuple(slice_), storage) for slice_ in slices(ordered, _id_of)])


def is_image_name(name: str) -> bool:
    """Whether Pillow reads files with this name's suffix."""
    return Path(name).suffix.lower() in Image.registered_extensions()


def _id_of(file: FoundFile) -> str:
    return file.id
