from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from support.bundles import write_bundle
from topb.v1 import selection_pb2 as pb
from topb_scorer.engines.cache import EngineCache
from topb_scorer.errors import UnavailableError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.scoring.model_catalog import ModelCatalog
from topb_scorer.service.admission import Admission
from topb_scorer.service.settings import ServerSettings
from topb_scorer.service.stream_call import StreamCall

pytestmark = pytest.mark.scorer

IDLE_SECONDS = 0.2


@pytest.fixture
def call(tmp_path: Path) -> Iterator[StreamCall]:
    """A call to a server with one slot."""
    write_bundle(tmp_path / "models")
    settings = ServerSettings(tmp_path / "models", stream_idle_seconds=IDLE_SECONDS)
    state = StateDirectory.open(tmp_path / "state")
    models, engines = ModelCatalog(settings.models), EngineCache(settings.engine)
    admission = Admission(settings, models, engines, state)
    host = SelectionHost(state, admission.job_of, owner="here", max_concurrent=1, lease_seconds=30)
    yield StreamCall(settings, state.catalog, host, admission)
    host.interrupt()
    state.catalog.close()


async def start_only() -> AsyncIterator[pb.SelectBatchFromStreamRequest]:
    spec = pb.SelectionSpec(budget=2)
    yield pb.SelectBatchFromStreamRequest(start=pb.StreamStart(spec=spec, request_id="silent"))
    await asyncio.sleep(60)


def test_a_caller_that_reads_no_responses_loses_its_slot_too(call: StreamCall) -> None:
    """gRPC does not ask for the next response before the caller has room for it."""

    async def neither_send_nor_read() -> None:
        async with aclosing(call.responses(start_only())) as responses:
            assert (await anext(responses)).HasField("accepted")
            async with asyncio.timeout(20):
                while call.host.running_count:
                    await asyncio.sleep(0.02)
            with pytest.raises(UnavailableError) as caught:
                await anext(responses)
        assert caught.value.reason == "STREAM_IDLE"
        assert caught.value.retry_delay == 0

    asyncio.run(neither_send_nor_read())
