from __future__ import annotations

import pytest

from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import BundleError

pytestmark = pytest.mark.scorer


@pytest.mark.parametrize("change", ["height", "outputs"])
def test_a_graph_that_does_not_match_its_manifest_is_refused(bundle: Bundle, change: str) -> None:
    manifest = bundle_pb2.Bundle()
    manifest.CopyFrom(bundle.manifest)
    if change == "height":
        manifest.input.height = 32
    else:
        manifest.outputs[1].shape[0] += 1
    with pytest.raises(BundleError) as caught:
        LocalEngine(Bundle(bundle.path, manifest))
    assert caught.value.reason == "BUNDLE_GRAPH"


def test_the_default_batch_size_suits_the_device(bundle: Bundle) -> None:
    assert LocalEngine(bundle).session.encoder.batch_size == 32
