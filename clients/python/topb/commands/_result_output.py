"""Show the result of a selection as a table or JSON, and write its picks to a file."""

from __future__ import annotations

import sys
from pathlib import Path

from topb.commands._picks_file import check_picks_file, write_picks
from topb.commands.options import JSON, Option
from topb.commands.output import printable, table_text
from topb.results import Accounts, Pick, SelectionResult

_ROWS_SHOWN = 20
_ID_WIDTH = 48

RESULT_OPTIONS = [
    JSON,
    Option(
        "--out FILE",
        "Write all picks to this .parquet or .csv file.",
        callback=lambda _context, _option, path: path and check_picks_file(path),
    ),
    Option("--quiet -q", "Show neither progress nor a table."),
]


LOW_COVERED_SHARE = 0.5
"""If the picks of `prob_cover` cover a smaller share of the pool, `topb select` warns."""


def show_result(result: SelectionResult, *, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Write the picks to `out`, print JSON or a table, and warn about excluded images that the pool lacks,
    about picks that cover little of the pool, and about a pool that fell short of the budget.

    Args:
        result: The result of the selection.
        out: File for all picks, or None.
        as_json: Whether to print the whole result as JSON.
        quiet: Whether to print no table.
    """
    if out is not None:
        write_picks(result, out)
    if as_json:
        print(result.to_json(indent=2))
    elif not quiet:
        print(_result_text(result, out))
    if result.accounts.excluded_unmatched:
        print(
            "warning: images to exclude that the pool does not have, neither by id nor by content: "
            f"{result.accounts.excluded_unmatched:,}",
            file=sys.stderr,
        )
    covered = result.measures.get("covered_share", 1.0)
    if covered < LOW_COVERED_SHARE:
        print(
            f"warning: the balls around picks and labelled images cover only {100 * covered:.0f} % of the "
            f"pool; set the option radius to more than {result.measures.get('ball_radius', 0.0):.3g}",
            file=sys.stderr,
        )
    if result.fell_short:
        print(
            f"warning: picked {len(result.picks):,} of {result.budget:,} requested images: "
            "the pool has no more images that can be ranked",
            file=sys.stderr,
        )


def accounts_text(accounts: Accounts) -> str:
    """Return the row counts by outcome as text, followed by examples of skipped rows."""
    parts = [f"{accounts.scored:,} scored"]
    if accounts.skipped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in accounts.skipped.items())
        parts.append(f"{sum(accounts.skipped.values()):,} skipped ({reasons})")
    if accounts.duplicate:
        parts.append(f"{accounts.duplicate:,} duplicate")
    if accounts.excluded:
        labelled = f" ({accounts.excluded_labelled:,} of them labelled)" if accounts.excluded_labelled else ""
        parts.append(f"{accounts.excluded:,} excluded{labelled}")
    lines = [f"Of {accounts.read:,} rows read: {', '.join(parts)}."]
    if absent := accounts.labelled_unmatched:
        lines.append(f"Images that the model was trained on and that the pool does not have: {absent:,}.")
    lines += [
        f"  skipped {printable(row.id)}: {row.reason}, {printable(row.detail)}"
        for row in accounts.skipped_examples
    ]
    return "\n".join(lines)


def _result_text(result: SelectionResult, out: Path | None) -> str:
    lines, count = [], len(result.picks)
    if count:
        rows = [_row(pick) for pick in result.picks[:_ROWS_SHOWN]]
        lines.append(table_text(rows, right_aligned={"rank", "score", "probability", "entropy"}))
    if count and out is not None:
        lines.append(f"All {count:,} picks are in {out}.")
    elif count > _ROWS_SHOWN:
        lines.append(f"… and {count - _ROWS_SHOWN:,} more: --out FILE or --json gives them all.")
    picks = f"{count:,} picked" if count else "Nothing picked"
    lines += [
        f"{picks} by {result.strategy} with model {result.model} in {result.elapsed_seconds:.1f} s.",
        _origin_text(result),
        accounts_text(result.accounts),
    ]
    return "\n".join(lines)


def _origin_text(result: SelectionResult) -> str:
    parts = [f"Pool {printable(result.pool)}" if result.pool else "Pool sent by its caller"]
    parts.append(f"seed {result.seed}")
    if result.request_id:
        parts.append(f"request {printable(result.request_id)}")
    return ", ".join(parts) + "."


def _row(pick: Pick) -> dict[str, str]:
    shown_id = printable(pick.id)
    return {
        "rank": str(pick.rank),
        "id": shown_id if len(shown_id) <= _ID_WIDTH else f"{shown_id[: _ID_WIDTH - 1]}…",
        "score": f"{pick.score:.6f}",
        "class": printable(pick.predicted_class_name) or str(pick.predicted_class),
        "probability": f"{pick.probability:.4f}",
        "entropy": f"{pick.entropy:.4f}",
    }
