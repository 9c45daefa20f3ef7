"""Compute upper bounds of the distances to the nearest labelled rows, from which k-center greedy starts.

K-center greedy needs exact distances only for the farthest points. For all others, the distance to any near
labelled row is enough to show that they are not the farthest, and FAISS finds such a row. On the CPU, the
labelled rows are put into an inverted file with √L lists of about √L rows, and each row of the pool is
compared with the two nearest lists: about 3√L distances instead of L. When a tenth of CIFAR-10 was labelled,
one row in eight then had to be compared with all labelled rows to pick a twentieth of the pool. A GPU
compares each row with all labelled rows.

The distance to the row that was found is computed again in float64, so the device affects the running time
but not the picks.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np

from topb_scorer.cancellation import Check, checked
from topb_scorer.errors import DeviceError
from topb_scorer.geometry.euclidean import (
    ROWS_AT_ONCE,
    Doubles,
    Features,
    Frame,
    Indices,
    blocks,
    squared_distances,
)
from topb_scorer.geometry.k_means import k_means

FEWEST_SEARCHED = 256
"""With fewer labelled rows than this, one matrix product is as fast as a search."""
_LISTS_PROBED = 2
_ITERATIONS = 4
_SEED = 1234
_SEARCHED_TOGETHER = 16 * ROWS_AT_ONCE

Search = Callable[[Features], Indices]
"""Returns the index of a near labelled row, or −1, for each row: float32 (n, D) to int64 (n,)."""
MakeSearch = Callable[[Features, str, Check], Search]
"""Returns a search among labelled rows, float32 (L, D), on a device. It calls the check between its steps."""


def check_search_device(device: str) -> None:
    """Raise DeviceError if FAISS cannot search on this device.

    Args:
        device: `cpu` or `cuda:<index>`.

    Raises:
        DeviceError: with reason DEVICE_UNKNOWN or DEVICE_UNAVAILABLE.
    """
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index.isdecimal() or not index):
        raise DeviceError(
            f"{device!r} is not a device; expected cpu, cuda or cuda:<index>",
            reason="DEVICE_UNKNOWN",
            device=device,
        )
    if _gpu(device) >= faiss.get_num_gpus():
        raise DeviceError(
            f"FAISS cannot search on {device}: it found {faiss.get_num_gpus()} GPUs; install faiss-gpu-cu12 "
            "instead of faiss-cpu, check the driver, or search on the CPU",
            reason="DEVICE_UNAVAILABLE",
            device=device,
        )


def upper_bounds(
    pool: Features,
    labelled: Features,
    frame: Frame,
    *,
    device: str,
    make_search: MakeSearch,
    fewest_searched: int = FEWEST_SEARCHED,
    check: Check,
) -> Doubles:
    """Return upper bounds of the squared distances of rows to their nearest labelled rows, float64 (N,).

    A bound may be infinite. All bounds are infinite if a search is not worthwhile or float32 would overflow.

    Args:
        pool: float32 (N, D).
        labelled: float32 (L, D).
        frame: a frame around both arrays.
        device: the device on which to search, `cpu` or `cuda:<index>`.
        make_search: a function that returns the search.
        fewest_searched: with fewer labelled rows than this, no search is made.
        check: called before each block of rows.
    """
    bounds = np.full(len(pool), np.inf)
    if len(labelled) < fewest_searched or not 2.0**-40 < frame.scale < 2.0**40:
        return bounds
    search = make_search(np.ascontiguousarray(labelled), device, check)
    for together in checked(blocks(len(pool), _SEARCHED_TOGETHER), check):
        found = search(np.ascontiguousarray(pool[together]))
        for block in checked(blocks(len(found)), check):
            near = found[block]
            rows = np.flatnonzero(near >= 0) + together.start + block.start
            bounds[rows] = squared_distances(pool[rows], labelled[near[near >= 0]])
    return bounds


def faiss_search(labelled: Features, device: str, check: Check) -> Search:
    """Return a FAISS search among labelled rows, float32 (L, D): approximate on the CPU, exact on a GPU."""
    index = _inverted_file(labelled, check) if device == "cpu" else _on_gpu(labelled, _gpu(device))

    def search(rows: Features) -> Indices:
        found: Indices = index.search(rows, 1)[1][:, 0]
        return found

    return search


def _inverted_file(labelled: Features, check: Check) -> faiss.IndexIVFFlat:
    lists = round(len(labelled) ** 0.5)
    centroids = k_means(labelled, lists, iterations=_ITERATIONS, seed=_SEED, check=check)
    quantizer = faiss.IndexFlatL2(labelled.shape[1])
    quantizer.add(centroids)
    index = faiss.IndexIVFFlat(quantizer, labelled.shape[1], lists)
    index.train(centroids)
    for block in checked(blocks(len(labelled), _SEARCHED_TOGETHER), check):
        index.add(labelled[block])
    index.nprobe = _LISTS_PROBED
    return index


def _on_gpu(labelled: Features, gpu: int) -> faiss.Index:
    index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), gpu, faiss.IndexFlatL2(labelled.shape[1]))
    index.add(labelled)
    return index


def _gpu(device: str) -> int:
    return int(device.partition(":")[2] or "0")
