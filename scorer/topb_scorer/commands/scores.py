"""`topb scores`: list, verify and prune the scores and features that servers keep."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path

import click

from topb.commands.options import JSON, Group, Option
from topb.commands.output import mebibytes, minute, print_json, table_text
from topb.selections import SelectionState
from topb_scorer.commands.options import CATALOG_OF_STATE, DRY_RUN, STATE, Days
from topb_scorer.errors import NotFoundError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.state_directory import check_state, existing_catalog, was_served
from topb_scorer.scoring.housekeeping import (
    LogSummary,
    Pruning,
    StoredShard,
    plan_pruning,
    stored_shards,
    summaries,
)
from topb_scorer.scoring.shard_log import is_as_committed, shard_identity

_OPEN_STATES = [state for state in SelectionState if not state.ended]
_PAGE = 1000
_COMMON = [
    STATE,
    Option(
        "--model ID",
        "Only the scores of this model, or the features of this encoder.",
        name="log_id",
        default="",
        show_default=False,
    ),
    JSON,
]


@click.group(cls=Group)
def run() -> None:
    """List, verify and prune the scores and features that servers keep."""


@run.command("list", params=[*_COMMON])
def _list(state: Path, log_id: str, as_json: bool) -> None:
    """List the scores by model, and the features by encoder."""
    check_state(state)
    found = summaries(stored_shards(state, log_id))
    if as_json:
        print_json([dataclasses.asdict(summary) for summary in found])
    elif found:
        print(table_text([_row(summary) for summary in found]))
    else:
        print("No scores and no features.")


_DISCARD = Option("--discard", "Delete altered shards; they are computed again when needed.")


@run.command("verify", params=[*_COMMON, _DISCARD])
@click.pass_context
def _verify(context: click.Context, /, state: Path, log_id: str, as_json: bool, discard: bool) -> None:
    """Read all scores and features and report altered shards. The exit code is 1 if there are any."""
    check_state(state)
    shards = stored_shards(state, log_id)
    altered = [shard for shard in shards if not is_as_committed(shard.path)]
    if discard:
        for shard in altered:
            shard.path.unlink(missing_ok=True)
    if as_json:
        print_json(
            {"shards": len(shards), "altered": [_as_dict(shard) for shard in altered], "discarded": discard}
        )
    else:
        for shard in altered:
            print(f"altered: {shard.path}")
        discarded = ", discarded: they are computed again when needed" if altered and discard else ""
        print(f"{len(shards)} shards, {len(altered)} altered{discarded}")
    context.exit(1 if altered else 0)


@run.command(
    "prune",
    params=[
        *_COMMON,
        Option("--older-than DAYS", "Delete shards that were not used for this long.", type=Days()),
        Option(
            "--max-bytes N",
            "Delete the least recently used shards until at most this many bytes are left.",
            type=click.IntRange(min=0),
        ),
        DRY_RUN,
        CATALOG_OF_STATE,
    ],
)
def _prune(
    state: Path,
    log_id: str,
    as_json: bool,
    older_than: float | None,
    max_bytes: int | None,
    dry_run: bool,
    catalog_url: str,
) -> None:
    """Delete scores and features by model or encoder, last use and size.

    Streams of selections that have ended and half-written files are deleted as well. What an open selection
    may need is kept. If a later selection needs deleted scores or features, they are computed again.
    """
    check_state(state)
    with ExitStack() as stack:
        served = was_served(state, catalog_url)
        catalog = stack.enter_context(closing(existing_catalog(state, catalog_url))) if served else None
        pruning = plan_pruning(
            state,
            log_id=log_id,
            older_than_seconds=older_than,
            max_bytes=max_bytes,
            open_models={record.model for record in _open_selections(catalog)} if catalog else set(),
            has_ended=lambda selection: catalog is not None and _has_ended(catalog, selection),
        )
    size = pruning.bytes
    if not dry_run:
        pruning.carry_out()
    if as_json:
        print_json(
            {
                "shards": [_as_dict(shard) for shard in pruning.shards],
                "streams": [stream.name for stream in pruning.streams],
                "leftovers": len(pruning.leftovers),
                "bytes": size,
                "spared": len(pruning.spared),
                "dry_run": dry_run,
            }
        )
    else:
        print(_as_text(pruning, size, dry_run=dry_run))


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


def _as_text(pruning: Pruning, size: int, *, dry_run: bool) -> str:
    lines = [
        f"{'would delete' if dry_run else 'deleted'} {len(pruning.shards)} shards, "
        f"{len(pruning.streams)} ended streams, {len(pruning.leftovers)} half-written files: "
        f"{mebibytes(size)}"
    ]
    if pruning.spared:
        logs = ", ".join(sorted({shard.log for shard in pruning.spared}))
        lines.append(f"kept {len(pruning.spared)} shards of {logs} that open selections may need")
    return "\n".join(lines)


def _row(summary: LogSummary) -> dict[str, str]:
    unreadable = f" ({summary.unreadable} unreadable)" if summary.unreadable else ""
    return {
        "kind": summary.kind,
        "model or encoder": summary.log,
        "shards": str(summary.shards),
        "rows": f"{summary.rows}{unreadable}",
        "size": mebibytes(summary.bytes),
        "first used": minute(summary.first_used),
        "last used": minute(summary.last_used),
    }


def _as_dict(shard: StoredShard) -> dict[str, object]:
    return {
        "kind": shard.kind,
        "log": shard.log,
        "identity": shard_identity(shard.path),
        "bytes": shard.size,
        "used": shard.used,
    }
