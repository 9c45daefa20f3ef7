"""Checks the container files and the Kubernetes manifests; exit code 1 if anything is wrong.

Run by `make check`. Uses hadolint and yamllint of the environment that runs it.
"""

import argparse
import sys
from pathlib import Path

from checks import containers, manifests

REPOSITORY = Path(__file__).parent.parent


def problems_of(root: Path) -> list[str]:
    """All that is wrong with the deployment files of the repository at `root`."""
    return [*containers.problems_of(root), *manifests.problems_of(root)]


def main() -> int:
    """Returns the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--root", type=Path, default=REPOSITORY, help="the repository")
    problems = problems_of(arguments.parse_args().root)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
