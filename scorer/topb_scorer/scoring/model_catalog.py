"""Find the models that a server serves in a directory of bundles."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from topb_scorer.bundle import MANIFEST, Bundle, open_bundle
from topb_scorer.durable import is_unpublished
from topb_scorer.errors import BundleError, NotFoundError, ScorerError

_log = logging.getLogger(__name__)


class ModelCatalog:
    """The bundles in a directory by model id, including those that are added later."""

    def __init__(self, root: Path, *, default_model: str = "") -> None:
        """Open the directory of bundles.

        Args:
            root: contains one directory per bundle, whose name is the model id.
            default_model: the model for requests that name none; empty for the most recently created one.

        Raises:
            NotFoundError: with reason MODELS_NOT_FOUND or MODEL_NOT_FOUND.
        """
        if not root.is_dir():
            raise NotFoundError(
                f"there is no models directory {root}; give a directory that `topb train --out` wrote to",
                reason="MODELS_NOT_FOUND",
                path=root,
            )
        self._root = root
        self._default_model = default_model
        self._verified: dict[str, Bundle] = {}
        self._lock = threading.Lock()
        if default_model:
            self.get(default_model)

    def bundles(self) -> list[Bundle]:
        """Return all bundles, sorted by model id. A bundle that cannot be opened is logged and left out."""
        found = []
        for name in self._names():
            try:
                found.append(self._open(name))
            except ScorerError as error:
                _log.error("ignoring bundle %s: %s [%s]", name, error, error.reason)
        return found

    def get(self, model_id: str) -> Bundle:
        """Return the bundle of a model, or of the default model if the id is empty.

        Raises:
            NotFoundError: with reason MODEL_NOT_FOUND.
            BundleError: the bundle is incomplete or altered, or its directory has another name than the id.
        """
        if not model_id:
            return self.get(self.default_id())
        # The id is compared with the names that are there: a caller's text never becomes a path.
        if model_id not in self._names():
            there = ", ".join(bundle.model_id for bundle in self.bundles()) or "none"
            raise NotFoundError(
                f"there is no model {model_id!r}; the available models are: {there}",
                reason="MODEL_NOT_FOUND",
                model=model_id,
            )
        return self._open(model_id)

    def default_id(self) -> str:
        """Return the id of the model for requests that name none.

        Raises:
            NotFoundError: with reason MODEL_NOT_FOUND, if there are no models.
        """
        if self._default_model:
            return self._default_model
        bundles = self.bundles()
        if not bundles:
            raise NotFoundError(
                "there is no model yet; write one to the directory of models with `topb train --out`",
                reason="MODEL_NOT_FOUND",
                model="",
            )
        return max((bundle.manifest.create_time.ToNanoseconds(), bundle.model_id) for bundle in bundles)[1]

    def _names(self) -> list[str]:
        found = (path for path in self._root.iterdir() if (path / MANIFEST).is_file())
        return sorted(path.name for path in found if not is_unpublished(path))

    def _open(self, name: str) -> Bundle:
        # A published bundle never changes, so it is verified only once.
        with self._lock:
            if name not in self._verified:
                bundle = open_bundle(self._root / name)
                if bundle.model_id != name:
                    raise BundleError(
                        f"{self._root / name} contains model {bundle.model_id}; "
                        f"rename the directory to {bundle.model_id}",
                        reason="BUNDLE_MODEL_ID",
                    )
                self._verified[name] = bundle
            return self._verified[name]
