"""Writes the picks to a file: Parquet or CSV, as its name ends."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from pathlib import Path

from topb.commands._failures import UsageError
from topb.results import SelectionResult

_SUFFIXES = (".csv", ".parquet")


def check_picks_file(path: Path) -> None:
    """Raises, before any work is done, what would keep the picks from being written.

    Raises:
        UsageError: the name ends in neither .csv nor .parquet, there is no such folder, or no pyarrow.
    """
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"--out {path}: the name must end in {' or '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            f"--out {path}: Parquet needs pyarrow: pip install pyarrow, or pip install 'topb[scorer]', "
            "which brings it; .csv needs nothing"
        )


def write_picks(result: SelectionResult, path: Path) -> None:
    """Writes the picks as `SelectionResult.to_columns` has them; the file appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(_parquet(result) if path.suffix == ".parquet" else _csv(result))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _parquet(result: SelectionResult) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(result.to_arrow(), buffer)
    return buffer.getvalue()


def _csv(result: SelectionResult) -> bytes:
    columns = result.to_columns()
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()
