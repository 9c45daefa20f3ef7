"""Derive a seed for each purpose from the one seed of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2^63) for one purpose, such as `derived_seed(seed, "round", 3)`.

    Purposes are independent: drawing more numbers for one never changes the numbers of another.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, device: torch.device | None = None) -> torch.Generator:
    """Return a new random generator for tensors on `device`, which defaults to the CPU."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(seed)


@contextmanager
def reproducible(seed: int, device: torch.device, *, threads: int | None = None) -> Iterator[None]:
    """Seed torch's global generators, from which weights are initialised, and restore them at the end.

    On the CPU, only deterministic kernels run in this context. There, a seed gives the same weights bit for
    bit on the same machine with the same torch version and number of threads. On CUDA, kernels are not
    restricted, and a seed gives similar results.

    Args:
        seed: seed of the global generators.
        device: the device whose generator is seeded in addition to the CPU's.
        threads: number of torch's CPU threads in this context; None leaves it unchanged.
    """
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    previous_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if threads is not None:
            torch.set_num_threads(threads)
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            if threads is not None:
                torch.set_num_threads(previous_threads)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
