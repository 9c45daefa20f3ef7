"""The protocol: how many images are labelled in which round, and which protocols are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ProtocolConfig


def test_the_protocol_is_the_papers_by_default() -> None:
    protocol = ProtocolConfig()
    assert protocol.shares == (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    assert protocol.labelled_counts(50_000) == (5000, 7500, 10_000, 12_500, 15_000, 17_500, 20_000)
    assert protocol.labelled_counts(73_257)[-1] == 29_303


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ProtocolConfig(0.1, 0.04, 0.4), "expected 0.1 plus a multiple of 0.04"),
        (lambda: ProtocolConfig(0.5, 0.1, 0.4), "0 < initial"),
        (lambda: ProtocolConfig().labelled_counts(10), "at least 2, and more each round"),
    ],
)
def test_a_protocol_without_rounds_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        make()
    assert caught.value.reason == "INVALID_CONFIGURATION"
