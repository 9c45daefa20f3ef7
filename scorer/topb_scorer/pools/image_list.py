"""CSV lists of image paths and URLs, as RFC 4180 has them, with a header."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools.ahead import answers_ahead
from topb_scorer.pools.files import local_stamps, read_image
from topb_scorer.pools.locations import Place, is_remote
from topb_scorer.pools.pool import Columns, Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.slices import slices
from topb_scorer.pools.storage import READ_ERRORS, Storage

_MAX_LINE_BYTES = 1 << 20
# A slice of a list is some tens of kilobytes.
_S3_BUFFER_BYTES = 1 << 18
_READ_ERRORS = (*READ_ERRORS, csv.Error, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class _Row:
    fields: tuple[str, ...]
    id: str
    path: str
    fault: str
    """Why it is no row of the list; empty if it is one."""
    start: int
    """The byte at which it begins."""


@dataclass(frozen=True)
class ListShard:
    """A run of a list's rows."""

    file: Place
    header: tuple[str, ...]
    start: int
    """The byte at which the first row begins."""
    rows: int
    digest: str
    """Of the rows."""
    identity: str
    columns: Columns
    storage: Storage

    def items(self) -> Iterator[PoolItem]:
        """Each row's image, from the file at its path."""
        return answers_ahead(self._item, self._read(), waits=self._is_elsewhere)

    def _read(self) -> Iterator[_Row]:
        try:
            with _open(self.file, self.storage) as lines:
                lines.seek(self.start)
                rows = list(islice(_rows(lines, self.header, self.columns), self.rows))
        except _READ_ERRORS as error:
            raise _unreadable(self.file, error) from error
        if _digest(rows) != self.digest:
            raise _unreadable(self.file, "it was changed after the pool was opened")
        yield from rows

    def _is_elsewhere(self, row: _Row) -> bool:
        return bool(row.id and row.path) and is_remote(row.path, self.file.parent)

    def _item(self, row: _Row) -> PoolItem:
        # Named by what is in it, since its place in the list may change while the row does not.
        id_ = row.id or f"(no id) {','.join(row.fields)}"[:200]
        if row.fault:
            return PoolItem(id_, Unreadable("ROW_MALFORMED", row.fault))
        if not row.id:
            return PoolItem(id_, Unreadable("ID_MISSING", f"column {self.columns.id} is empty"))
        if not row.path:
            return PoolItem(id_, Unreadable("IMAGE_MISSING", f"column {self.columns.path} is empty"))
        return PoolItem(id_, read_image(row.path, self.file.parent, self.storage))


def open_lists(files: Sequence[Place], columns: Columns, storage: Storage) -> Pool:
    """The rows of CSV files, with the columns that their headers name; empty lines are none.

    Raises:
        InvalidRequestError: a header lacks a column, or has one twice.
        UnreadablePoolError: a file is not UTF-8, or breaks RFC 4180.
    """
    return Pool([shard for file in files for shard in _shards_of(file, columns, storage)])


def _shards_of(path: Place, columns: Columns, storage: Storage) -> Iterator[ListShard]:
    seen: Counter[str] = Counter()
    try:
        with _open(path, storage) as lines:
            header = _header(path, lines, columns)
            for rows in slices(_rows(lines, header, columns), lambda row: row.id):
                digest = _digest(rows)
                stamps = local_stamps((row.path for row in rows), path.parent)
                contents = identity_of("list", str(path), digest, stamps)
                # The same rows may come again further down, and are another shard there.
                seen[contents] += 1
                identity = identity_of(contents, seen[contents])
                yield ListShard(path, header, rows[0].start, len(rows), digest, identity, columns, storage)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


@contextmanager
def _open(path: Place, storage: Storage) -> Iterator[_Lines]:
    with storage.open_buffered(path, s3_bytes=_S3_BUFFER_BYTES) as file:
        yield _Lines(file)


def _header(path: Place, lines: _Lines, columns: Columns) -> tuple[str, ...]:
    header = next((fields for fields in csv.reader(lines, strict=True) if fields), [])
    if header:
        header[0] = header[0].removeprefix("\ufeff")
    for column in (columns.id, columns.path):
        if header.count(column) != 1:
            raise InvalidRequestError(
                f"{path} has {header.count(column) or 'no'} columns {column!r} in its header, which names "
                f"{', '.join(header) or 'nothing'}; expected one",
                reason="POOL_COLUMN_AMBIGUOUS" if column in header else "POOL_COLUMN_MISSING",
                file=path,
            )
    return tuple(header)


def _rows(lines: _Lines, header: Sequence[str], columns: Columns) -> Iterator[_Row]:
    id_place, path_place = header.index(columns.id), header.index(columns.path)
    start = lines.offset
    for fields in csv.reader(lines, strict=True):
        if fields and len(fields) != len(header):
            fault = f"{len(fields)} fields; the header has {len(header)}"
            yield _Row(tuple(fields), "", "", fault, start)
        elif fields:
            yield _Row(tuple(fields), fields[id_place], fields[path_place], "", start)
        start = lines.offset


class _Lines:
    """Lines of UTF-8, and the byte at which the next begins."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.offset = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        if len(line) == _MAX_LINE_BYTES:
            raise csv.Error(f"a line is longer than {_MAX_LINE_BYTES} bytes")
        self.offset += len(line)
        return line.decode()

    def seek(self, offset: int) -> None:
        self._file.seek(offset)
        self.offset = offset


def _digest(rows: Sequence[_Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        parts = [row.id, row.path, row.fault, "" if row.id else ",".join(row.fields)]
        for part in parts:
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _unreadable(path: Place, fault: object) -> UnreadablePoolError:
    return UnreadablePoolError(f"{path} cannot be read as CSV: {fault}", reason="POOL_UNREADABLE", file=path)
