"""Progress reaches logs as well as terminals."""

from __future__ import annotations

import pytest

from topb_trainer.runtime import progress


def test_a_log_gets_a_line_at_each_interval_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 1e-9)
    epochs = progress.bar(range(3), "task model", "epoch", show=True)
    for epoch in epochs:
        epochs.set_postfix(refresh=False, loss=f"{epoch:.1f}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" after ")[0] for line in lines] == [
        f"task model: {done} of 3 (epoch)" for done in (1, 2, 3)
    ]
    assert lines[-1].endswith(", loss=2.0")


def test_a_short_loop_writes_nothing_to_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.bar(range(3), "task model", "epoch", show=True)) == [0, 1, 2]
    assert list(progress.bar(range(3), "task model", "epoch", show=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
