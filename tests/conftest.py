"""One seed for everything random, the number of parallel workers, and what several directories share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support import postgresql
from support.postgresql import PostgresCluster

SEED_VARIABLE = "TOPB_TEST_SEED"
# A worker that trains holds up to 1.5 GiB, and the servers that it starts come on top.
WORKER_BYTES = 2 * 2**30


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Workers inherit the environment, and with it the seed.
    seed = os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(10**6)))
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed
    if hasattr(config, "workerinput"):
        # One worker a core: more threads than that would only contend.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header(config: pytest.Config) -> str:
    hypothesis_seed = config.getoption("hypothesis_seed")
    return f"random seeds: {SEED_VARIABLE}={os.environ[SEED_VARIABLE]} --hypothesis-seed={hypothesis_seed}"


def pytest_xdist_auto_num_workers() -> int:
    """One worker a core, and fewer where they would not fit in memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory // WORKER_BYTES))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that depend on the seed and on the test's name, not on the order of the tests."""
    return random.Random(f"{os.environ[SEED_VARIABLE]} {request.node.nodeid}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.running_cluster() as running:
        yield running
