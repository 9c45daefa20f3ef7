from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from support.bundles import convolutional_graph, deep_graph, null_graph
from topb_scorer.errors import DeviceError, InvalidRequestError, ScorerError
from topb_scorer.scoring.session import OUTPUTS, ScoringSession

pytestmark = pytest.mark.scorer

GRAPHS = {"convolutional": convolutional_graph(), "deep": deep_graph()}
COUNT = 67


def images_for(session: ScoringSession, count: int = COUNT) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, *session.image_shape, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=sorted(GRAPHS))
def graph(request: pytest.FixtureRequest) -> bytes:
    return GRAPHS[request.param]


@pytest.fixture(scope="module")
def expected(graph: bytes) -> dict[str, NDArray[np.float32]]:
    session = ScoringSession(graph, batch_size=32, threads=1)
    return session.score(images_for(session))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 3, 7, 32, 64])
def test_outputs_of_a_row_do_not_depend_on_batch_size_threads_or_position(
    graph: bytes, expected: dict[str, NDArray[np.float32]], batch_size: int, threads: int
) -> None:
    session = ScoringSession(graph, batch_size=batch_size, threads=threads)
    images = images_for(session)
    order = np.random.default_rng(0).permutation(COUNT)
    scored, shuffled, alone = (session.score(some) for some in (images, images[order], images[11:12]))
    for name in OUTPUTS:
        assert scored[name].tobytes() == expected[name].tobytes(), name
        assert shuffled[name].tobytes() == expected[name][order].tobytes(), name
        assert alone[name].tobytes() == expected[name][11:12].tobytes(), name


def test_outputs_equal_those_of_a_plain_onnxruntime_session(
    graph: bytes, expected: dict[str, NDArray[np.float32]]
) -> None:
    session = ScoringSession(graph)
    plain = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    outputs = plain.run(list(OUTPUTS), {"images": images_for(session)})
    for name, output in zip(OUTPUTS, outputs, strict=True):
        np.testing.assert_allclose(expected[name], output, rtol=1e-4, atol=1e-5)


def test_only_the_requested_outputs_are_returned() -> None:
    session = ScoringSession(GRAPHS["convolutional"], batch_size=4)
    assert set(session.score(images_for(session, 3), ["score"])) == {"score"}
    assert session.score(images_for(session, 0))["probabilities"].shape == (0, 5)
    batch = session.new_buffers(["probabilities", "features"])
    assert {name: buffer.shape for name, buffer in batch.outputs.items()} == {
        "probabilities": (4, 5),
        "features": (4, 8),
    }


def test_batches_do_not_share_buffers() -> None:
    session = ScoringSession(null_graph(), batch_size=2)
    first, second = session.new_buffers(["score"]), session.new_buffers(["score"])
    first.images[:] = 10
    second.images[:] = 20
    session.run(first)
    session.run(second)
    assert first.outputs["score"].tolist() == [10, 10]
    assert second.outputs["score"].tolist() == [20, 20]


def test_a_graph_can_be_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(null_graph(height=3, width=5))
    session = ScoringSession(tmp_path / "graph.onnx")
    assert session.image_shape == (3, 5)
    assert session.output_shapes == {"score": (), "probabilities": (1,), "features": (1,)}


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        *(({"batch_size": size}, InvalidRequestError, "BATCH_SIZE_TOO_SMALL") for size in (1, 0, -1)),
        *(
            ({"device": device}, DeviceError, "DEVICE_UNKNOWN")
            for device in ("", "gpu", "cpu:0", "cuda:-1", "cuda:x", "CPU", "tpu")
        ),
        ({"graph": b"no graph"}, DeviceError, "SESSION_FAILED"),
    ],
)
def test_an_unusable_graph_is_refused(changes: dict[str, Any], error: type[ScorerError], reason: str) -> None:
    with pytest.raises(error) as caught:
        ScoringSession(**{"graph": null_graph(), **changes})
    assert caught.value.reason == reason


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_session_device_is_an_error_and_not_replaced_by_the_cpu(device: str) -> None:
    with pytest.raises(DeviceError, match="scorer-gpu") as caught:
        ScoringSession(null_graph(), device=device)
    assert caught.value.reason == "DEVICE_UNAVAILABLE"
