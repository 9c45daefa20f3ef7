from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from support.bundles import convolutional_graph, deep_graph, null_graph
from topb_scorer.errors import DeviceError, InvalidRequestError, ScorerError
from topb_scorer.scoring.session import GraphSession

pytestmark = pytest.mark.scorer

MODELS = {"convolutional": convolutional_graph(), "deep": deep_graph()}
GRAPHS = {
    f"{part} of {name}": getattr(graphs, part)
    for name, graphs in MODELS.items()
    for part in ("encoder", "head")
}
COUNT = 67


def inputs_for(session: GraphSession, count: int = COUNT) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    ((name, shape),) = session.input_shapes.items()
    if name == "images":
        return {name: rng.integers(0, 256, (count, *shape)).astype(np.uint8)}
    return {name: rng.normal(0, 1, (count, *shape)).astype(np.float32)}


@pytest.fixture(scope="module", params=sorted(GRAPHS))
def graph(request: pytest.FixtureRequest) -> bytes:
    return GRAPHS[request.param]


@pytest.fixture(scope="module")
def expected(graph: bytes) -> dict[str, NDArray[np.float32]]:
    session = GraphSession(graph, batch_size=32, threads=1)
    return session.apply(inputs_for(session))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 3, 7, 32, 64, 256])
def test_outputs_of_a_row_do_not_depend_on_batch_size_threads_or_position(
    graph: bytes, expected: dict[str, NDArray[np.float32]], batch_size: int, threads: int
) -> None:
    session = GraphSession(graph, batch_size=batch_size, threads=threads)
    ((name, rows),) = inputs_for(session).items()
    order = np.random.default_rng(0).permutation(COUNT)
    all_, shuffled, alone = (session.apply({name: some}) for some in (rows, rows[order], rows[11:12]))
    assert all_.keys() == expected.keys() == session.output_shapes.keys()
    for output, values in expected.items():
        assert all_[output].tobytes() == values.tobytes(), output
        assert shuffled[output].tobytes() == values[order].tobytes(), output
        assert alone[output].tobytes() == values[11:12].tobytes(), output


def test_outputs_equal_those_of_a_plain_onnxruntime_session(
    graph: bytes, expected: dict[str, NDArray[np.float32]]
) -> None:
    plain = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    outputs = plain.run(list(expected), inputs_for(GraphSession(graph)))
    for name, output in zip(expected, outputs, strict=True):
        np.testing.assert_allclose(expected[name], output, rtol=1e-4, atol=1e-5)


def test_a_session_takes_no_rows_and_ignores_arrays_that_its_graph_does_not_take() -> None:
    session = GraphSession(GRAPHS["head of convolutional"], batch_size=4)
    assert session.apply(inputs_for(session, 0))["probabilities"].shape == (0, 5)
    rows = inputs_for(session, 3)
    more = session.apply({"latent": np.zeros((3, 2), np.float32), **rows})
    assert more["score"].tobytes() == session.apply(rows)["score"].tobytes()


def test_batches_do_not_share_buffers() -> None:
    session = GraphSession(null_graph().encoder, batch_size=2)
    first, second = session.new_buffers(), session.new_buffers()
    first.inputs["images"][:] = 10
    second.inputs["images"][:] = 20
    session.run(first)
    session.run(second)
    assert first.outputs["features"].tolist() == [[10], [10]]
    assert second.outputs["features"].tolist() == [[20], [20]]


def test_a_graph_can_be_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(null_graph(height=3, width=5).encoder)
    session = GraphSession(tmp_path / "graph.onnx")
    assert session.input_shapes == {"images": (3, 5, 3)}
    assert session.output_shapes == {"features": (1,)}


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
        GraphSession(**{"graph": null_graph().encoder, **changes})
    assert caught.value.reason == reason


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_session_device_is_an_error_and_not_replaced_by_the_cpu(device: str) -> None:
    with pytest.raises(DeviceError, match="scorer-gpu") as caught:
        GraphSession(null_graph().encoder, device=device)
    assert caught.value.reason == "DEVICE_UNAVAILABLE"
