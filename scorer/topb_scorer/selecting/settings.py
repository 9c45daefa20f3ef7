"""Define the settings for selecting from a score log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SelectingSettings:
    """The memory limit and the device for selecting. They do not change which rows are picked."""

    search_device: str = "cpu"
    """The device on which FAISS searches for labelled neighbours for core_set: `cpu` or `cuda:<index>`."""
    max_set_bytes: int = 4 * 2**30
    """The maximum memory of a set-based selection in bytes: features, probabilities, ids and accounts of the
    candidates, the features of labelled and excluded images, and what the strategy holds for each of them. A
    selection that needs more is refused. The shard that is being read and buffers of constant size, together
    a few hundred MiB, are not counted."""
