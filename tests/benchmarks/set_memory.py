"""Measure the memory that a set-based selection takes, against what it counts and against its limit.

    python tests/benchmarks/set_memory.py --out docs/results/set_memory.json

Selects 100 of 500,000 rows of a made-up log. Each case runs in a new process, which has selected from a small
log before. `grown` is how much the peak of its resident memory grew, in bytes. This includes one part of the
log, the excluded ids that were found, and what the allocators keep. `counted` is what the selection counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from measuring import argument_parser, in_a_process, machine, peak_memory, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.made_up_logs import made_up_features, made_up_scores
from topb_scorer.cancellation import never_cancelled
from topb_scorer.errors import LimitExceededError
from topb_scorer.selecting.set_based import select_set_based
from topb_scorer.selecting.set_memory import SetMemory
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy

ROWS = 500_000
PART = 10_000
CLASSES = 10
CASES = [
    # strategy, features, excluded rows, limit in MiB (0 for none)
    ("core_set", 4, 0, 0),
    ("core_set", 64, 0, 0),
    ("core_set", 64, 250_000, 0),
    ("badge", 64, 250_000, 0),
    ("core_set", 4, 0, 2),
    ("core_set", 4, 0, 16),
]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        strategy, *numbers = arguments.child
        print(json.dumps(measure(strategy, *map(int, numbers))))
        return
    cases = [in_a_process("--child", *map(str, case)) for case in CASES]
    write_json(arguments.out, {"machine": machine(), "rows": ROWS, "cases": cases})


def measure(strategy: str, width: int, excluded: int, limit_mib: int) -> dict[str, Any]:
    """Return the growth of this process's memory, what the selection counts, and whether it was refused."""
    exclude = {f"{i:07d}": b"" for i in range(excluded)}
    spec = SelectionSpec(100, strategy, exclude=exclude)
    case = {"strategy": strategy, "features": width, "excluded": excluded, "limit_mib": limit_mib or None}
    # A small selection first loads all code and buffers.
    select(SelectionSpec(100, strategy), width, 4 * PART, 2**40)
    before = peak_memory()
    Recorded.seen.clear()
    refused = not select(spec, width, ROWS, limit_mib * 2**20 or 2**40)
    case |= {"refused": refused, "grown": peak_memory() - before, "counted": max(Recorded.seen)}
    print(case, file=sys.stderr)
    return case


class Recorded(SetMemory):
    """Keeps what was counted."""

    seen: ClassVar[list[int]] = []

    def needed(self, candidates: int, labelled: int, column_bytes: int) -> int:
        """Return the memory in bytes."""
        self.seen.append(super().needed(candidates, labelled, column_bytes))
        return self.seen[-1]


def select(spec: SelectionSpec, width: int, rows: int, limit: int) -> bool:
    """Return whether the selection was made, and not refused."""
    strategy = spec.query_strategy
    assert isinstance(strategy, SetBasedStrategy)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            select_set_based(
                strategy,
                spec,
                made_up_scores(rows, part=PART),
                made_up_features(width=width, classes=CLASSES, part=PART),
                {},
                np.zeros((0, width), np.float32),
                memory=Recorded(strategy, spec, width, CLASSES, 0, limit),
                rows=rows,
                scratch=Path(scratch),
                search_device="cpu",
                check=never_cancelled,
            )
        except LimitExceededError:
            return False
    return True


if __name__ == "__main__":
    main()
