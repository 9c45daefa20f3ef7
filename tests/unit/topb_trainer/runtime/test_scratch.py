"""Temporary directories are removed, also those of killed processes, but never those of running ones."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from topb_trainer.runtime.scratch import scratch_directory

HOLD = (
    "from topb_trainer.runtime.scratch import scratch_directory\n"
    "with scratch_directory('topb-test-') as directory:\n"
    "    (directory / 'images').touch()\n"
    "    print(directory, flush=True)\n"
    "    input()"
)


def test_only_the_directory_of_a_killed_process_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with scratch_directory("topb-test-") as directory:
            assert {*tmp_path.iterdir()} == {held, directory}
        process.kill()
    assert held.exists()
    with scratch_directory("topb-test-") as directory:
        assert [*tmp_path.iterdir()] == [directory]
    assert not [*tmp_path.iterdir()]
