"""One seed for all random numbers, the number of parallel workers, and fixtures that all tests share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support import postgresql
from support.postgresql import PostgresCluster

SEED_VARIABLE = "TOPB_TEST_SEED"
# A worker that trains takes up to 1.5 GiB, and the servers that it starts need memory too.
WORKER_BYTES = 2 * 2**30


try:
    from hypothesis import HealthCheck, settings
except ImportError:  # The SDK's tests run without it.
    pass
else:
    # How long an example takes depends on what else the machine does.
    settings.register_profile("topb", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("topb")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Workers inherit the environment, and with it the seed.
    seed = os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(10**6)))
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed
    if hasattr(config, "workerinput"):
        # There is a worker for each core, so further threads would only contend.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header(config: pytest.Config) -> str:
    hypothesis_seed = config.getoption("hypothesis_seed")
    return f"random seeds: {SEED_VARIABLE}={os.environ[SEED_VARIABLE]} --hypothesis-seed={hypothesis_seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # The header may be far above, and -q leaves it out.
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(pytest_report_header(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of cores, or fewer if that many workers would not fit in memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory // WORKER_BYTES))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return a generator seeded with the seed and the test's name, whatever the order of the tests."""
    return random.Random(f"{os.environ[SEED_VARIABLE]} {request.node.nodeid}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    """Start a PostgreSQL cluster; skip if PostgreSQL is not installed."""
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.running_cluster() as running:
        yield running
