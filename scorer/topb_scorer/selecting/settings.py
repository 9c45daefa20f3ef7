"""What an operator decides about selecting from a score log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SelectingSettings:
    """Memory and devices of selecting. None of it changes which rows are picked."""

    search_device: str = "cpu"
    """Where FAISS searches for labelled neighbours, from which core_set starts: `cpu` or `cuda:<index>`."""
    max_set_bytes: int = 4 * 2**30
    """Limit of the features and probabilities that a set-based strategy holds in memory. A selection that
    needs more is refused."""
