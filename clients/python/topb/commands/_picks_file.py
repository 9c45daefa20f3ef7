"""Write the picks to a Parquet or CSV file."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from pathlib import Path
from typing import BinaryIO

import click

from topb.results import SelectionResult


def check_picks_file(path: Path) -> Path:
    """Return the path if the picks can be written to it.

    Raises:
        UsageError: If the name ends in neither .csv nor .parquet, the folder does not exist, or pyarrow is
            missing.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise click.UsageError(f"--out {path}: the name must end in .csv or .parquet")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out {path}: the folder {path.parent} does not exist; create it first")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.UsageError(
            f"--out {path}: Parquet needs pyarrow: pip install pyarrow, or pip install 'topb[scorer]', "
            "which includes it; .csv needs nothing"
        )
    return path


def write_picks(result: SelectionResult, path: Path) -> None:
    """Write the picks with the columns of `SelectionResult.to_columns`, replacing the file atomically.

    In CSV, each row also has the columns of `SelectionResult.provenance`; in Parquet, the metadata has them.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    write = _write_parquet if path.suffix == ".parquet" else _write_csv
    try:
        with unfinished.open("wb") as file:
            write(result, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_parquet(result: SelectionResult, file: BinaryIO) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(result.to_arrow(), file)


def _write_csv(result: SelectionResult, file: BinaryIO) -> None:
    columns = result.to_columns()
    columns |= {name: [value] * len(result) for name, value in result.provenance.items()}
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    text.detach()
