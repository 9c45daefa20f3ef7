"""Settings as bundles and experiments record them: by the contents of files, not by their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topb_scorer.bundle import ENCODER, sha256_of
from topb_trainer.config import TrainConfig

_DIGITS = 16


def recorded_settings(config: TrainConfig) -> dict[str, Any]:
    """Return all settings as nested JSON values. If encoder or weights are files, their digests are given.

    The same model then has the same id wherever the files of its encoder lie.
    """
    settings = config.as_dict()
    task = settings["task"]
    for name in ("encoder", "weights"):
        if task[name] is not None:
            task[name] = _named_by_contents(task[name])
    return settings


def _named_by_contents(value: str) -> str:
    path = Path(value)
    file = path / ENCODER if path.is_dir() else path
    return f"sha256:{sha256_of(file)[:_DIGITS]}" if file.is_file() else value
