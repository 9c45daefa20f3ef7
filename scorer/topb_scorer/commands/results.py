"""`topb results`: delete selections that ended long ago, with their results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from topb.commands.options import JSON, Group, Option
from topb.commands.output import mebibytes, print_json
from topb_scorer.commands.options import CATALOG_OF_STATE, DRY_RUN, STATE, Days
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.selection_files import SelectionFiles
from topb_scorer.jobs.state_directory import (
    check_state,
    existing_catalog,
    remove_stream,
    requests_of,
    results_of,
)

_PAGE = 500
# Younger files without a selection are kept, because an operator may be restoring the catalog.
_ORPHAN_SECONDS = 3600.0


@click.group(cls=Group)
def run() -> None:
    """Delete selections that ended long ago, with their results."""


_OLDER_THAN = Option(
    "--older-than DAYS", "Delete selections that ended longer ago than this.", type=Days(), required=True
)


@run.command("prune", params=[STATE, _OLDER_THAN, DRY_RUN, JSON, CATALOG_OF_STATE])
def _prune(state: Path, older_than: float, dry_run: bool, as_json: bool, catalog_url: str) -> None:
    """Delete selections that ended long ago, with their results and requests.

    A later request with the request id of a deleted selection starts a new selection. Scores are kept; delete
    them with topb scores prune.
    """
    check_state(state)
    moment = time.time() - older_than
    forgotten = size = 0
    with closing(existing_catalog(state, catalog_url)) as catalog:
        results, requests = results_of(state), requests_of(state)
        for ids in _pages(catalog, moment):
            size += _size(results, ids) + _size(requests, ids)
            forgotten += len(ids) if dry_run else _forget(catalog, state, ids)
        oldest_kept = min(moment, time.time() - _ORPHAN_SECONDS)
        orphans, orphan_requests = (_orphans(catalog, files, oldest_kept) for files in (results, requests))
    size += _size(results, orphans) + _size(requests, orphan_requests)
    if not dry_run:
        _remove(results, orphans)
        _remove(requests, orphan_requests)
    if as_json:
        counts = {"selections": forgotten, "orphans": len(orphans), "orphan_requests": len(orphan_requests)}
        print_json({**counts, "bytes": size, "dry_run": dry_run})
    else:
        deleted = (
            f"{forgotten} selections, {len(orphan_requests)} requests without one and "
            f"{len(orphans)} results without one: {mebibytes(size)}"
        )
        print(f"{'would delete' if dry_run else 'deleted'} {deleted}")


def _pages(catalog: SelectionCatalog, moment: float) -> Iterator[list[str]]:
    """Yield pages of the ids of selections that ended before `moment`. The caller may delete each page."""
    after = ""
    while page := catalog.ended_before(moment, _PAGE, after=after):
        yield [record.id for record in page]
        after = page[-1].id


def _forget(catalog: SelectionCatalog, state: Path, ids: Sequence[str]) -> int:
    # Delete from the catalog first. If the process dies in between, files without a selection remain, and the
    # next run removes them. In the other order, selections without files would remain.
    forgotten = catalog.forget(ids)
    _remove(results_of(state), ids)
    _remove(requests_of(state), ids)
    for id_ in ids:
        remove_stream(state, id_)
    return forgotten


def _size(files: SelectionFiles, ids: Sequence[str]) -> int:
    return sum(files.size(id_) for id_ in ids)


def _remove(files: SelectionFiles, ids: Sequence[str]) -> None:
    for id_ in ids:
        files.remove(id_)


def _orphans(catalog: SelectionCatalog, files: SelectionFiles, moment: float) -> list[str]:
    """Return the ids of files that were written before `moment` and have no selection in the catalog."""
    written = files.written_before(moment)
    pages = (written[start : start + _PAGE] for start in range(0, len(written), _PAGE))
    return [id_ for page in pages for id_ in sorted(set(page) - catalog.known(page))]
