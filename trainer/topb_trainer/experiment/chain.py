"""Check that the records of a method and seed continue each other from round to round."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb_trainer.errors import InvalidDataError
from topb_trainer.experiment.records import Record


def ids_sha256(ids: Sequence[str]) -> str:
    """Return the digest of ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def labelled_sha256(ids: Sequence[str], labelled: NDArray[np.int64]) -> str:
    """Return the digest of a labelled set, whatever its order.

    Args:
        ids: the ids of all training images.
        labelled: int64 (N), the labelled rows.
    """
    return ids_sha256(sorted(ids[row] for row in labelled.tolist()))


def require_continues(record: Record, labelled: NDArray[np.int64], ids: Sequence[str], file: Path) -> None:
    """Require that a record belongs to a labelled set, and that its picks are the rows that were picked.

    Args:
        record: the record.
        labelled: int64 (N), the rows that are labelled in its round.
        ids: the ids of all training images.
        file: the file of the record.

    Raises:
        InvalidDataError: the record was made from other labelled images, or was altered.
    """
    if record.labelled_sha256 != labelled_sha256(ids, labelled):
        wrong = "was made from other labelled images than those that the rounds before it lead to"
    elif not set(record.picked) <= set(range(len(ids))) - set(labelled.tolist()):
        wrong = "has picks that are labelled already or are not in the training set"
    elif record.picked_sha256 != ids_sha256([ids[row] for row in record.picked]):
        wrong = "has picks that do not match their digest"
    else:
        return
    raise InvalidDataError(
        f"{file} {wrong}; delete it and the later rounds beside it, and run the experiment again to repeat "
        "them",
        reason="RECORD_MISPLACED",
    )


def require_chains(records: Sequence[Record]) -> None:
    """Require what can be seen without the data: every record has the record before it, and follows from it.

    All methods start from the same labelled images in each seed.

    Args:
        records: records of one experiment, ordered by method, seed and round.

    Raises:
        InvalidDataError: a record is missing, or does not follow from the record before it.
    """
    initial: dict[int, Record] = {}
    for record in records:
        if record.round == 0:
            first = initial.setdefault(record.seed, record)
            if record.labelled_sha256 != first.labelled_sha256:
                raise _broken(record, f"starts from other labelled images than {first.method}")
    rounds = {record.key: record for record in records}
    for record in records:
        before = rounds.get((record.method, record.seed, record.round - 1))
        if record.round and before is None:
            raise _broken(record, "has no record of the round before it")
        if before is not None and record.labelled != before.labelled + len(before.picked):
            raise _broken(
                record,
                f"has {record.labelled} labelled images, but the round before it leads to "
                f"{before.labelled + len(before.picked)}",
            )


def _broken(record: Record, what: str) -> InvalidDataError:
    return InvalidDataError(
        f"round {record.round} of {record.method} with seed {record.seed} {what}; "
        "report the complete records of one experiment",
        reason="RECORD_MISPLACED",
    )
