"""The check as `make check` runs it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def test_the_repository_passes_and_prints_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "deploy/check.py"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_problem_is_printed_and_the_exit_code_is_1(
    repository: Path, replace: Callable[[str, str, str], None]
) -> None:
    replace("deploy/scorer-cpu.Dockerfile", "USER 10001:10001", "USER topb")
    replace("deploy/kubernetes/base/service.yaml", "targetPort: grpc", "targetPort: http")
    run = subprocess.run(
        [sys.executable, str(repository / "deploy/check.py")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "deploy/scorer-cpu.Dockerfile: USER is topb" in run.stderr
    assert "deploy/kubernetes/base: Service/topb-scorer: it names port http" in run.stderr
