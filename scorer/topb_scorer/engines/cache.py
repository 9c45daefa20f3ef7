"""Keep loaded engines in a cache by model id."""

from __future__ import annotations

import threading
from collections import OrderedDict

from topb_scorer.bundle import Bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine

_ENGINES_KEPT = 4


class EngineCache:
    """Keeps the most recently used engines loaded. They share one budget of pixels to decode."""

    def __init__(self, settings: EngineSettings, *, capacity: int = _ENGINES_KEPT) -> None:
        self._settings = settings
        self._capacity = capacity
        self._budget = settings.new_pixel_budget()
        self._engines: OrderedDict[str, LocalEngine] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, bundle: Bundle) -> LocalEngine:
        """Return the engine of a bundle, loading it if necessary.

        An engine that is removed from the cache remains usable.

        Raises:
            DeviceError: the device cannot be used.
        """
        if not bundle.graph_bytes:
            # There is nothing to load, and without a model each pool has its own sizes of rows.
            return LocalEngine(bundle, self._settings, self._budget)
        with self._lock:
            engine = self._engines.pop(bundle.model_id, None) or LocalEngine(
                bundle, self._settings, self._budget
            )
            self._engines[bundle.model_id] = engine
            if len(self._engines) > self._capacity:
                self._engines.popitem(last=False)
            return engine
