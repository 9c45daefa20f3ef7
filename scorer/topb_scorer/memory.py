"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import pyarrow as pa


def give_back() -> None:
    """Give the memory back that the allocators of C and of Arrow keep for later. It takes milliseconds."""
    # Of freed blocks below 32 MiB, glibc may keep several for each thread. Other libraries lack the function.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    pa.default_memory_pool().release_unused()
