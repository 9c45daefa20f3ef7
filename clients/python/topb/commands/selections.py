"""`topb selections`: the selections that a server keeps, and what came of them."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topb.client import Client
from topb.commands._connection import add_tls_options, open_client
from topb.commands._picks_file import check_picks_file
from topb.commands._progress_line import ProgressLine
from topb.commands._report import accounts_text, printable, table_text
from topb.commands._result_output import classes_at_server, show_result
from topb.progress import Progress
from topb.selections import Selection, SelectionState

_HEADER = ("selection", "state", "strategy", "model", "budget", "read", "created", "pool")
_RIGHT_ALIGNED = {"budget", "read"}
_POOL_WIDTH = 40
_LOOK_SECONDS = 10.0


def run(argv: Sequence[str]) -> int:
    """Lists, shows, cancels, or fetches the result.

    Args:
        argv: the arguments after `topb selections`.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(argv)
    if options.action == "result" and options.out is not None:
        check_picks_file(options.out)
    with open_client(options) as client:
        _ACTIONS[options.action](client, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topb selections", description="Shows the selections of a server, and what came of them."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    listing = _add_action(actions, "list", "list selections, the latest first", timeout=_LOOK_SECONDS)
    listing.add_argument(
        "--state",
        action="append",
        default=[],
        choices=[state.value for state in SelectionState],
        help="only selections in this state; may be given again",
    )
    listing.add_argument("--model", metavar="ID", help="only selections by this model")
    listing.add_argument(
        "--limit", type=int, default=50, metavar="N", help="show at most N (default: %(default)s)"
    )

    showing = _add_action(actions, "show", "show one selection", timeout=_LOOK_SECONDS)
    cancelling = _add_action(actions, "cancel", "stop one selection", timeout=_LOOK_SECONDS)
    fetching = _add_action(
        actions, "result", "wait for a selection, and show or write its result", timeout=None
    )
    for action in (showing, cancelling, fetching):
        action.add_argument("selection", metavar="ID", help="the selection's id, or its request id")
    fetching.add_argument("--out", type=Path, metavar="FILE", help="write all picks to .parquet or .csv")
    fetching.add_argument("--quiet", "-q", action="store_true", help="no progress and no table")
    return parser


def _add_action(
    actions: Any, name: str, description: str, *, timeout: float | None
) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=description, description=description)
    action.add_argument("--server", required=True, metavar="HOST:PORT", help="the server to ask")
    action.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    waits = "none" if timeout is None else f"{timeout:g}"
    action.add_argument(
        "--timeout",
        type=float,
        default=timeout,
        metavar="S",
        help=f"give up after S seconds (default: {waits})",
    )
    add_tls_options(action)
    return action


def _list(client: Client, options: argparse.Namespace) -> None:
    states = [SelectionState(state) for state in options.state]
    listed = client.list_selections(states=states, model=options.model)
    selections = list(itertools.islice(listed, options.limit))
    if options.json:
        print(json.dumps([selection.to_dict() for selection in selections], indent=2, ensure_ascii=False))
    elif selections:
        print(
            table_text(_HEADER, [_row(selection) for selection in selections], right_aligned=_RIGHT_ALIGNED)
        )
        if next(listed, None) is not None:
            print(f"… and more: --limit shows more than {options.limit}.")
    else:
        print("No selections.")


def _show(client: Client, options: argparse.Namespace) -> None:
    _print(client.selection(options.selection).describe(), options)


def _cancel(client: Client, options: argparse.Namespace) -> None:
    _print(client.selection(options.selection).cancel(), options)


def _result(client: Client, options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        progress: Callable[[Progress], None] | None = None
        if sys.stderr.isatty() and not options.quiet:
            progress = stack.enter_context(ProgressLine(sys.stderr))
        result = client.selection(options.selection).result(progress=progress)
    wants_classes = not options.json and not options.quiet
    classes = classes_at_server(client, result.model) if wants_classes else ()
    show_result(result, classes=classes, out=options.out, as_json=options.json, quiet=options.quiet)


_ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace], None]] = {
    "list": _list,
    "show": _show,
    "cancel": _cancel,
    "result": _result,
}


def _print(selection: Selection, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(selection.to_dict(), indent=2, ensure_ascii=False))
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
        f"  created     {_minute(selection.create_time)}",
    ]
    if selection.end_time is not None:
        lines.append(f"  ended       {_minute(selection.end_time)}")
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
        _minute(selection.create_time),
        pool if len(pool) <= _POOL_WIDTH else f"…{pool[1 - _POOL_WIDTH :]}",
    )


def _minute(time: datetime.datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
