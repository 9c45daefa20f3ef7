"""Read the images to leave out from any file that topb writes, or from a text file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NoReturn

import click

from topb.pools import ExcludeFile

LABELLED = "labelled.parquet"
_DIGEST = "digest"
_TABLE_HEADER = ["rank", "id", "score"]


def read_exclusion(file: str, column: str) -> dict[str, bytes] | ExcludeFile:
    """Return the images that a file names: the content digest of each by its id, empty if it is not known.

    A URI, and a .parquet file that does not exist on this machine, are left to the scorer to read.

    Args:
        file: A .parquet, .csv, .json or text file, or the directory of a bundle.
        column: The column of ids in a .parquet or .csv file.

    Raises:
        UsageError: If the file cannot be read or has no ids, or pyarrow is missing.
    """
    path = Path(file)
    if path.is_dir():
        if not (path / LABELLED).is_file():
            _refuse(file, f"the directory is not a bundle: it has no {LABELLED}")
        path, column = path / LABELLED, "id"
    if "://" in file or (path.suffix == ".parquet" and not path.exists()):
        return ExcludeFile(file, column)
    if path.suffix == ".parquet":
        return _from_parquet(path, column)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        _refuse(file, str(error.strerror))
    except UnicodeDecodeError:
        _refuse(file, "the file is not UTF-8 text")
    read = {".csv": _from_csv, ".json": _from_json}.get(path.suffix, _from_lines)
    return dict.fromkeys(read(path, text, column), b"")


def _from_parquet(path: Path, column: str) -> dict[str, bytes]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        _refuse(
            path,
            "reading Parquet needs pyarrow: pip install pyarrow. If the server can read the file, give its "
            "file:// or s3:// URI instead",
        )
    try:
        with parquet.ParquetFile(path) as opened:
            schema = opened.schema_arrow
            if column not in schema.names:
                _refuse_column(path, column, schema.names)
            has_digests = _DIGEST in schema.names and schema.field(_DIGEST).type == pyarrow.binary(16)
            table = opened.read([column, *([_DIGEST] if has_digests else [])])
        ids = table.column(column).to_pylist()
        digests = table.column(_DIGEST).to_pylist() if has_digests else [None] * len(ids)
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        _refuse(path, f"the file cannot be read as Parquet: {error}")
    return {
        _as_id(path, id_): digest or b"" for id_, digest in zip(ids, digests, strict=True) if id_ is not None
    }


def _from_csv(path: Path, text: str, column: str) -> list[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if column not in (rows.fieldnames or ()):
        _refuse_column(path, column, list(rows.fieldnames or ()))
    return [row[column] for row in rows if row[column]]


def _from_json(path: Path, text: str, _column: str) -> list[str]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        _refuse(path, f"the file cannot be read as JSON: {error}")
    if isinstance(content, dict):
        content = content.get("picks")
    if not isinstance(content, list):
        _refuse(path, "expected a JSON list of ids, or what topb select --json prints")
    ids = (entry.get("id") if isinstance(entry, dict) else entry for entry in content)
    return [_as_id(path, id_) for id_ in ids]


def _from_lines(path: Path, text: str, _column: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[0].split()[:3] == _TABLE_HEADER:
        _refuse(path, "this is the table for people, which has twenty picks at most; use --out or --json")
    return [line for line in lines if line]


def _as_id(path: Path, value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        _refuse(path, f"{value!r} is not an id; expected strings or integers")
    return str(value)


def _refuse_column(path: Path, column: str, columns: list[str]) -> NoReturn:
    _refuse(path, f"the file has no column {column!r}; give one with --exclude-column: {', '.join(columns)}")


def _refuse(file: str | Path, why: str) -> NoReturn:
    raise click.UsageError(f"--exclude {file}: {why}")
