from __future__ import annotations

from pathlib import Path

import pytest

from support.bundles import deep_graph, null_graph, write_bundle
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.scoring.session import GraphSession


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("bundles")))


@pytest.fixture(scope="session")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("deep"), deep_graph()))


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> LocalEngine:
    return LocalEngine(bundle, EngineSettings(batch_size=7, session_threads=1, decode_threads=2))


@pytest.fixture(scope="session")
def null_encoder() -> GraphSession:
    """Return an encoder whose feature is the image's first pixel's red; batches of 4."""
    return GraphSession(null_graph().encoder, batch_size=4, threads=1)


@pytest.fixture
def pool_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    return folder
