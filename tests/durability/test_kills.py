"""Kill servers with SIGKILL on the way to durability and at random moments: the result is always the same.

`pytest -m kill` kills at every step and at `TOPB_KILLS` (100) random moments per path; otherwise it is a few.
`TOPB_KILLS_REPORT` names a file to which a line is added for each kill.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from pathlib import Path

import grpc
import pytest

from support.crashing_server import CrashingServer, crashing_server
from support.raw_selections import PoolCaller, RawResult, StreamCaller
from support.undisturbed import OPTIONS, SHARDS, Data, committed
from topb_scorer.durable import is_unpublished

pytestmark = [pytest.mark.scorer, pytest.mark.slow]

MANY_KILLS = int(os.environ.get("TOPB_KILLS", "100"))
MAX_STEPS = 200
BATCH_SECONDS = 0.02
FILE_STEPS = {"created", "half written", "written", "synced", "renamed"}
# A kill at a step that the server no longer announces would go untested.
STEPS = {"shard scored", "directory created", "directory synced", *(f"file {step}" for step in FILE_STEPS)}
STEPS |= {f"{when} {change}" for when in ("before", "after") for change in ("create", "claim", "succeed")}
STREAM_STEPS = {f"directory {step}" for step in ("removal begins", "half removed", "removed")}
STREAM_STEPS |= {"before complete_stream", "after complete_stream"}


class Lives:
    """The servers that run one selection, one after the other, on the same state directory."""

    def __init__(self, data: Data, state: Path, caller: PoolCaller | StreamCaller) -> None:
        self._data = data
        self._state = state
        self._caller = caller
        self.killed_at = ""
        self.scored: list[str] = []
        self.steps: set[str] = set()
        self.call_seconds = 0.0

    def live(self, *, die_at: int = 0, die_after: float | None = None) -> RawResult | None:
        """Start one more server and return the result, or None if it died before."""
        before = set(committed(self._state))
        with crashing_server(
            self._data.folder, self._state, options=OPTIONS, die_at=die_at, batch_seconds=BATCH_SECONDS
        ) as server:
            result = self._ask(server, die_after)
            scored = server.scored
            assert not before & set(scored), "a committed shard was scored again"
            assert len(set(scored)) == len(scored), "a shard was scored twice by one server"
            self.scored += scored
            self.steps |= set(server.steps)
            self.killed_at = server.last_step
            if not die_at and die_after is None:
                assert result is not None, server.log
        return result

    def _ask(self, server: CrashingServer, die_after: float | None) -> RawResult | None:
        address = server.address()
        if address is None:
            return None
        killer = threading.Timer(threading.TIMEOUT_MAX if die_after is None else die_after, server.kill)
        killer.start()
        started = time.monotonic()
        try:
            return self._caller.call(address)
        except grpc.RpcError:
            server.process.join(5)
            assert not server.process.is_alive(), server.log
            return None
        finally:
            self.call_seconds = time.monotonic() - started
            killer.cancel()
            killer.join()


def report(line: str) -> None:
    if "TOPB_KILLS_REPORT" in os.environ:
        with Path(os.environ["TOPB_KILLS_REPORT"]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


PATHS = pytest.mark.parametrize("path", ["read", "streamed"])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "stride", [pytest.param(11, id="some"), pytest.param(1, id="every", marks=pytest.mark.kill)]
)
@PATHS
def test_a_server_killed_at_any_step_costs_nothing_but_time(
    path: str, stride: int, data: Data, tmp_path: Path, rng: random.Random
) -> None:
    for step in range(rng.randint(1, stride), MAX_STEPS, stride):
        state = tmp_path / f"state-{step}"
        lives = Lives(data, state, data.caller(path, "one"))
        result = lives.live(die_at=step)
        step_name = lives.killed_at
        check_continued(lives, state, path, data)
        if result is not None:
            data.check(result)
            if not step_name:
                assert lives.steps >= (STEPS | {"shard encoded"} if path == "read" else STEPS | STREAM_STEPS)
                break
        report(f"{path}\tstep {step}\t{step_name}")
    else:
        pytest.fail(f"every one of {MAX_STEPS} steps killed the server")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kills", [pytest.param(3, id="few"), pytest.param(MANY_KILLS, id="many", marks=pytest.mark.kill)]
)
@PATHS
def test_servers_killed_at_random_moments_cost_nothing_but_time(
    path: str, kills: int, data: Data, tmp_path: Path, rng: random.Random
) -> None:
    undisturbed = Lives(data, tmp_path / "undisturbed", data.caller(path, "undisturbed"))
    assert undisturbed.live() is not None
    killed = 0
    for selection in itertools.count():
        if killed >= kills:
            break
        state = tmp_path / f"state-{selection}"
        lives = Lives(data, state, data.caller(path, "one"))
        result, first = None, True
        # Half of the selections lose a second server, a quarter a third one.
        while result is None:
            die_after = rng.uniform(0, undisturbed.call_seconds)
            result = lives.live(die_after=die_after if first or rng.random() < 0.5 else None)
            first = False
            if result is None:
                killed += 1
                report(f"{path}\trandom moment {die_after:.3f} s")
        data.check(result)
        check_continued(lives, state, path, data)


def check_continued(lives: Lives, state: Path, path: str, data: Data) -> None:
    """Another server gives the undisturbed result, and each shard and result is there once."""
    again = lives.live()
    assert again is not None
    data.check(again)
    assert len(set(lives.scored)) == SHARDS
    shards = committed(state)
    assert set(shards.values()) <= {1}
    # A server that dies after a stream has succeeded may leave its log, which `topb scores prune` removes.
    assert path == "streamed" or len(shards) == SHARDS
    assert sorted(committed(state, "features").values()) == [1] * (SHARDS if path == "read" else 0)
    assert path == "read" or not (state / "scores").exists()
    assert len([file for file in (state / "results").iterdir() if not is_unpublished(file)]) == 1
