"""What `topb select` and `topb selections result` do with a result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from topb.client import Client
from topb.commands._picks_file import write_picks
from topb.commands._report import result_text, shortfall_text
from topb.errors import TopbError
from topb.results import SelectionResult


def show_result(
    result: SelectionResult, *, classes: Sequence[str], out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Writes the picks to `out`, prints JSON or a table, and warns where the pool fell short.

    Args:
        result: of the selection.
        classes: names by index, for the table; empty where they are not known.
        out: file for all picks, None for none.
        as_json: whether to print the whole result as JSON.
        quiet: whether to print no table.
    """
    if out is not None:
        write_picks(result, out)
    if as_json:
        print(result.to_json(indent=2))
    elif not quiet:
        print(result_text(result, classes=classes, out=out))
    if result.fell_short:
        print(shortfall_text(result), file=sys.stderr)


def classes_at_server(client: Client, model: str) -> Sequence[str]:
    """Names of the model's classes, or none where the server cannot name them."""
    try:
        return client.get_model(model).classes
    except TopbError:
        # The picks are there, and are what was asked for: classes go by number then.
        return ()
