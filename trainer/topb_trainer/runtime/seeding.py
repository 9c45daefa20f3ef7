"""Seeds: one for a run, one derived from it for each purpose, and no global state left changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Returns a seed in [0, 2^63) for one purpose, such as `derived_seed(seed, "task", round)`.

    What one purpose draws never shifts what another does.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, device: torch.device | None = None) -> torch.Generator:
    """Returns a fresh random generator for tensors on `device` (the CPU by default)."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(seed)


@contextmanager
def reproducible(seed: int, device: torch.device, *, threads: int | None = None) -> Iterator[None]:
    """Seeds torch's global generators, as weight initialisation draws from them; restores all on leaving.

    `threads` limits torch's on the CPU meanwhile; None leaves them as they are.
    On the CPU only deterministic kernels run inside, so a seed gives the same weights bit for bit on the same
    machine, torch version and thread count. On CUDA kernels are left free: a seed gives like results there.
    """
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    had_threads = torch.get_num_threads()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
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
                torch.set_num_threads(had_threads)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
