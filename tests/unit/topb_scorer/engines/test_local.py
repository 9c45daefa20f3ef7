from __future__ import annotations

import pytest

from topb_scorer.bundle import Bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import BundleError, DeviceError, InvalidRequestError

pytestmark = pytest.mark.scorer


def test_an_engine_takes_only_a_graph_that_is_as_its_manifest_says(bundle: Bundle) -> None:
    for change in ("height", "outputs"):
        manifest = type(bundle.manifest)()
        manifest.CopyFrom(bundle.manifest)
        if change == "height":
            manifest.input.height = 32
        else:
            manifest.outputs[1].shape[0] += 1
        with pytest.raises(BundleError) as caught:
            LocalEngine(Bundle(bundle.path, manifest))
        assert caught.value.reason == "BUNDLE_GRAPH"


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x"])
def test_an_engine_on_no_device_is_refused(bundle: Bundle, device: str) -> None:
    with pytest.raises(DeviceError) as caught:
        LocalEngine(bundle, EngineSettings(device=device))
    assert caught.value.reason == "DEVICE_UNKNOWN"


@pytest.mark.parametrize("batch_size", [0, 1])
def test_an_engine_with_no_batch_to_speak_of_is_refused(bundle: Bundle, batch_size: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        LocalEngine(bundle, EngineSettings(batch_size=batch_size))
    assert caught.value.reason == "BATCH_SIZE_TOO_SMALL"
