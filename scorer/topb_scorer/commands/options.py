"""Options that several commands take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

DAY_SECONDS = 86400.0


def add_state(parser: argparse.ArgumentParser) -> None:
    """`--state`: the directory that servers keep."""
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="of the servers")


def add_catalog_url(parser: argparse.ArgumentParser) -> None:
    """`--catalog-url`: of a state whose catalog is elsewhere."""
    parser.add_argument(
        "--catalog-url",
        default=os.environ.get("TOPB_CATALOG_URL", ""),
        metavar="URL",
        help="as the servers of this state have it; default: the environment's TOPB_CATALOG_URL",
    )


def not_negative(kind: type[int] | type[float]) -> Callable[[str], float]:
    """An argument's type: a number of that kind, 0 or more."""

    def number(text: str) -> float:
        value = kind(text)
        if not value >= 0:
            raise argparse.ArgumentTypeError(f"{value}; expected 0 or more")
        return value

    return number
