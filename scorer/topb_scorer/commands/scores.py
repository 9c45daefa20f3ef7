"""`topb scores`: lists, verifies and prunes what servers have scored."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from collections.abc import Sequence
from contextlib import closing

from topb.selections import SelectionState
from topb_scorer.commands.options import DAY_SECONDS, add_catalog_url, add_state, not_negative
from topb_scorer.errors import NotFoundError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.state_directory import check_state, existing_catalog
from topb_scorer.scoring.housekeeping import LogSummary, Pruning, ScoreShelf, ShelvedShard

_OPEN_STATES = [state for state in SelectionState if not state.ended]
_PAGE = 1000


def run(argv: Sequence[str]) -> int:
    """Does what is asked of the scores of a state; 1 where verifying found altered ones.

    Raises:
        NotFoundError: there is no such state.
        UnavailableError: the catalog, which tells what selections still need, cannot be read.
    """
    arguments = _parser().parse_args(argv)
    check_state(arguments.state)
    shelf = ScoreShelf(arguments.state)
    if arguments.action == "list":
        return _list(shelf, arguments)
    if arguments.action == "verify":
        return _verify(shelf, arguments)
    return _prune(shelf, arguments)


def _list(shelf: ScoreShelf, arguments: argparse.Namespace) -> int:
    summaries = shelf.summaries(arguments.model)
    if arguments.json:
        _print_json([dataclasses.asdict(summary) for summary in summaries])
    elif not summaries:
        print("nothing is scored")
    else:
        print("\n".join(_table(summaries)))
    return 0


def _verify(shelf: ScoreShelf, arguments: argparse.Namespace) -> int:
    count = len(shelf.shards(arguments.model))
    altered = list(shelf.altered(arguments.model))
    if arguments.discard:
        for shard in altered:
            shard.path.unlink(missing_ok=True)
    if arguments.json:
        _print_json(
            {
                "shards": count,
                "altered": [_shard_facts(shard) for shard in altered],
                "discarded": arguments.discard,
            }
        )
    else:
        for shard in altered:
            print(f"altered: {shard.path}")
        told = ", discarded: they are scored again when they are needed" if arguments.discard else ""
        print(f"{count} shards, {len(altered)} altered{told if altered else ''}")
    return 1 if altered else 0


def _prune(shelf: ScoreShelf, arguments: argparse.Namespace) -> int:
    age = None if arguments.older_than is None else arguments.older_than * DAY_SECONDS
    with closing(existing_catalog(arguments.state, arguments.catalog_url)) as catalog:
        pruning = shelf.plan_pruning(
            model=arguments.model,
            older_than_seconds=age,
            max_bytes=arguments.max_bytes,
            open_models={record.model for record in _open_selections(catalog)},
            has_ended=lambda selection: _has_ended(catalog, selection),
        )
    size = pruning.bytes
    if not arguments.dry_run:
        pruning.carry_out()
    if arguments.json:
        _print_json(
            {
                "shards": [_shard_facts(shard) for shard in pruning.shards],
                "streams": [stream.name for stream in pruning.streams],
                "leftovers": len(pruning.leftovers),
                "bytes": size,
                "spared": len(pruning.spared),
                "dry_run": arguments.dry_run,
            }
        )
    else:
        print(_told(pruning, size, dry_run=arguments.dry_run))
    return 0


def _has_ended(catalog: SelectionCatalog, selection: str) -> bool:
    try:
        return catalog.get(selection).state.ended
    except NotFoundError:
        return False


def _open_selections(catalog: SelectionCatalog) -> list[SelectionRecord]:
    found: list[SelectionRecord] = []
    while page := catalog.page(_PAGE, before=found[-1].id if found else "", states=_OPEN_STATES):
        found += page
    return found


def _told(pruning: Pruning, size: int, *, dry_run: bool) -> str:
    lines = [
        f"{'would remove' if dry_run else 'removed'} {len(pruning.shards)} shards, "
        f"{len(pruning.streams)} ended streams, {len(pruning.leftovers)} half-written files: "
        f"{_mebibytes(size)}"
    ]
    if pruning.spared:
        models = ", ".join(sorted({shard.model for shard in pruning.spared}))
        lines.append(f"kept {len(pruning.spared)} shards that open selections may need, by {models}")
    return "\n".join(lines)


def _table(summaries: Sequence[LogSummary]) -> list[str]:
    rows = [("model", "shards", "rows", "size", "oldest", "newest")]
    for summary in summaries:
        count = f"{summary.rows}" + (f" ({summary.unreadable} unreadable)" if summary.unreadable else "")
        size, oldest, newest = _mebibytes(summary.bytes), _time(summary.oldest), _time(summary.newest)
        rows.append((summary.log, str(summary.shards), count, size, oldest, newest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _shard_facts(shard: ShelvedShard) -> dict[str, object]:
    return {"log": shard.log, "identity": shard.identity, "bytes": shard.size, "modified": shard.modified}


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="topb scores", description="Look after what servers have scored.")
    actions = parser.add_subparsers(dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    add_state(common)
    common.add_argument("--model", default="", metavar="ID", help="only what this model scored")
    common.add_argument("--json", action="store_true", help="print for a program")
    actions.add_parser("list", parents=[common], help="what is scored, by model")
    verify = actions.add_parser("verify", parents=[common], help="read all and look for altered shards")
    verify.add_argument("--discard", action="store_true", help="remove altered shards, to be scored again")
    prune = actions.add_parser(
        "prune",
        parents=[common],
        help="make room",
        description="Removes shards by model, age and size, streams of selections that have ended, and "
        "half-written files. Nothing that a selection under way may need is removed; what a later one "
        "lacks is scored again.",
    )
    prune.add_argument(
        "--older-than", type=not_negative(float), metavar="DAYS", help="shards older than this"
    )
    prune.add_argument(
        "--max-bytes", type=not_negative(int), metavar="N", help="the oldest shards, until N bytes are left"
    )
    prune.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    add_catalog_url(prune)
    return parser
