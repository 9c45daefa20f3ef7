from __future__ import annotations

import threading
from pathlib import Path

import pytest

from support.bundles import convolutional_graph, write_bundle
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.cache import EngineCache
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import DeviceError

pytestmark = pytest.mark.scorer


def test_an_engine_is_loaded_once_and_the_least_recently_used_is_evicted(tmp_path: Path) -> None:
    a, b, c = (open_bundle(write_bundle(tmp_path, convolutional_graph(seed=seed))) for seed in range(3))
    cache = EngineCache(EngineSettings(session_threads=1), capacity=2)
    engine_a, engine_b = cache.get(a), cache.get(b)
    assert cache.get(a) is engine_a
    cache.get(c)
    assert cache.get(a) is engine_a
    assert cache.get(b) is not engine_b


def test_concurrent_requests_share_one_engine(bundle: Bundle) -> None:
    cache = EngineCache(EngineSettings(session_threads=1))
    engines: list[LocalEngine] = []
    threads = [threading.Thread(target=lambda: engines.append(cache.get(bundle))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 6
    assert len(set(map(id, engines))) == 1


def test_an_engine_that_cannot_be_loaded_is_not_kept(bundle: Bundle) -> None:
    cache = EngineCache(EngineSettings(device="tpu"))
    for _ in range(2):
        with pytest.raises(DeviceError):
            cache.get(bundle)
