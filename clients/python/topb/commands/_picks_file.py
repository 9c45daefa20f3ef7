"""Write the picks to a Parquet or CSV file."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from pathlib import Path

import click

from topb.results import SelectionResult

_SUFFIXES = (".csv", ".parquet")


def check_picks_file(path: Path) -> Path:
    """Return the path if the picks can be written to it.

    Raises:
        UsageError: the name ends in neither .csv nor .parquet, the folder does not exist, or pyarrow is
            missing.
    """
    if path.suffix not in _SUFFIXES:
        raise click.UsageError(f"--out {path}: the name must end in {' or '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.UsageError(
            f"--out {path}: Parquet needs pyarrow: pip install pyarrow, or pip install 'topb[scorer]', "
            "which includes it; .csv needs nothing"
        )
    return path


def write_picks(result: SelectionResult, path: Path) -> None:
    """Write the picks with the columns of `SelectionResult.to_columns`.

    The file is replaced atomically.
    """
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
