"""The settings of an experiment: its protocol, which defaults to the paper's, and the training of each
round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import Any

from topb_trainer.config import TrainConfig
from topb_trainer.encoders.recorded import recorded_settings
from topb_trainer.errors import ConfigurationError


@dataclass(frozen=True)
class ProtocolConfig:
    """How many images are labelled in each round. Shares are relative to the training set."""

    initial: float = 0.10
    """Share of the images that are labelled at random before the first round. The paper starts with 10 %."""
    step: float = 0.05
    """Share of the images that are labelled after each round except the last. The paper adds 5 %."""
    final: float = 0.40
    """Share of the images that are labelled in the last round. The curves of the paper end at 40 %."""
    train_images: int | None = None
    """Number of training images to draw, the same for all seeds, to make experiments smaller. By default, all
    are used."""
    test_images: int | None = None
    """Number of test images to draw, the same for all seeds. By default, all are used."""

    def __post_init__(self) -> None:
        if not (0 < self.initial <= self.final <= 1 and self.step > 0):
            raise ConfigurationError(
                f"protocol: initial, final and step are {self.initial}, {self.final} and {self.step}; "
                "expected 0 < initial ≤ final ≤ 1 and step > 0",
                reason="INVALID_CONFIGURATION",
            )
        steps = (self.final - self.initial) / self.step
        if abs(steps - round(steps)) > 1e-6:
            raise ConfigurationError(
                f"protocol: final is {self.final}; expected {self.initial} plus a multiple of {self.step}",
                reason="INVALID_CONFIGURATION",
            )
        if self.train_images is not None:
            self.labelled_counts(self.train_images)

    @property
    def shares(self) -> tuple[float, ...]:
        """The labelled share of each round."""
        steps = round((self.final - self.initial) / self.step)
        return tuple(round(self.initial + k * self.step, 9) for k in range(steps + 1))

    def labelled_counts(self, train_images: int) -> tuple[int, ...]:
        """Return the number of labelled images of each round, for a training set of `train_images`.

        Raises:
            ConfigurationError: a round would label no image, or the first round has fewer than two.
        """
        counts = tuple(round(share * train_images) for share in self.shares)
        if counts[0] < 2 or len(set(counts)) < len(counts):
            raise ConfigurationError(
                f"protocol: with {train_images} training images, the rounds have "
                f"{', '.join(map(str, counts))} labelled images; expected at least 2, and more each round",
                reason="INVALID_CONFIGURATION",
            )
        return counts


REPLACED = {
    "train.seed": "--first-seed",
    "train.cotrain.adversary": "--methods",
    "train.cotrain.prediction": "--methods",
    "train.cotrain.ranking": "--methods",
    "train.vaal.kl_reduction": "--methods",
}
"""The settings of the training that an experiment sets itself, each with the option that decides it."""


def refuse_replaced(given: Mapping[str, Any]) -> None:
    """Raise an error if a setting is given that the experiment would replace.

    Args:
        given: the values that are given, by setting.

    Raises:
        ConfigurationError: one of them is in `REPLACED`.
    """
    for name in REPLACED:
        if name in given:
            raise ConfigurationError(
                f"{name} is {given[name]}, but an experiment sets it by {REPLACED[name]}; leave it out",
                reason="SETTING_NOT_USED",
            )


@dataclass(frozen=True)
class ExperimentConfig:
    """The data set, the protocol and the training of an experiment."""

    data: str | None = None
    """Name of a published data set, or path of labelled training images, as `topb train`
    takes them."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training of each round. --seeds and --first-seed set its seed. The methods set the ablation
    switches and the KL reduction of VAAL. These five settings must keep their defaults."""

    def __post_init__(self) -> None:
        for name in REPLACED:
            value, usual = (
                attrgetter(name.removeprefix("train."))(one) for one in (self.train, TrainConfig())
            )
            refuse_replaced({name: value} if value != usual else {})

    def as_settings(self) -> dict[str, Any]:
        """Return the settings that determine results, as JSON values.

        The path of the data and the index of the GPU are left out because they may change between runs.
        """
        train = recorded_settings(replace(self.train, task=self.train.task.resolved()))
        del train["seed"]
        train["device"] = self.train.device.partition(":")[0]
        for switch in ("adversary", "prediction", "ranking"):
            del train["cotrain"][switch]
        del train["vaal"]["kl_reduction"]
        return {"protocol": asdict(self.protocol), "train": train}
