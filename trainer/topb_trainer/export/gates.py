"""The gates of an export, which compare the written graphs with the model that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.model_session import HEAD_BATCH_SIZE
from topb_scorer.scoring.session import GraphSession
from topb_trainer.errors import ExportGateError

if TYPE_CHECKING:
    from torch import Tensor

    from topb_trainer.export.publishing import Graphs
    from topb_trainer.models.scoring import ScoringModel

_UNITS = {"score": 1.0, "probabilities": 1.0}
"""The outputs with a natural unit: logits, nats and probabilities. Their differences are relative to at least
this. Features have no unit, because a model may give them any scale."""

_FLOAT16_STEP = 2.0**-10
"""The largest step between neighbouring float16 numbers, relative to them. torch and ONNX may round a feature
to neighbours."""
_EXTREMES = 64
"""Number of extreme images, at most."""
_BATCH = 64

Float32Array = NDArray[np.float32]
Outputs = Mapping[str, Float32Array]


@dataclass(frozen=True)
class Gate:
    """A measurement of the exported graph, and its limit."""

    name: str
    measured: float
    limit: float
    """The gate is passed if `measured` is at most this."""
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether `measured` is within the limit. NaN, which stands for no measurement, does not pass."""
        return self.measured <= self.limit


def measure(model: ScoringModel, graphs: Graphs, real: NDArray[np.uint8], limit: float) -> list[Gate]:
    """Run the model and its graphs on the CPU, and measure how they differ.

    The head is also compared by itself, on the features that the exported encoder computes.

    Args:
        model: the trained model, in evaluation mode.
        graphs: the exported model.
        real: uint8 (N, H, W, 3), images of the pool.
        limit: largest relative difference that is allowed.
    """
    extreme = extreme_images(real)
    images = np.concatenate([real, extreme])  # (N + M, H, W, 3)
    expected = _applied(model, {"images": images})
    encoder = GraphSession(graphs.encoder, batch_size=_BATCH)
    assert graphs.head is not None, "a trained model has at least a classifier"
    head = GraphSession(graphs.head, batch_size=HEAD_BATCH_SIZE)
    encoded = encoder.apply({"images": images})
    exported = encoded | head.apply(encoded)
    order = other_order(len(images))
    shuffled = encoder.apply({"images": images[order]})
    shuffled |= head.apply(shuffled)
    in_other_batches = in_first_order(shuffled, order)
    by_head = _applied(lambda **arrays: model.head(arrays), encoded)
    limits = dict.fromkeys(exported, limit)
    if model.feature_type == "float16":
        # The steps between features would hide differences of the head.
        limits["features"] = max(limit, _FLOAT16_STEP)
        expected |= by_head
    on = f"over {len(real)} images of the pool and {len(extreme)} extreme ones"
    return [
        *gates_of(expected, exported, on, limits),
        *([_not_float16(encoded["features"], on)] if model.feature_type == "float16" else []),
        Gate(
            "head_difference",
            max(
                relative_difference(values, exported[name], _UNITS.get(name, 0.0))
                for name, values in by_head.items()
            ),
            limit,
            "largest relative difference of the head's outputs between torch and ONNX, for the same features",
        ),
        row_independence(exported, in_other_batches),
    ]


def measure_encoder(
    graph: bytes,
    original: Callable[[Tensor], Tensor] | None,
    real: NDArray[np.uint8],
    limit: float,
    *,
    float16: bool,
) -> list[Gate]:
    """Run an encoder that is not trained on the CPU, and measure it.

    Args:
        graph: the encoder.
        original: the torch module of which it was made, from images to features; None if there is none.
        real: uint8 (N, H, W, 3), images of the pool.
        limit: largest relative difference from the module that is allowed.
        float16: whether features are rounded to float16.
    """
    extreme = extreme_images(real)
    images = np.concatenate([real, extreme])  # (N + M, H, W, 3)
    session = GraphSession(graph, batch_size=_BATCH)
    encoded = session.apply({"images": images})
    in_reverse = session.apply({"images": images[::-1]})
    # Without a module the graph is the original, and is only examined by itself.
    expected: Outputs = encoded
    if original is not None:
        expected = _applied(lambda images: {"features": original(images)}, {"images": images})
    on = f"over {len(real)} images of the pool and {len(extreme)} extreme ones"
    limits = {"features": max(limit, _FLOAT16_STEP) if float16 else limit}
    found = gates_of(expected, encoded, on, limits)
    return [
        *(gate for gate in found if original is not None or gate.name == "not_finite"),
        *([_not_float16(encoded["features"], on)] if float16 else []),
        row_independence(encoded, {name: values[::-1] for name, values in in_reverse.items()}),
    ]


def measure_head(model: ScoringModel, head: bytes, features: Float32Array, limit: float) -> list[Gate]:
    """Run the head of a model and its graph on the CPU, and measure how they differ.

    Args:
        model: the trained model, in evaluation mode.
        head: its graph.
        features: float32 (N, D), features of the pool.
        limit: largest relative difference that is allowed.
    """
    session = GraphSession(head, batch_size=HEAD_BATCH_SIZE)
    expected = _applied(lambda **arrays: model.head(arrays), {"features": features})
    scored = session.apply({"features": features})
    in_reverse = session.apply({"features": features[::-1]})
    on = f"over the features of {len(features)} images of the pool"
    found = [
        *gates_of(expected, scored, on, dict.fromkeys(scored, limit)),
        row_independence(scored, {name: values[::-1] for name, values in in_reverse.items()}),
    ]
    return [replace(gate, name=f"head_{gate.name}") for gate in found]


def gates_of(
    expected: Outputs,
    exported: Outputs,
    on: str,
    limits: Mapping[str, float],
    *,
    original: str = "torch",
    copy: str = "ONNX",
) -> list[Gate]:
    """Measure how much the outputs of a graph differ from those of the original for the same N images.

    Args:
        expected: the outputs of the original by name, float32 (N, …).
        exported: the outputs of the graph.
        on: the images, for the meanings of the gates.
        limits: largest relative difference that is allowed, by output.
        original, copy: what the two are called in the meanings of the gates.
    """
    not_finite = sum(int((~np.isfinite(values)).sum()) for values in exported.values())
    gates = [
        Gate("not_finite", float(not_finite), 0.0, f"number of {copy} outputs that are not finite, {on}")
    ]
    for name, values in exported.items():
        gates.append(
            Gate(
                f"{name}_difference",
                relative_difference(expected[name], values, _UNITS.get(name, 0.0)),
                limits[name],
                f"largest relative difference of {name} between {original} and {copy}, {on}",
            )
        )
    if "score" in exported:
        gates.append(
            Gate(
                "top_b_difference",
                top_b_difference(expected["score"], exported["score"]),
                limits["score"],
                f"largest amount, over all b, by which an image that {copy} ranks among the best b falls "
                f"short of {original}'s b-th best score, relative to the size of the scores, {on}",
            )
        )
    return gates


def require(gates: list[Gate], differs: str) -> None:
    """Raise ExportGateError with the measurements if a gate was not passed.

    Args:
        gates: the measurements.
        differs: what it means, such as "the exported graph differs from the trained model".
    """
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        found = "; ".join(f"{gate.name} is {gate.measured:.3g}, limit {gate.limit:.3g}" for gate in failed)
        raise ExportGateError(
            f"{differs}, so no bundle was published: {found}",
            reason="EXPORT_GATE",
            **{gate.name: gate.measured for gate in failed},
        )


def extreme_images(real: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images that a pool like `real` (N, H, W, 3) may contain, and that are unlike most of it.

    They are a black and a white image and, for up to 31 of the real ones, its negative and the image with its
    contrast stretched to the whole range of values.
    """
    some = evenly_spaced(real, _EXTREMES // 2 - 1)
    low = some.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = some.max(axis=(1, 2, 3), keepdims=True)
    stretched = ((some - low) * (255 / np.maximum(high - low, 1))).round().astype(np.uint8)
    uniform = np.zeros((2, *real.shape[1:]), np.uint8)
    uniform[1] = 255
    return np.concatenate([uniform, 255 - some, stretched])


def evenly_spaced(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """Return at most `count` of the images or features (M, …)."""
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return rows[chosen]


def relative_difference(expected: Float32Array, exported: Float32Array, unit: float) -> float:
    """Return the largest difference of a row, relative to the size of its values.

    The size of a row is its largest absolute value, or the median of that over all rows, or `unit`, whichever
    is largest: the rounding errors of a row with unusually small values are those of usual values.

    Args:
        expected: float32 (N, …).
        exported: float32 (N, …).
        unit: a size below which no row is taken to be.
    """
    rows = len(expected)
    wanted = expected.reshape(rows, -1).astype(np.float64)  # (N, K)
    # The difference of infinities is NaN, which passes no gate.
    with np.errstate(invalid="ignore"):
        difference = np.abs(wanted - exported.reshape(rows, -1)).max(axis=1)  # (N)
    size = np.abs(wanted).max(axis=1)  # (N)
    size = np.maximum(size, max(float(np.median(size)), unit))
    # Equal rows of zeros have no size and no difference.
    return float(np.divide(difference, size, out=np.zeros(rows), where=difference != 0).max())


def top_b_difference(expected: Float32Array, exported: Float32Array) -> float:
    """Return the largest amount, over all b, by which a pick by `exported` is worse than one by `expected`.

    It is 0 if both scores give the same order. It is at most e if the orders differ only between images whose
    expected scores differ by at most e. The unit is the median absolute score, or 1 if that is larger.

    Args:
        expected: float32 (N), the scores of torch.
        exported: float32 (N), the scores of ONNX for the same images.
    """
    by_exported = expected[np.argsort(-exported, kind="stable")].astype(np.float64)  # (N)
    worst_picked = np.minimum.accumulate(by_exported)  # (N): at index b − 1, the worst of b picks
    shortfall = float((np.sort(expected)[::-1] - worst_picked).max())
    return shortfall / max(1.0, float(np.median(np.abs(expected))))


def other_order(count: int) -> NDArray[np.int64]:
    """Return an order of rows, always the same, in which each has other rows in its batch.

    The reverse order would do less: if the last batch is full, all batches keep their rows.
    """
    return np.random.default_rng(0).permutation(count).astype(np.int64)


def in_first_order(shuffled: Outputs, order: NDArray[np.int64]) -> dict[str, Float32Array]:
    """Return outputs of rows that were taken in another order, in the order that they had before."""
    return {name: values[np.argsort(order)] for name, values in shuffled.items()}


def row_independence(outputs: Outputs, in_other_batches: Outputs) -> Gate:
    """Compare the outputs of images with those that the images have in other batches, bit for bit.

    Args:
        outputs: outputs by name, float32 (N, …).
        in_other_batches: the outputs of the same images, in the same order, but computed in the order
            `other_order` and thus in other batches.
    """
    depends = np.zeros(len(next(iter(outputs.values()))), bool)
    for name, values in outputs.items():
        rows = len(values)
        depends |= (values.reshape(rows, -1) != in_other_batches[name].reshape(rows, -1)).any(axis=1)
    return Gate(
        "batch_dependence",
        float(depends.sum()),
        0.0,
        f"number of images, of {len(depends)}, whose outputs depend on the other images of their batch",
    )


def _not_float16(features: Float32Array, on: str) -> Gate:
    with np.errstate(over="ignore"):
        count = int((features != features.astype(np.float16)).sum())
    return Gate("not_float16", float(count), 0.0, f"number of features that are not float16 numbers, {on}")


def _applied(
    compute: Callable[..., Mapping[str, Tensor]], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, Float32Array]:
    """Return the outputs of a torch model for any number of rows, computed in batches."""
    # Imported here because models in ONNX are imported without torch, and pass some of these gates too.
    import torch

    rows = len(next(iter(inputs.values())))
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.no_grad():
        parts = [
            compute(**{name: values[start : start + _BATCH] for name, values in tensors.items()})
            for start in range(0, rows, _BATCH)
        ]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
