"""What an experiment can be told: the paper's protocol by default, and each round's training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from topb_trainer.config import TrainConfig
from topb_trainer.errors import ConfigurationError


@dataclass(frozen=True)
class ProtocolConfig:
    """How many images are labelled when. Shares are of the training set."""

    initial: float = 0.10
    """Labelled at random before the first round."""
    step: float = 0.05
    """Labelled after each round but the last."""
    final: float = 0.40
    """Labelled in the last round."""
    train_images: int | None = None
    """Draw so many training images, the same for all seeds, and call them the training set; left out: all."""
    test_images: int | None = None
    """Draw so many test images, the same for all seeds; left out: all."""

    def __post_init__(self) -> None:
        if not (0 < self.initial <= self.final <= 1 and self.step > 0):
            raise ConfigurationError(
                "protocol: shares are 0 < initial ≤ final ≤ 1 and step > 0; "
                f"not {self.initial}, {self.final}, {self.step}",
                reason="INVALID_CONFIGURATION",
            )
        rounds = (self.final - self.initial) / self.step
        if abs(rounds - round(rounds)) > 1e-6:
            raise ConfigurationError(
                f"protocol: steps of {self.step} do not lead from {self.initial} to {self.final}",
                reason="INVALID_CONFIGURATION",
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """Labelled share in each round."""
        rounds = round((self.final - self.initial) / self.step)
        return tuple(round(self.initial + k * self.step, 9) for k in range(rounds + 1))

    def labelled_counts(self, train_images: int) -> tuple[int, ...]:
        """Returns how many images of the training set are labelled in each round.

        Raises:
            ConfigurationError: a round would label nothing new, or fewer than two images.
        """
        counts = tuple(round(share * train_images) for share in self.shares)
        if counts[0] < 2 or len(set(counts)) < len(counts):
            raise ConfigurationError(
                f"protocol: of {train_images} training images the rounds label "
                f"{', '.join(map(str, counts))}; expected at least 2, and more each round",
                reason="INVALID_CONFIGURATION",
            )
        return counts


@dataclass(frozen=True)
class ExperimentConfig:
    """An experiment: on what, in what rounds, with what training."""

    data: str | None = None
    """Name of a published data set, or path of training images: Parquet of id, label, and image or path, or a
    folder of class/file.jpg."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """Of each round. Its seed is the experiment's; the ablation switches and VAAL's KL are the methods'."""

    def as_settings(self) -> dict[str, Any]:
        """Returns what decides results, as plain values: not which data path, nor which of several GPUs."""
        train = self.train.as_dict()
        del train["seed"]
        train["device"] = self.train.device.partition(":")[0]
        for switch in ("adversary", "prediction", "ranking"):
            del train["cotrain"][switch]
        del train["vaal"]["kl_reduction"]
        return {"protocol": asdict(self.protocol), "train": train}
