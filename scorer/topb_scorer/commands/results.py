"""`topb results`: forgets selections that have ended long ago, with their results."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from topb_scorer.commands.options import DAY_SECONDS, add_catalog_url, add_state, not_negative
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.results import ResultStore
from topb_scorer.jobs.state_directory import check_state, existing_catalog, remove_stream, results_of

_PAGE = 500
# A result without a selection is left alone that long: somebody may be restoring the catalog.
_ORPHAN_SECONDS = 3600.0


def run(argv: Sequence[str]) -> int:
    """Forgets what is asked for; 0.

    Raises:
        NotFoundError: there is no such state, or it has no catalog.
        UnavailableError: the catalog cannot be reached.
    """
    arguments = _parser().parse_args(argv)
    check_state(arguments.state)
    moment = time.time() - arguments.older_than * DAY_SECONDS
    forgotten = size = 0
    with closing(existing_catalog(arguments.state, arguments.catalog_url)) as catalog:
        results = results_of(arguments.state)
        for ids in _pages(catalog, moment):
            size += sum(results.size(id_) for id_ in ids)
            forgotten += len(ids) if arguments.dry_run else _forget(catalog, arguments.state, ids)
        orphans = _orphans(catalog, results, min(moment, time.time() - _ORPHAN_SECONDS))
    size += sum(results.size(id_) for id_ in orphans)
    if not arguments.dry_run:
        for id_ in orphans:
            results.remove(id_)
    if arguments.json:
        facts = {"selections": forgotten, "orphans": len(orphans), "bytes": size}
        print(json.dumps({**facts, "dry_run": arguments.dry_run}, indent=1))
    else:
        told = "would forget" if arguments.dry_run else "forgot"
        print(f"{told} {forgotten} selections, {len(orphans)} results of none: {size / 2**20:.1f} MiB")
    return 0


def _pages(catalog: SelectionCatalog, moment: float) -> Iterator[list[str]]:
    """The ids of selections that ended before then, page by page, also while they go."""
    after = ""
    while page := catalog.ended_before(moment, _PAGE, after=after):
        yield [record.id for record in page]
        after = page[-1].id


def _forget(catalog: SelectionCatalog, state: Path, ids: Sequence[str]) -> int:
    # In this order: cut off in between, a result is left that no selection leads to, and the next run removes
    # it; the other way round a selection would be left that has lost its result.
    forgotten = catalog.forget(ids)
    results = results_of(state)
    for id_ in ids:
        results.remove(id_)
        remove_stream(state, id_)
    return forgotten


def _orphans(catalog: SelectionCatalog, results: ResultStore, moment: float) -> list[str]:
    """Results written before then, of no selection."""
    written = results.written_before(moment)
    pages = (written[start : start + _PAGE] for start in range(0, len(written), _PAGE))
    return [id_ for page in pages for id_ in sorted(set(page) - catalog.known(page))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="topb results", description="Look after results of selections.")
    actions = parser.add_subparsers(dest="action", required=True)
    prune = actions.add_parser(
        "prune",
        help="forget selections that ended long ago",
        description="Forgets selections that ended long ago, with their results. A request under the request "
        "id of one of them is a new selection then. Scores stay: see topb scores prune.",
    )
    add_state(prune)
    prune.add_argument(
        "--older-than",
        type=not_negative(float),
        required=True,
        metavar="DAYS",
        help="those that ended longer ago than this",
    )
    prune.add_argument("--dry-run", action="store_true", help="only tell what would go")
    prune.add_argument("--json", action="store_true", help="print for a program")
    add_catalog_url(prune)
    return parser
