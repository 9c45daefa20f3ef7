"""The gates of an export: what the written graph computes against what the trained model computes."""

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
"""Largest absolute difference between torch and ONNX, both float32."""

_BATCH = 64

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Gate:
    """One measurement that the export was held to."""

    name: str
    measured: float
    limit: float
    """Passed where `measured` is at most this."""
    meaning: str

    @property
    def passed(self) -> bool:
        """False as well where nothing could be measured (NaN)."""
        return self.measured <= self.limit


def measure(
    model: AnyScoringModel, graph: Path, real: NDArray[np.uint8], random: NDArray[np.uint8]
) -> list[Gate]:
    """Runs model and graph file, both on the CPU, over real and random images, uint8 (N or M, H, W, 3)."""
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
            "how far below torch's b-th best score an image lies that ONNX puts among the best b; the most "
            f"over every b, {on}",
        )
    )
    return gates


def require(gates: list[Gate]) -> None:
    """Raises ExportGateError, naming what was measured, unless every gate was passed."""
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        found = "; ".join(f"{gate.name} is {gate.measured:.3g}, limit {gate.limit:.3g}" for gate in failed)
        raise ExportGateError(
            f"the exported graph differs from the trained model, and no bundle was published: {found}",
            reason="EXPORT_GATE",
            **{gate.name: gate.measured for gate in failed},
        )


def top_b_difference(expected: Float32Array, exported: Float32Array) -> float:
    """Returns by how much, in `expected` scores (N), the best b of `exported` (N) fall short, at most.

    0 where both rank alike; no more than e where they part only among scores within e of each other.
    """
    by_exported = expected[np.argsort(-exported, kind="stable")].astype(np.float64)  # (N)
    worst_picked = np.minimum.accumulate(by_exported)  # (N): at b − 1, of the best b
    return float((np.sort(expected)[::-1] - worst_picked).max())


def _not_finite(exported: Mapping[str, Float32Array], on: str) -> Gate:
    count = sum(int((~np.isfinite(values)).sum()) for values in exported.values())
    return Gate("not_finite", float(count), 0.0, f"values of the ONNX outputs that are not finite, {on}")


@torch.no_grad()
def _torch_outputs(model: AnyScoringModel, images: NDArray[np.uint8]) -> dict[str, Float32Array]:
    parts = [model(part) for part in torch.split(torch.from_numpy(images), _BATCH)]
    return {
        name: torch.cat(outputs).numpy()
        for name, outputs in zip(OUTPUTS, zip(*parts, strict=True), strict=True)
    }
