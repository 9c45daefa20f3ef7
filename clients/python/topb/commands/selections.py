"""The `topb selections` commands, which list, show and cancel a server's selections and fetch their
results."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from topb.commands._connection import connection_options, open_client
from topb.commands._progress_line import place_text, shown_progress
from topb.commands._result_output import RESULT_OPTIONS, accounts_text, show_result
from topb.commands.options import JSON, Choice, Group, Option
from topb.commands.output import minute, print_json, printable, table_text
from topb.selections import Selection, SelectionState

_POOL_WIDTH = 40
_LOOK_OPTIONS = [JSON, *connection_options(timeout=10.0)]
_ID = click.Argument(["selection"], metavar="ID")


@click.group(cls=Group)
def run() -> None:
    """List, show and cancel selections of a server, and fetch their results."""


@run.command(
    "list",
    params=[
        Option(
            "--state",
            "List only selections in this state; repeatable.",
            name="states",
            multiple=True,
            type=Choice([state.value for state in SelectionState if state is not SelectionState.UNSPECIFIED]),
        ),
        Option("--model ID", "List only selections by this model."),
        Option("--limit N", "List at most this many.", default=50),
        *_LOOK_OPTIONS,
    ],
)
def _list(states: Sequence[str], model: str | None, limit: int, as_json: bool, **connection: Any) -> None:
    """List selections, the latest first."""
    with open_client(connection) as client:
        listed = client.list_selections(states=[SelectionState(state) for state in states], model=model)
        selections = list(itertools.islice(listed, limit))
        if as_json:
            print_json([selection.to_dict() for selection in selections])
        elif selections:
            print(table_text([_row(selection) for selection in selections], right_aligned={"budget", "read"}))
            if next(listed, None) is not None:
                print(f"… and more: --limit shows more than {limit}.")
        else:
            print("No selections.")


@run.command("show", params=[_ID, *_LOOK_OPTIONS])
def _show(selection: str, as_json: bool, **connection: Any) -> None:
    """Show one selection.

    ID is the id of the selection or of its request.
    """
    with open_client(connection) as client:
        _print(client.selection(selection).describe(), as_json=as_json)


@run.command(
    "cancel",
    params=[
        click.Argument(["selections"], metavar="[ID]...", nargs=-1),
        Option(
            "--state",
            "Cancel the selections in this state; repeatable.",
            name="states",
            multiple=True,
            type=Choice([SelectionState.PENDING, SelectionState.RUNNING]),
        ),
        Option("--model ID", "With --state: cancel only selections by this model."),
        Option(
            "--older-than DAYS",
            "With --state: cancel only selections that were requested more than this many days ago.",
            type=click.FloatRange(min=0),
        ),
        *_LOOK_OPTIONS,
    ],
)
def _cancel(
    selections: Sequence[str],
    states: Sequence[str],
    model: str | None,
    older_than: float | None,
    as_json: bool,
    **connection: Any,
) -> None:
    """Cancel selections.

    ID is the id of a selection or of its request. If there is no selection with one of the ids, none is
    cancelled.
    """
    if bool(selections) == bool(states):
        raise click.UsageError("give the IDs of selections, or --state")
    if selections and (model is not None or older_than is not None):
        raise click.UsageError("--model and --older-than require --state")
    with open_client(connection) as client:
        if selections:
            cancelled = [handle.cancel() for handle in [client.selection(id_) for id_ in selections]]
        else:
            now = datetime.datetime.now(datetime.UTC)
            before = None if older_than is None else now - datetime.timedelta(days=older_than)
            found = [SelectionState(state) for state in states]
            cancelled = client.cancel_selections(found, model=model, created_before=before)
    if len(selections) == 1:
        _print(cancelled[0], as_json=as_json)
    elif as_json:
        print_json([selection.to_dict() for selection in cancelled])
    elif cancelled:
        print(table_text([_row(selection) for selection in cancelled], right_aligned={"budget", "read"}))
    else:
        print("No selections.")


@run.command("result", params=[_ID, *RESULT_OPTIONS, *connection_options(timeout=None)])
def _result(selection: str, as_json: bool, out: Path | None, quiet: bool, **connection: Any) -> None:
    """Wait for a selection, and show or write its result.

    ID is the id of the selection or of its request.
    """
    with open_client(connection) as client, shown_progress(quiet=quiet) as progress:
        result = client.selection(selection).result(progress=progress)
    show_result(result, out=out, as_json=as_json, quiet=quiet)


def _print(selection: Selection, *, as_json: bool) -> None:
    if as_json:
        print_json(selection.to_dict())
    else:
        print(_as_text(selection))


def _as_text(selection: Selection) -> str:
    of_all = f" of {selection.progress.total:,}" if selection.progress.total else ""
    queue = selection.progress.queue
    lines = [
        f"selection {selection.id}: {selection.state}{f', {place_text(queue)}' if queue else ''}",
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
        lines.append(f"  picks       {selection.pick_count:,}")
        if unmatched := selection.accounts.excluded_unmatched:
            lines.append(f"  not found   {unmatched:,} of the images to exclude")
        lines.append(accounts_text(selection.accounts))
    return "\n".join(lines)


def _row(selection: Selection) -> dict[str, str]:
    pool = printable(selection.pool_uri) or "(sent)"
    queue = selection.progress.queue
    return {
        "selection": selection.id,
        "state": f"{selection.state} {queue.position}/{queue.length}" if queue else selection.state,
        "strategy": selection.strategy,
        "model": selection.model,
        "budget": f"{selection.budget:,}",
        "read": f"{selection.progress.read:,}",
        "created": minute(selection.create_time),
        "pool": pool if len(pool) <= _POOL_WIDTH else f"…{pool[1 - _POOL_WIDTH :]}",
    }
