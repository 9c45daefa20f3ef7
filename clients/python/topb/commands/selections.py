"""`topb selections`: the selections that a server keeps, and their results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from topb.commands._connection import connection_options, open_client
from topb.commands._result_output import (
    accounts_text,
    classes_at_server,
    result_options,
    show_result,
    shown_progress,
)
from topb.commands.options import Choice, Decorated, Group, json_option, option
from topb.commands.output import minute, print_json, printable, table_text
from topb.selections import Selection, SelectionState

_HEADER = ("selection", "state", "strategy", "model", "budget", "read", "created", "pool")
_RIGHT_ALIGNED = {"budget", "read"}
_POOL_WIDTH = 40
_LOOK_SECONDS = 10.0


def _selection_argument() -> Callable[[Decorated], Decorated]:
    return click.argument("selection", metavar="ID")


@click.group(cls=Group)
def run() -> None:
    """List, show and cancel selections of a server, and fetch their results."""


@run.command("list")
@option(
    "--state",
    "states",
    multiple=True,
    type=Choice([state.value for state in SelectionState]),
    help="List only selections in this state; repeatable.",
)
@option("--model", metavar="ID", help="List only selections by this model.")
@option("--limit", type=int, default=50, metavar="N", help="List at most this many.")
@json_option()
@connection_options(timeout=_LOOK_SECONDS)
def _list(states: Sequence[str], model: str | None, limit: int, as_json: bool, **connection: Any) -> None:
    """List selections, the latest first."""
    with open_client(SimpleNamespace(**connection)) as client:
        listed = client.list_selections(states=[SelectionState(state) for state in states], model=model)
        selections = list(itertools.islice(listed, limit))
        if as_json:
            print_json([selection.to_dict() for selection in selections])
        elif selections:
            print(table_text(_HEADER, map(_row, selections), right_aligned=_RIGHT_ALIGNED))
            if next(listed, None) is not None:
                print(f"… and more: --limit shows more than {limit}.")
        else:
            print("No selections.")


@run.command("show")
@_selection_argument()
@json_option()
@connection_options(timeout=_LOOK_SECONDS)
def _show(selection: str, as_json: bool, **connection: Any) -> None:
    """Show one selection.

    ID is the id of the selection or of its request.
    """
    with open_client(SimpleNamespace(**connection)) as client:
        _print(client.selection(selection).describe(), as_json=as_json)


@run.command("cancel")
@_selection_argument()
@json_option()
@connection_options(timeout=_LOOK_SECONDS)
def _cancel(selection: str, as_json: bool, **connection: Any) -> None:
    """Cancel one selection.

    ID is the id of the selection or of its request.
    """
    with open_client(SimpleNamespace(**connection)) as client:
        _print(client.selection(selection).cancel(), as_json=as_json)


@run.command("result")
@_selection_argument()
@result_options()
@connection_options(timeout=None)
def _result(selection: str, as_json: bool, out: Path | None, quiet: bool, **connection: Any) -> None:
    """Wait for a selection, and show or write its result.

    ID is the id of the selection or of its request.
    """
    with open_client(SimpleNamespace(**connection)) as client:
        with shown_progress(quiet=quiet) as progress:
            result = client.selection(selection).result(progress=progress)
        classes = () if as_json or quiet else classes_at_server(client, result.model)
    show_result(result, classes=classes, out=out, as_json=as_json, quiet=quiet)


def _print(selection: Selection, *, as_json: bool) -> None:
    if as_json:
        print_json(selection.to_dict())
    else:
        print(_as_text(selection))


def _as_text(selection: Selection) -> str:
    of_all = f" of {selection.progress.total:,}" if selection.progress.total else ""
    lines = [
        f"selection {selection.id}: {selection.state}",
        f"  request     {printable(selection.request_id)}",
        f"  what        {selection.budget:,} by {selection.strategy} with model {selection.model}",
        f"  pool        {printable(selection.pool_uri) or 'sent by its caller'}",
        f"  read        {selection.progress.read:,}{of_all} in {selection.progress.elapsed_seconds:.1f} s",
        f"  created     {minute(selection.create_time)}",
    ]
    if selection.end_time is not None:
        lines.append(f"  ended       {minute(selection.end_time)}")
    if selection.error_reason:
        lines.append(f"  error       {printable(selection.error_message)} [{selection.error_reason}]")
    if selection.accounts is not None:
        lines += [f"  picks       {selection.pick_count:,}", accounts_text(selection.accounts)]
    return "\n".join(lines)


def _row(selection: Selection) -> tuple[str, ...]:
    pool = printable(selection.pool_uri) or "(sent)"
    return (
        selection.id,
        selection.state,
        selection.strategy,
        selection.model,
        f"{selection.budget:,}",
        f"{selection.progress.read:,}",
        minute(selection.create_time),
        pool if len(pool) <= _POOL_WIDTH else f"…{pool[1 - _POOL_WIDTH :]}",
    )
