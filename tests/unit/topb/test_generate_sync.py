from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import topb

pytest.importorskip("ruff")

SCRIPT = Path(topb.__path__[0]).parent / "generate_sync.py"


def test_the_blocking_client_is_up_to_date():
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
