from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from support.bundles import write_bundle
from topb.v1 import selection_pb2 as pb
from topb_scorer.engines.cache import EngineCache
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service import selection_service
from topb_scorer.service.selection_service import SelectionService
from topb_scorer.service.settings import ServerSettings

pytestmark = [pytest.mark.scorer, pytest.mark.timeout(60)]


def test_calls_that_wait_to_decode_do_not_keep_other_calls_from_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path)
    settings, may_end = ServerSettings(models=tmp_path), threading.Event()

    def wait(*_: object) -> pb.ScoreImagesResponse:
        may_end.wait()
        return pb.ScoreImagesResponse()

    monkeypatch.setattr(selection_service, "score_images", wait)

    async def serve() -> pb.GetServerInfoResponse:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        service = SelectionService(
            settings, ModelCatalog(tmp_path), EngineCache(settings.engine), Mock(), Mock(), Mock()
        )
        request = pb.ScoreImagesRequest()
        waiting = [asyncio.create_task(service.ScoreImages(request, Mock())) for _ in range(4)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(service.GetServerInfo(pb.GetServerInfoRequest(), Mock()), 20)
        finally:
            may_end.set()
            await asyncio.gather(*waiting)

    assert asyncio.run(serve()).default_model
