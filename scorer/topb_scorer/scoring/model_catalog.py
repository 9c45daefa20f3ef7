"""Find the models that a server serves in a directory of bundles."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
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
                f"there is no models directory {root}; give the --out of `topb train` or `topb import`",
                reason="MODELS_NOT_FOUND",
                path=root,
            )
        self._root = root
        self._default_model = default_model
        self._opened: dict[str, Bundle | _Refused] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        if default_model:
            self.get(default_model)

    def bundles(self) -> list[Bundle]:
        """Return all bundles, sorted by model id. A bundle that cannot be opened is logged and left out."""
        found = []
        for name in self._names():
            with suppress(ScorerError):
                found.append(self._open(name))
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
                "there is no model yet; write one to the directory of models with `topb train --out` or "
                '`topb import --out`, or give the model "none" to select from vectors',
                reason="MODEL_NOT_FOUND",
                model="",
            )
        return max((bundle.manifest.create_time.ToNanoseconds(), bundle.model_id) for bundle in bundles)[1]

    def _names(self) -> list[str]:
        found = (path for path in self._root.iterdir() if (path / MANIFEST).is_file())
        return sorted(path.name for path in found if not is_unpublished(path))

    def _open(self, name: str) -> Bundle:
        """Return a bundle. It is verified once, or again if its files have changed since it was refused."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        # Hashing takes long, so only callers who want the same bundle wait for it.
        with lock:
            opened = self._opened.get(name)
            if isinstance(opened, Bundle):  # A published bundle never changes.
                return opened
            files = _files_of(self._root / name)
            if opened is None or opened.files != files:
                try:
                    opened = self._verified(name)
                except ScorerError as error:
                    _log.error("ignoring bundle %s: %s [%s]", name, error, error.reason)
                    opened = _Refused(files, error)
                self._opened[name] = opened
        if isinstance(opened, _Refused):
            raise opened.error.with_traceback(None)
        return opened

    def _verified(self, name: str) -> Bundle:
        bundle = open_bundle(self._root / name)
        if bundle.model_id != name:
            raise BundleError(
                f"{self._root / name} contains model {bundle.model_id}; "
                f"rename the directory to {bundle.model_id}",
                reason="BUNDLE_MODEL_ID",
            )
        return bundle


@dataclass(frozen=True)
class _Refused:
    """A bundle that could not be opened."""

    files: frozenset[tuple[str, int, int]]
    error: ScorerError


def _files_of(directory: Path) -> frozenset[tuple[str, int, int]]:
    """Return name, size in bytes and modification time in ns of each file."""
    found = ((path.name, path.stat()) for path in directory.iterdir())
    return frozenset((name, status.st_size, status.st_mtime_ns) for name, status in found)
