"""Searching labelled rows on a GPU changes no pick of k-center greedy."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from topb_scorer.geometry.k_center import k_center_greedy

pytestmark = pytest.mark.gpu


def test_k_center_picks_the_same_rows_on_a_gpu_as_on_the_cpu() -> None:
    if not faiss.get_num_gpus():
        pytest.skip("FAISS sees no GPU: install faiss-gpu-cu12 in place of faiss-cpu")
    random = np.random.default_rng(0)
    pool, labelled = (random.normal(size=(n, 64)).astype(np.float32) for n in (20_000, 2_000))
    on_cpu = k_center_greedy(pool, labelled, 1_000)
    on_gpu = k_center_greedy(pool, labelled, 1_000, device="cuda:0")
    assert on_gpu.indices.tolist() == on_cpu.indices.tolist()
    assert on_gpu.radii.tolist() == on_cpu.radii.tolist()
