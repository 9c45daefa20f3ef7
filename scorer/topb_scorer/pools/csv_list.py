"""Pools that are CSV files (RFC 4180, with a header) of ids and the paths or URLs of images."""

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
from topb_scorer.pools.pool import Columns, OpenPool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.slicing import slices
from topb_scorer.pools.storage import Location, ReadPattern, Stores
from topb_scorer.pools.storage.location import READ_ERRORS, open_buffered

_MAX_LINE_BYTES = 1 << 20
_READ_ERRORS = (*READ_ERRORS, csv.Error, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class _Row:
    fields: tuple[str, ...]
    id: str
    path: str
    fault: str
    """Why the row is malformed; empty if it is not."""
    start: int
    """Offset of the row in the file, in bytes."""


@dataclass(frozen=True)
class CsvShard:
    """A slice of a file's rows."""

    file: Location
    header: tuple[str, ...]
    start: int
    """Offset of the first row in the file, in bytes."""
    rows: int
    digest: str
    """A digest of the rows."""
    identity: str
    columns: Columns
    stores: Stores

    def items(self) -> Iterator[PoolItem]:
        """Yield each row's image, read from its path or URL."""
        return map_ahead(self._item, self._read(), is_remote=self._is_remote)

    def _read(self) -> Iterator[_Row]:
        try:
            with _open(self.file) as lines:
                lines.seek(self.start)
                rows = list(islice(_rows(lines, self.header, self.columns), self.rows))
        except _READ_ERRORS as error:
            raise _unreadable(self.file, error) from error
        if _digest(rows) != self.digest:
            raise _unreadable(self.file, "it changed after the pool was opened")
        yield from rows

    def _is_remote(self, row: _Row) -> bool:
        return bool(row.id and row.path) and self.stores.is_remote(row.path, self.file.parent)

    def _item(self, row: _Row) -> PoolItem:
        # The row's contents name it: its place in the file may change while the row does not.
        id_ = row.id or f"(no id) {','.join(row.fields)}"[:200]
        if row.fault:
            return PoolItem(id_, Unreadable("ROW_MALFORMED", row.fault))
        if not row.id:
            return PoolItem(id_, Unreadable("ID_MISSING", f"column {self.columns.id} is empty"))
        if not row.path:
            return PoolItem(id_, Unreadable("IMAGE_MISSING", f"column {self.columns.path} is empty"))
        return PoolItem(id_, self.stores.read_image(row.path, self.file.parent))


def open_csv_lists(files: Sequence[Location], columns: Columns, stores: Stores) -> OpenPool:
    """Return the pool of the rows of `files`. Empty lines are ignored.

    Raises:
        InvalidRequestError: A header lacks a column or has it twice.
        UnreadablePoolError: A file is not UTF-8 or violates RFC 4180.
    """
    return OpenPool([shard for file in files for shard in _shards_of(file, columns, stores)])


def _shards_of(location: Location, columns: Columns, stores: Stores) -> Iterator[CsvShard]:
    seen: Counter[str] = Counter()
    try:
        with _open(location) as lines:
            header = _header(location, lines, columns)
            for rows in slices(_rows(lines, header, columns), lambda row: row.id):
                digest = _digest(rows)
                stamps = stores.digest_of_local_images((row.path for row in rows), location.parent)
                contents = identity_of("list", str(location), digest, stamps)
                # A slice may occur again further down the file, as a shard of its own.
                seen[contents] += 1
                identity = identity_of(contents, seen[contents])
                yield CsvShard(location, header, rows[0].start, len(rows), digest, identity, columns, stores)
    except _READ_ERRORS as error:
        raise _unreadable(location, error) from error


@contextmanager
def _open(location: Location) -> Iterator[_Lines]:
    with open_buffered(location, ReadPattern.SLICE) as file:
        yield _Lines(file)


def _header(location: Location, lines: _Lines, columns: Columns) -> tuple[str, ...]:
    header = next((fields for fields in csv.reader(lines, strict=True) if fields), [])
    if header:
        header[0] = header[0].removeprefix("\ufeff")
    for column in (columns.id, columns.path):
        if header.count(column) != 1:
            raise InvalidRequestError(
                f"{location} has {header.count(column) or 'no'} columns {column!r} in its header; "
                f"expected one; the columns are {', '.join(header) or 'none'}",
                reason="POOL_COLUMN_AMBIGUOUS" if column in header else "POOL_COLUMN_MISSING",
                file=location,
            )
    return tuple(header)


def _rows(lines: _Lines, header: Sequence[str], columns: Columns) -> Iterator[_Row]:
    id_index, path_index = header.index(columns.id), header.index(columns.path)
    start = lines.offset
    for fields in csv.reader(lines, strict=True):
        if fields and len(fields) != len(header):
            # The text is a part of identities: changing it loses the scores of these slices.
            fault = f"{len(fields)} fields; the header has {len(header)}"
            yield _Row(tuple(fields), "", "", fault, start)
        elif fields:
            yield _Row(tuple(fields), fields[id_index], fields[path_index], "", start)
        start = lines.offset


class _Lines:
    """Iterates over lines of UTF-8 and knows the offset of the next one."""

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
            raise csv.Error(f"a line has {_MAX_LINE_BYTES} bytes or more")
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


def _unreadable(location: Location, fault: object) -> UnreadablePoolError:
    return UnreadablePoolError(
        f"{location} cannot be read as CSV: {fault}", reason="POOL_UNREADABLE", file=location
    )
