from __future__ import annotations

import pytest

from topb.channel import channel_arguments
from topb_scorer.service import server

pytestmark = pytest.mark.scorer


def test_the_server_takes_pings_as_often_as_the_sdk_sends_them() -> None:
    options = dict(channel_arguments("localhost:50051", None).options)
    # A third to spare: pings that the network holds up arrive closer together than they were sent.
    assert int(options["grpc.keepalive_time_ms"]) >= 1.5 * server._PING_SECONDS * 1000
