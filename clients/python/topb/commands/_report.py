"""What a selection came to, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topb.results import Accounts, Pick, SelectionResult

_ROWS_SHOWN = 20
_ID_WIDTH = 48
_HEADER = ("rank", "id", "score", "class", "probability", "entropy")
_RIGHT_ALIGNED = {"rank", "score", "probability", "entropy"}


def result_text(result: SelectionResult, *, classes: Sequence[str], out: Path | None) -> str:
    """The first picks as a table, where the others are, and the accounts in words.

    Args:
        result: of the selection.
        classes: names by index, empty where they are not known.
        out: the file that holds all picks, None where there is none.
    """
    picks = f"{len(result.picks):,} picked" if result.picks else "Nothing picked"
    paragraphs = [
        f"{picks} by {result.strategy} with model {result.model} in {result.elapsed_seconds:.1f} s.",
        accounts_text(result.accounts),
    ]
    if result.picks:
        rows = [_row(pick, classes) for pick in result.picks[:_ROWS_SHOWN]]
        paragraphs = [
            table_text(_HEADER, rows, right_aligned=_RIGHT_ALIGNED),
            _rest(result, out),
            *paragraphs,
        ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def accounts_text(accounts: Accounts) -> str:
    """The accounts in words: what became of each row of the pool."""
    parts = [f"{accounts.scored:,} scored"]
    if accounts.skipped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in accounts.skipped.items())
        parts.append(f"{sum(accounts.skipped.values()):,} skipped ({reasons})")
    if accounts.duplicate:
        parts.append(f"{accounts.duplicate:,} duplicate")
    if accounts.excluded:
        parts.append(f"{accounts.excluded:,} excluded")
    lines = [f"Of {accounts.read:,} rows read: {', '.join(parts)}."]
    lines += [
        f"  skipped {printable(row.id)}: {row.reason}, {printable(row.detail)}"
        for row in accounts.skipped_examples
    ]
    return "\n".join(lines)


def shortfall_text(result: SelectionResult) -> str:
    """What to say where the pool held fewer images than the budget."""
    return (
        f"warning: {len(result.picks):,} of the {result.budget:,} images asked for were picked: "
        "the pool has no more that can be ranked"
    )


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]], *, right_aligned: set[str]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    aligns = [">" if name in right_aligned else "<" for name in header]
    return "\n".join(
        "  ".join(
            f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True)
        ).rstrip()
        for row in (header, *rows)
    )


def printable(text: str) -> str:
    """The text with whatever would upset a terminal written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _row(pick: Pick, classes: Sequence[str]) -> tuple[str, ...]:
    shown_id = printable(pick.id)
    if len(shown_id) > _ID_WIDTH:
        shown_id = f"{shown_id[: _ID_WIDTH - 1]}…"
    named = pick.predicted_class < len(classes)
    return (
        str(pick.rank),
        shown_id,
        f"{pick.score:.6f}",
        printable(classes[pick.predicted_class]) if named else str(pick.predicted_class),
        f"{pick.probability:.4f}",
        f"{pick.entropy:.4f}",
    )


def _rest(result: SelectionResult, out: Path | None) -> str:
    left = len(result.picks) - _ROWS_SHOWN
    if out is not None:
        return f"All {len(result.picks):,} picks are in {out}."
    return f"… and {left:,} more: --out FILE or --json gives them all." if left > 0 else ""
