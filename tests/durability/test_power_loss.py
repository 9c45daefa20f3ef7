"""Cut the power at the steps on the way to durability: what was acknowledged is still there afterwards.

The catalog lies on another disk, which keeps everything, so that each lost file shows.
"""

from __future__ import annotations

import random
from pathlib import Path

import grpc
import pytest

from support.crashing_server import crashing_server
from support.power_loss import what_survives
from support.raw_selections import PoolCaller, RawResult, StreamCaller
from support.undisturbed import OPTIONS, Data

pytestmark = [pytest.mark.scorer, pytest.mark.slow]

MAX_STEPS = 200


class Machine:
    """A machine with one disk, on which servers run and die."""

    def __init__(self, data: Data, folder: Path, caller: PoolCaller | StreamCaller) -> None:
        self._data = data
        self._folder = folder
        self._caller = caller
        self._losses = 0
        self._disk.mkdir(parents=True)
        self.steps: list[str] = []

    @property
    def _disk(self) -> Path:
        return self._folder / f"disk-{self._losses}"

    @property
    def _record(self) -> Path:
        return self._folder / f"record-{self._losses}"

    def live(self, *, die_at: int = 0) -> RawResult | None:
        """Start a server, call it, and kill it. Return the result, or None if it died before or refused."""
        options = (*OPTIONS, f"--catalog-url=sqlite:///{self._folder / 'catalog.sqlite'}")
        state = self._disk / "state"
        with crashing_server(
            self._data.folder, state, options=options, die_at=die_at, syncs=self._record
        ) as server:
            address = server.address()
            result = None
            if address is not None:
                try:
                    result = self._caller.call(address)
                except grpc.RpcError:
                    server.process.join(1)
            server.kill()
            self.steps = server.steps
            self.died_at = server.last_step
        return result

    def cut_power(self) -> None:
        """Lose all that was not synced."""
        disk, record = self._disk, self._record
        self._losses += 1
        what_survives(disk, record, self._disk)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "stride", [pytest.param(15, id="some"), pytest.param(1, id="every", marks=pytest.mark.kill)]
)
@pytest.mark.parametrize("path", ["read", "streamed"])
def test_what_was_acknowledged_survives_a_power_loss_at_any_step(
    path: str, stride: int, data: Data, tmp_path: Path, rng: random.Random
) -> None:
    for step in range(rng.randint(1, stride), MAX_STEPS, stride):
        machine = Machine(data, tmp_path / str(step), data.caller(path, "one"))
        machine.live(die_at=step)
        died_at = machine.died_at or "the end"
        machine.cut_power()
        again = machine.live()
        assert again is not None, f"the power loss at step {step}, {died_at}, lost the selection"
        data.check(again)
        if died_at == "the end":
            break
    else:
        pytest.fail(f"every one of {MAX_STEPS} steps killed the server")


def test_a_chunk_that_a_second_server_acknowledges_survives_a_power_loss(data: Data, tmp_path: Path) -> None:
    """The first server dies after it has renamed the file of a chunk, and before it has synced the name."""
    caller = data.caller("streamed", "one")
    assert isinstance(caller, StreamCaller)
    undisturbed = Machine(data, tmp_path / "undisturbed", data.caller("streamed", "one"))
    assert undisturbed.live() is not None
    # The first file is the version of the state directory.
    step = [number for number, name in enumerate(undisturbed.steps, 1) if name == "file renamed"][2]
    machine = Machine(data, tmp_path / "machine", caller)
    assert machine.live(die_at=step) is None
    assert (machine.died_at, caller.acknowledged) == ("file renamed", 0)
    caller.chunks, caller.end, chunks = caller.chunks[:2], False, caller.chunks
    assert machine.live() is None
    assert (caller.acknowledged, caller.sent_first[-1]) == (1, 2)
    machine.cut_power()
    caller.chunks, caller.end = chunks, True
    result = machine.live()
    assert result is not None
    data.check(result)
