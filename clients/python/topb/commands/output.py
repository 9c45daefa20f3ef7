"""Format what commands print: tables, JSON, sizes, times and untrusted text."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def table_text(rows: Sequence[Mapping[str, str]], *, right_aligned: Collection[str] = ()) -> str:
    """Return a table whose columns are as wide as their widest cell and two spaces apart.

    Args:
        rows: The cells of each row by column name. At least one row is required.
        right_aligned: Names of the columns that are aligned to the right.
    """
    header = list(rows[0])
    lines = [header, *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligns = [">" if name in right_aligned else "<" for name in header]
    return "\n".join(
        "  ".join(
            f"{cell:{align}{width}}" for cell, align, width in zip(line, aligns, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def printable(text: str) -> str:
    """Return the text with every control character written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def mebibytes(size: int) -> str:
    """Return a size such as `1.5 MiB`."""
    return f"{size / 2**20:.1f} MiB"


def minute(time: datetime.datetime | float | None) -> str:
    """Return a time to the minute, in UTC if it is given as seconds since the epoch; empty for None."""
    if isinstance(time, float):
        time = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
