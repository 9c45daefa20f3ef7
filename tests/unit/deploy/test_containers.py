"""Breaks a copy of the container files, one thing at a time, and sees the check name it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checks import containers

CPU = "deploy/scorer-cpu.Dockerfile"
GPU = "deploy/scorer-gpu.Dockerfile"
TRAINER = "deploy/trainer.Dockerfile"

Breaker = Callable[[str, str, str], None]


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        # hadolint
        (CPU, "WORKDIR /src", "WORKDIR src", "DL3000"),
        (GPU, "# hadolint ignore=DL3013", "", "DL3013"),
        (TRAINER, "WORKDIR /src", "MAINTAINER nobody", "DL4000"),
        (CPU, "WORKDIR /src", "WORKDIRE /src", "missing whitespace"),
        # Base images
        (CPU, "python:3.12.13-slim-bookworm", "python:3.12-slim", "python:3.12-slim is not pinned"),
        (CPU, "python:3.12.13-slim-bookworm", "python:3.10.19-slim-bookworm", "is not the Python>=3.11"),
        (CPU, "python:3.12.13-slim-bookworm", "python:3.13.7-slim-bookworm", "start from different images"),
        # What it runs as, and how
        (CPU, "USER 10001:10001", "USER 0:0", "USER is 0:0"),
        (CPU, "USER 10001:10001\n", "", "USER is None"),
        (CPU, "HEALTHCHECK --interval", "# HEALTHCHECK --interval", "no HEALTHCHECK"),
        (TRAINER, "HEALTHCHECK NONE", "", "no HEALTHCHECK"),
        (CPU, "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGINT", "STOPSIGNAL is not SIGTERM"),
        (CPU, 'CMD ["serve"', 'CMD ["server"', "expected topb and one of its commands"),
        (CPU, 'ENTRYPOINT ["topb"]', 'ENTRYPOINT ["topb-serve"]', "expected topb and one of its commands"),
        (CPU, "EXPOSE 50051", "EXPOSE 50052", "exposes ['50052'], but its command listens on ['50051']"),
        (CPU, '"localhost:50051"', '"localhost:50052"', "HEALTHCHECK asks port ['50052']"),
        (CPU, "0.0.0.0:50051", "0.0.0.0:50053", "its command listens on ['50053']"),
        # What it keeps
        (CPU, ', "--state", "/state"', "", "--state is [], but its volumes are ['/state']"),
        (GPU, "VOLUME /state\n", "", "its volumes are []"),
        (CPU, "VOLUME /state", "VOLUME /var/state", "its volumes are ['/var/state']"),
        (CPU, "--owner=10001", "--owner=0", "/state is not made for USER 10001:10001"),
        # Extras and versions
        (CPU, "[scorer,", "[scorers,", "pyproject.toml has no extra 'scorers'"),
        (CPU, "[scorer,postgresql]", "", "no pip line installs topb with an extra"),
        (CPU, "[scorer,", "[trainer,", "extra 'trainer' brings torch"),
        (GPU, "[scorer-gpu,", "[scorer,trainer-core,", "extra 'trainer-core' brings torch"),
        (CPU, ",postgresql]", "]", "lacks extra 'postgresql'"),
        ("deploy/constraints.txt", "psycopg==", "psycopg2==", "does not pin psycopg,"),
        ("pyproject.toml", '    "pillow>=11",\n', '    "pillow>=11",\n    "torch>=2",\n', "brings torch"),
        ("pyproject.toml", '"pillow>=11"', '"pillow>=99"', "pins pillow to"),
        ("pyproject.toml", '"pillow>=11"', '"pillow-simd>=9"', "does not pin pillow-simd"),
        ("pyproject.toml", "scorer-gpu = [", "scorer-cuda = [", "pyproject.toml has no extra 'scorer-gpu'"),
        # What is copied
        (CPU, "deploy/healthcheck.py", "deploy/health.py", "COPY deploy/health.py: there is no such file"),
        (".dockerignore", "!deploy/constraints.txt\n", "", "COPY deploy/constraints.txt: .dockerignore"),
        (".dockerignore", "!scorer/topb_scorer\n", "", "COPY scorer: .dockerignore"),
    ],
)
def test_a_broken_container_file_is_told(
    repository: Path, replace: Breaker, file: str, old: str, new: str, problem: str
) -> None:
    replace(file, old, new)
    assert problem in "\n".join(containers.problems_of(repository))


def test_no_container_files_at_all_is_told(repository: Path) -> None:
    for path in (repository / "deploy").glob("*.Dockerfile"):
        path.unlink()
    assert containers.problems_of(repository) == ["deploy: no container file (*.Dockerfile) found"]
