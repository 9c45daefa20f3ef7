"""How far each row of the pool is, at most, from the nearest labelled row: where k-center greedy starts.

Greedy needs the farthest points' distances exactly, and of everyone else only that they are not the farthest.
So any near labelled row will do, and FAISS finds one. On the CPU the labelled rows are put into an inverted
file, √L lists of √L rows, and each row of the pool is held against the nearest two lists: some 3√L distances
instead of L. On features of CIFAR-10, a tenth of it labelled, one row in eight has to be held against all of
the labelled rows after that, to pick a twentieth of the pool. A GPU holds each row against all of them.

Whatever is found, and with whatever rounding: what counts is the distance to it, computed anew in float64. So
the device changes how long it takes, and no pick.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np

from topb_scorer.errors import DeviceError
from topb_scorer.geometry.euclidean import ROWS_AT_ONCE, Doubles, Features, Frame, Indices, squared_distances

_FEWEST = 256
"""Labelled rows under which one matrix product is as fast."""
_LISTS_PROBED = 2
_ITERATIONS = 4
_SEARCHED_TOGETHER = 16 * ROWS_AT_ONCE

Search = Callable[[Features], Indices]
"""Finds for each of float32 (n, D) rows a labelled row that is near, int64 (n,), or −1."""


def check_search_device(device: str) -> None:
    """Returns if FAISS can search on the device.

    Raises:
        DeviceError: with reason DEVICE_UNKNOWN or DEVICE_UNAVAILABLE.
    """
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index.isdecimal() or not index):
        raise DeviceError(
            f"{device!r} is no device; expected cpu, cuda or cuda:<index>",
            reason="DEVICE_UNKNOWN",
            device=device,
        )
    if _gpu(device) >= faiss.get_num_gpus():
        raise DeviceError(
            f"{device} was asked for, but FAISS sees {faiss.get_num_gpus()} GPUs; install faiss-gpu-cu12 in "
            "place of faiss-cpu, check the driver, or search on the cpu",
            reason="DEVICE_UNAVAILABLE",
            device=device,
        )


def upper_bounds(pool: Features, labelled: Features, frame: Frame, *, device: str = "cpu") -> Doubles:
    """Returns float64 (N,): no row of `pool` is farther from its nearest labelled row, squared Euclidean
    distance.

    A bound may be infinite; all are where there is little to gain, or where float32 would overflow.

    Args:
        pool: float32 (N, D).
        labelled: float32 (L, D).
        frame: tells how large the features are.
        device: where to search, `cpu` or `cuda:<index>`.
    """
    bounds = np.full(len(pool), np.inf)
    if len(labelled) < _FEWEST or not 2.0**-40 < frame.scale < 2.0**40:
        return bounds
    search = searcher(np.ascontiguousarray(labelled), device)
    for first in range(0, len(pool), _SEARCHED_TOGETHER):
        found = search(np.ascontiguousarray(pool[first : first + _SEARCHED_TOGETHER]))
        for start in range(0, len(found), ROWS_AT_ONCE):
            near = found[start : start + ROWS_AT_ONCE]
            rows = np.flatnonzero(near >= 0) + first + start
            bounds[rows] = squared_distances(pool[rows], labelled[near[near >= 0]])
    return bounds


def searcher(labelled: Features, device: str) -> Search:
    """Returns what finds labelled rows, float32 (L, D), on the device."""
    index = _inverted_file(labelled) if device == "cpu" else _on_gpu(labelled, _gpu(device))

    def search(rows: Features) -> Indices:
        found: Indices = index.search(rows, 1)[1][:, 0]
        return found

    return search


def _inverted_file(labelled: Features) -> faiss.IndexIVFFlat:
    lists = round(len(labelled) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(labelled.shape[1]), labelled.shape[1], lists)
    index.cp.niter = _ITERATIONS
    index.cp.min_points_per_centroid = 1
    index.train(labelled)
    index.add(labelled)
    index.nprobe = _LISTS_PROBED
    return index


def _on_gpu(labelled: Features, gpu: int) -> faiss.Index:
    index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), gpu, faiss.IndexFlatL2(labelled.shape[1]))
    index.add(labelled)
    return index


def _gpu(device: str) -> int:
    return int(device.partition(":")[2] or "0")
