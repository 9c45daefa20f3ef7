"""Read pools from CSV files (RFC 4180, with a header) that list ids and the paths or URLs of images."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.pool import Columns, PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.slicing import slices
from topb_scorer.pools.storage import Location, ReadPattern, Stores
from topb_scorer.pools.storage.addresses import shown
from topb_scorer.pools.storage.location import READ_ERRORS, open_buffered, unreadable_file

_MAX_LINE_BYTES = 1 << 20
_READ_ERRORS = (*READ_ERRORS, csv.Error, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class _Row:
    fields: tuple[str, ...]
    id: str
    path: str
    fault: str
    """The reason why the row is malformed; empty if it is not."""
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
            with open_buffered(self.file, ReadPattern.SLICE) as file:
                file.seek(self.start)
                rows = list(islice(_rows(file, self.header, self.columns), self.rows))
            if _digest(rows) != self.digest:
                raise csv.Error("the file changed after the pool was opened; repeat the selection")
        except _READ_ERRORS as error:
            raise unreadable_file(self.file, "CSV", error) from error
        yield from rows

    def _is_remote(self, row: _Row) -> bool:
        return bool(row.id and row.path) and self.stores.is_remote(row.path, self.file)

    def _item(self, row: _Row) -> PoolItem:
        # A row without an id is named by its contents, because its position in the file may change.
        id_ = row.id or f"(no id) {','.join(map(shown, row.fields))}"[:200]
        if row.fault:
            return PoolItem(id_, Unreadable("ROW_MALFORMED", row.fault))
        if not row.id:
            return PoolItem(id_, Unreadable("ID_MISSING", f"column {self.columns.id} is empty"))
        if not row.path:
            return PoolItem(id_, Unreadable("IMAGE_MISSING", f"column {self.columns.path} is empty"))
        return PoolItem(id_, self.stores.read_image(row.path, self.file))


def csv_shards(location: Location, columns: Columns, stores: Stores) -> list[CsvShard]:
    """Return the shards of a CSV file, which are slices of its rows. Empty lines are ignored.

    Raises:
        InvalidRequestError: a column is missing from the header, or occurs more than once.
        UnreadablePoolError: the file is not UTF-8 or violates RFC 4180.
    """
    shards: list[CsvShard] = []
    seen: Counter[str] = Counter()
    try:
        with open_buffered(location, ReadPattern.SLICE) as file:
            header = _header(location, file, columns)
            for rows in slices(_rows(file, header, columns), lambda row: row.id):
                start, digest = rows[0].start, _digest(rows)
                stamps = stores.digest_of_local_images((row.path for row in rows), location)
                contents = identity_of("list", str(location), digest, stamps)
                # The file may contain equal slices, and each needs an identity of its own.
                seen[contents] += 1
                identity = identity_of(contents, seen[contents])
                shards.append(CsvShard(location, header, start, len(rows), digest, identity, columns, stores))
    except _READ_ERRORS as error:
        raise unreadable_file(location, "CSV", error) from error
    return shards


def csv_column(location: Location, id_column: str, column: str) -> Iterator[tuple[str, str]]:
    """Yield the ids of a CSV file with the text of another column. Rows without an id are left out.

    Raises:
        InvalidRequestError, UnreadablePoolError: see `csv_shards`.
    """
    columns = Columns(id_column, "", column)
    try:
        with open_buffered(location, ReadPattern.THROUGH) as file:
            header = _header(location, file, columns)
            yield from ((row.id, row.path) for row in _rows(file, header, columns) if row.id)
    except _READ_ERRORS as error:
        raise unreadable_file(location, "CSV", error) from error


def _header(location: Location, file: io.BufferedReader, columns: Columns) -> tuple[str, ...]:
    header = next((fields for fields in csv.reader(_lines(file), strict=True) if fields), [])
    if header:
        header[0] = header[0].removeprefix("\ufeff")
    for column in (columns.id, columns.path):
        if header.count(column) != 1:
            raise InvalidRequestError(
                f"{location} has {header.count(column) or 'no'} columns named {column!r} in its header; "
                f"expected exactly one. Its columns are: {', '.join(header) or 'none'}",
                reason="POOL_COLUMN_AMBIGUOUS" if column in header else "POOL_COLUMN_MISSING",
                file=location,
            )
    return tuple(header)


def _rows(file: io.BufferedReader, header: Sequence[str], columns: Columns) -> Iterator[_Row]:
    id_index, path_index = header.index(columns.id), header.index(columns.path)
    start = file.tell()
    for fields in csv.reader(_lines(file), strict=True):
        if fields and len(fields) != len(header):
            # This text is part of the shard's identity: changing it invalidates the scores of the shard.
            fault = f"{len(fields)} fields; the header has {len(header)}"
            yield _Row(tuple(fields), "", "", fault, start)
        elif fields:
            yield _Row(tuple(fields), fields[id_index], fields[path_index], "", start)
        start = file.tell()


def _lines(file: io.BufferedReader) -> Iterator[str]:
    while line := file.readline(_MAX_LINE_BYTES):
        if len(line) == _MAX_LINE_BYTES:
            raise csv.Error(f"a line has {_MAX_LINE_BYTES} bytes or more")
        yield line.decode()


def _digest(rows: Sequence[_Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for part in (row.id, row.path, row.fault, "" if row.id else ",".join(row.fields)):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
