"""Runs the linters that lie beside the interpreter."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def findings_of(tool: str, arguments: Sequence[str], *, directory: Path) -> list[str]:
    """What a linter printed if it failed, a line each; nothing if it was content."""
    program = Path(sys.executable).parent / tool
    run = subprocess.run(
        [str(program), *arguments], cwd=directory, capture_output=True, text=True, check=False, timeout=60
    )
    if run.returncode == 0:
        return []
    printed = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    return printed or [f"{tool} failed with exit code {run.returncode} and no word"]
