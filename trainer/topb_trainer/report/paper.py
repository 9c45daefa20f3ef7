"""The numbers of the paper's Tables 1 and 2, both on CIFAR-10, for comparison."""

from __future__ import annotations

from collections.abc import Mapping

SHARES = (0.15, 0.20, 0.25, 0.30, 0.35, 0.40)

TABLE_1: Mapping[str, tuple[float, ...]] = {
    "random": (80.25, 83.25, 84.72, 86.23, 87.47, 88.11),
    "adv_vae": (80.75, 81.90, 85.02, 86.88, 86.55, 88.43),
    "adv_vae_prediction": (81.55, 84.44, 87.54, 88.13, 88.50, 89.64),
    "loss_learn": (80.17, 83.33, 85.17, 85.22, 87.03, 87.21),
    "adv_vae_loss_learn": (81.32, 84.23, 86.91, 88.65, 88.94, 90.18),
    "aalu": (81.65, 85.51, 86.89, 88.19, 90.08, 90.73),
}
"""Accuracy in percent at each share: the mean of five runs."""

TABLE_2: Mapping[str, float] = {"core_set": 29.01, "vaal": 75.70, "aalu": 14.07}
"""Query time in seconds per 100 samples, on one TITAN V."""
