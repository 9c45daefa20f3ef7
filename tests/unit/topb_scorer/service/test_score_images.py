from __future__ import annotations

import threading
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.images import encode, random_image
from topb.v1 import selection_pb2 as pb
from topb_scorer import imaging
from topb_scorer.engines.cache import EngineCache
from topb_scorer.engines.local import EngineSettings
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service.score_images import score_images
from topb_scorer.service.settings import ServerSettings

pytestmark = pytest.mark.scorer


def test_no_image_of_a_request_is_decoded_after_its_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path)
    settings = ServerSettings(models=tmp_path, engine=EngineSettings(session_threads=1))
    cancelled, decoded = threading.Event(), []
    load = imaging.load

    def cancel_at_the_third(*arguments: object, **options: object) -> object:
        decoded.append(1)
        if len(decoded) == 3:
            cancelled.set()
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(imaging, "load", cancel_at_the_third)
    request = pb.ScoreImagesRequest(images=[encode(random_image(i)) for i in range(20)])
    with pytest.raises(SelectionCancelledError):
        score_images(request, ModelCatalog(tmp_path), EngineCache(settings.engine), settings, cancelled)
    assert len(decoded) == 3
