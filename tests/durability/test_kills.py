"""Servers killed with SIGKILL, at each publication step and at random moments: the result is always the same.

`TOPB_KILLS=100` kills at every step and at 100 random moments a path; by default it is a few of each.
`TOPB_KILLS_REPORT` names a file to which one line a kill is added.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from support.crashing_server import CrashingServer, Sabotage, crashing_server
from support.raw_selections import PoolCaller, RawResult, StreamCaller
from support.undisturbed import OPTIONS, SHARDS, Data

pytestmark = [pytest.mark.scorer, pytest.mark.kill]

KILLS = int(os.environ.get("TOPB_KILLS", "3"))
EVERY_STEP = "TOPB_KILLS" in os.environ
MOST_STEPS = 200
BATCH_SECONDS = 0.02


def committed(state: Path) -> set[str]:
    """The shards in the score logs of a state, by the names of their files."""
    files = [*state.glob("scores/*/*/*.parquet"), *state.glob("streams/*/*/*.parquet")]
    return {file.name.rpartition("-")[0] for file in files if not file.name.startswith(".")}


class Lives:
    """The servers that one selection sees, one after the other, on one state."""

    def __init__(self, data: Data, state: Path, caller: PoolCaller | StreamCaller) -> None:
        self._data = data
        self._state = state
        self._caller = caller
        self.killed_at = ""
        self.call_seconds = 0.0

    def live(self, *, die_at: int = 0, die_after: float | None = None) -> RawResult | None:
        """One more server: the result, or None where it died before."""
        before = committed(self._state)
        sabotage = Sabotage(die_at, BATCH_SECONDS)
        with crashing_server(
            self._data.models, self._data.folder, self._state, options=OPTIONS, sabotage=sabotage
        ) as server:
            result = self._ask(server, die_after)
            scored = server.scored
            assert not before & set(scored), "a committed shard was scored again"
            assert len(set(scored)) == len(scored), "a shard was scored twice by one server"
            self.killed_at = server.last_step
            if not die_at and die_after is None:
                assert result is not None, server.log
        return result

    def _ask(self, server: CrashingServer, die_after: float | None) -> RawResult | None:
        address = server.address()
        if address is None:
            return None
        killer = threading.Timer(die_after, server.kill) if die_after is not None else None
        if killer is not None:
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
            if killer is not None:
                killer.cancel()
                killer.join()


def report(line: str) -> None:
    if "TOPB_KILLS_REPORT" in os.environ:
        with Path(os.environ["TOPB_KILLS_REPORT"]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def steps() -> Iterator[int]:
    """All of them, or every eleventh from a random one on."""
    return iter(range(1, MOST_STEPS) if EVERY_STEP else range(random.randint(1, 11), MOST_STEPS, 11))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", ["read", "streamed"])
def test_a_server_killed_at_any_publication_step_costs_nothing_but_time(
    path: str, data: Data, tmp_path: Path
) -> None:
    for step in steps():
        state = tmp_path / f"state-{step}"
        lives = Lives(data, state, data.caller(path, "one"))
        result = lives.live(die_at=step)
        step_name = lives.killed_at
        again = lives.live()
        assert again is not None
        data.check(again)
        check_left_behind(state, path)
        if result is not None:
            data.check(result)
            if not step_name:
                assert step > 6 * SHARDS
                break
        report(f"{path}\tstep {step}\t{step_name}")
    else:
        pytest.fail(f"no run was undisturbed after {MOST_STEPS} steps")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", ["read", "streamed"])
def test_servers_killed_at_random_moments_cost_nothing_but_time(
    path: str, data: Data, tmp_path: Path
) -> None:
    rng = random.Random(7)
    undisturbed = Lives(data, tmp_path / "undisturbed", data.caller(path, "undisturbed"))
    assert undisturbed.live() is not None
    kills = 0
    for selection in itertools.count():
        if kills >= KILLS:
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
                kills += 1
                report(f"{path}\trandom moment {die_after:.3f} s")
        data.check(result)
        again = lives.live()
        assert again is not None
        data.check(again)
        check_left_behind(state, path)


def check_left_behind(state: Path, path: str) -> None:
    """One file a shard, one result; half-written files bear a name of their own."""
    shards = list((state / "scores").glob("*/*/*.parquet")) if (state / "scores").is_dir() else []
    published = [file for file in shards if not file.name.startswith(".unpublished-")]
    assert len(published) == (SHARDS if path == "read" else 0)
    assert len([file for file in (state / "results").iterdir() if not file.name.startswith(".")]) == 1
