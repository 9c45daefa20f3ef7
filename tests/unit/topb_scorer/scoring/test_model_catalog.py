from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.bundles import convolutional_graph, write_bundle
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.errors import BundleError, NotFoundError
from topb_scorer.scoring import model_catalog
from topb_scorer.scoring.model_catalog import ModelCatalog

pytestmark = pytest.mark.scorer


def write(root: Path, seed: int, *, created_seconds: int = 1_700_000_000) -> str:
    return write_bundle(root, convolutional_graph(seed=seed), created_seconds=created_seconds).name


def test_bundles_are_listed_by_model_id_and_verified_once(tmp_path: Path) -> None:
    ids = [write(tmp_path, seed) for seed in range(3)]
    (tmp_path / "notes.txt").touch()
    (tmp_path / "logs").mkdir()
    shutil.copytree(tmp_path / ids[0], tmp_path / ".unpublished-abc")
    catalog = ModelCatalog(tmp_path)
    assert [bundle.model_id for bundle in catalog.bundles()] == sorted(ids)
    assert catalog.get(ids[0]) is catalog.get(ids[0])


def test_the_default_is_the_named_model_or_the_most_recently_created(tmp_path: Path) -> None:
    ids = [write(tmp_path, seed) for seed in range(3)]
    catalog = ModelCatalog(tmp_path)
    assert catalog.default_id() == max(ids)
    newest = write(tmp_path, 3, created_seconds=1_700_000_002)
    write(tmp_path, 4, created_seconds=1_700_000_001)
    assert catalog.default_id() == catalog.get("").model_id == newest
    assert ModelCatalog(tmp_path, default_model=ids[0]).get("").model_id == ids[0]


def test_a_bundle_published_later_is_found(tmp_path: Path) -> None:
    catalog = ModelCatalog(tmp_path)
    with pytest.raises(NotFoundError, match="topb train") as caught:
        catalog.get("")
    assert caught.value.reason == "MODEL_NOT_FOUND"
    model_id = write(tmp_path, 0)
    assert catalog.get(model_id).model_id == model_id
    assert catalog.get("").model_id == model_id


def test_a_removed_bundle_is_no_longer_found(tmp_path: Path) -> None:
    model_id = write(tmp_path, 0)
    catalog = ModelCatalog(tmp_path)
    catalog.get(model_id)
    shutil.rmtree(tmp_path / model_id)
    assert catalog.bundles() == []
    with pytest.raises(NotFoundError):
        catalog.get(model_id)


@pytest.mark.parametrize("name", ["0123456789abcdef", "..", ".", "a/b", "../outside", "x\0y", "-"])
def test_the_error_for_an_unknown_model_lists_the_existing_ones(tmp_path: Path, name: str) -> None:
    model_id = write(tmp_path / "models", 0)
    shutil.copytree(tmp_path / "models" / model_id, tmp_path / "outside")
    with pytest.raises(NotFoundError, match=model_id) as caught:
        ModelCatalog(tmp_path / "models").get(name)
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert caught.value.metadata == {"model": name}


def test_an_incomplete_bundle_is_an_error_by_id_and_not_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, torn = write(tmp_path, 0), write(tmp_path, 1, created_seconds=1_800_000_000)
    (tmp_path / torn / "encoder.onnx").write_bytes(b"")
    catalog = ModelCatalog(tmp_path)
    with pytest.raises(BundleError):
        catalog.get(torn)
    with caplog.at_level(logging.ERROR):
        assert [bundle.model_id for bundle in catalog.bundles()] == [whole]
    assert torn in caplog.text
    assert "BUNDLE_ALTERED" in caplog.text
    assert catalog.default_id() == whole


def test_a_directory_not_named_after_its_model_id_is_not_served(tmp_path: Path) -> None:
    model_id = write(tmp_path, 0)
    (tmp_path / model_id).rename(tmp_path / "latest")
    catalog = ModelCatalog(tmp_path)
    with pytest.raises(BundleError, match=model_id) as caught:
        catalog.get("latest")
    assert caught.value.reason == "BUNDLE_MODEL_ID"
    assert catalog.bundles() == []


def test_a_catalog_without_a_directory_or_its_default_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        ModelCatalog(tmp_path / "nowhere")
    assert caught.value.reason == "MODELS_NOT_FOUND"
    with pytest.raises(NotFoundError) as caught:
        ModelCatalog(tmp_path, default_model="0123456789abcdef")
    assert caught.value.reason == "MODEL_NOT_FOUND"


def test_an_altered_bundle_is_hashed_again_only_if_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / write(tmp_path, 0)
    graph = path / "scorer.onnx" if (path / "scorer.onnx").exists() else next(path.glob("*.onnx"))
    right = graph.read_bytes()
    graph.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    opened: list[Path] = []

    def counted(bundle: Path) -> Bundle:
        opened.append(bundle)
        return open_bundle(bundle)

    monkeypatch.setattr(model_catalog, "open_bundle", counted)
    catalog = ModelCatalog(tmp_path)
    for _ in range(3):
        assert catalog.bundles() == []
        with pytest.raises(BundleError) as caught:
            catalog.get(path.name)
        assert caught.value.reason == "BUNDLE_ALTERED"
    assert len(opened) == len(caplog.records) == 1
    graph.write_bytes(right)
    assert [bundle.model_id for bundle in catalog.bundles()] == [path.name]


def test_a_bundle_is_available_while_another_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, ready = write(tmp_path, 0), write(tmp_path, 1)
    catalog = ModelCatalog(tmp_path)
    catalog.get(ready)
    hashing, go_on = threading.Event(), threading.Event()

    def blocked(bundle: Path) -> Bundle:
        hashing.set()
        assert go_on.wait(20)
        return open_bundle(bundle)

    monkeypatch.setattr(model_catalog, "open_bundle", blocked)
    with ThreadPoolExecutor(2) as threads:
        opening = threads.submit(catalog.get, slow)
        assert hashing.wait(20)
        try:
            assert threads.submit(catalog.get, ready).result(timeout=10).model_id == ready
        finally:
            go_on.set()
        assert opening.result(20).model_id == slow
