from __future__ import annotations

from pathlib import Path

import pytest

from topb._channel import channel_arguments
from topb_scorer.errors import DeviceError
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.service import server
from topb_scorer.service.server import Server
from topb_scorer.service.settings import ServerSettings

pytestmark = pytest.mark.scorer


def test_a_server_whose_search_device_is_missing_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Server(ServerSettings(models=tmp_path, selecting=SelectingSettings(search_device="cuda:99")))
    assert caught.value.reason == "DEVICE_UNAVAILABLE"


def test_the_server_allows_pings_as_often_as_the_sdk_sends_them() -> None:
    options = dict(channel_arguments("localhost:50051", None).options)
    # The margin is for pings that the network delays: they arrive closer together than they were sent.
    assert int(options["grpc.keepalive_time_ms"]) >= 1.5 * server._PING_SECONDS * 1000
