"""The gates of an export, which compare the written graph with the trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from topb_scorer.scoring.session import OUTPUTS, ScoringSession
from topb_trainer.errors import ExportGateError
from topb_trainer.models.scoring import AnyScoringModel

DIFFERENCE_LIMIT = 1e-4
"""Largest allowed absolute difference between torch and ONNX, both in float32."""

_BATCH = 64

Float32Array = NDArray[np.float32]


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


def measure(
    model: AnyScoringModel, graph: Path, real: NDArray[np.uint8], random: NDArray[np.uint8]
) -> list[Gate]:
    """Run the model and its graph on the CPU, and measure how they differ.

    Args:
        model: the trained model, in evaluation mode.
        graph: the ONNX file.
        real: uint8 (N, H, W, 3), images of the pool.
        random: uint8 (M, H, W, 3), random pixels.
    """
    images = np.concatenate([real, random])  # (N + M, H, W, 3)
    expected = _torch_outputs(model, images)
    exported = ScoringSession(graph, device="cpu", batch_size=_BATCH).score(images)
    on = f"over {len(real)} real and {len(random)} random images"
    gates = [_not_finite(exported, on)]
    for name in OUTPUTS:
        difference = np.abs(expected[name].astype(np.float64) - exported[name]).max()
        gates.append(
            Gate(
                f"{name}_difference",
                float(difference),
                DIFFERENCE_LIMIT,
                f"largest absolute difference of {name} between torch and ONNX, {on}",
            )
        )
    gates.append(
        Gate(
            "top_b_difference",
            top_b_difference(expected["score"], exported["score"]),
            DIFFERENCE_LIMIT,
            "largest amount, over all b, by which an image that ONNX ranks among the best b falls short of "
            f"torch's b-th best score, {on}",
        )
    )
    return gates


def require(gates: list[Gate]) -> None:
    """Raise ExportGateError with the measurements if a gate was not passed."""
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        found = "; ".join(f"{gate.name} is {gate.measured:.3g}, limit {gate.limit:.3g}" for gate in failed)
        raise ExportGateError(
            f"the exported graph differs from the trained model, so no bundle was published: {found}",
            reason="EXPORT_GATE",
            **{gate.name: gate.measured for gate in failed},
        )


def top_b_difference(expected: Float32Array, exported: Float32Array) -> float:
    """Return the largest amount, over all b, by which a pick by `exported` is worse than one by `expected`.

    It is 0 if both scores give the same order. It is at most e if the orders differ only between images whose
    expected scores differ by at most e.

    Args:
        expected: float32 (N), the scores of torch.
        exported: float32 (N), the scores of ONNX for the same images.
    """
    by_exported = expected[np.argsort(-exported, kind="stable")].astype(np.float64)  # (N)
    worst_picked = np.minimum.accumulate(by_exported)  # (N): at index b − 1, the worst of b picks
    return float((np.sort(expected)[::-1] - worst_picked).max())


def _not_finite(exported: Mapping[str, Float32Array], on: str) -> Gate:
    count = sum(int((~np.isfinite(values)).sum()) for values in exported.values())
    return Gate(
        "not_finite", float(count), 0.0, f"number of values of the ONNX outputs that are not finite, {on}"
    )


@torch.no_grad()
def _torch_outputs(model: AnyScoringModel, images: NDArray[np.uint8]) -> dict[str, Float32Array]:
    parts = [model(part) for part in torch.split(torch.from_numpy(images), _BATCH)]
    return {
        name: torch.cat(outputs).numpy()
        for name, outputs in zip(OUTPUTS, zip(*parts, strict=True), strict=True)
    }
