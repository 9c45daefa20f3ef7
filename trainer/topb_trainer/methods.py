"""The methods that select images: the methods of the paper's Fig. 2, and the ablations of its Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from topb_trainer.config import CotrainConfig, Reduction, TrainConfig
from topb_trainer.errors import ConfigurationError

SelectorKind = Literal["assistant", "vaal", "none"]
"""What is trained beside T: VAE and assistant on its features, VAAL on images, or nothing."""


@dataclass(frozen=True)
class Method:
    """A way to select the next images: a selector to train beside T, and a query strategy of the scorer."""

    name: str
    title: str
    """The name in tables and figures. It is the paper's name if the paper has one."""
    strategy: str
    """The query strategy with which the scorer selects from the exported bundle."""
    kind: SelectorKind = "none"
    adversary: bool = True
    """The switches of `CotrainConfig`, for the kind "assistant"."""
    prediction: bool = True
    ranking: bool = True
    kl_reduction: Reduction = "sum"
    """The value of `VaalConfig.kl_reduction`, for the kind "vaal"."""

    @property
    def is_ablation(self) -> bool:
        """Whether the method trains an assistant but lacks a part of AALU."""
        return self.kind == "assistant" and not (self.adversary and self.prediction and self.ranking)

    def configured(self, config: TrainConfig) -> TrainConfig:
        """Return a copy of `config` with the switches of this method."""
        if self.kind == "assistant":
            cotrain = replace(
                config.cotrain, adversary=self.adversary, prediction=self.prediction, ranking=self.ranking
            )
            return replace(config, cotrain=cotrain)
        if self.kind == "vaal":
            return replace(config, vaal=replace(config.vaal, kl_reduction=self.kl_reduction))
        return config


METHODS = {
    method.name: method
    for method in (
        Method("random", "Random", "random"),
        Method("entropy", "Entropy", "entropy"),
        Method("core_set", "Core-set", "core_set"),
        Method("vaal", "VAAL", "vaal", "vaal"),
        Method("vaal_mean_kl", "VAAL, mean KL", "vaal", "vaal", kl_reduction="mean"),
        Method("adv_vae", "advVAE", "aalu", "assistant", prediction=False, ranking=False),
        Method("adv_vae_prediction", "advVAE+Prediction", "aalu", "assistant", ranking=False),
        Method("loss_learn", "lossLearn", "aalu", "assistant", adversary=False),
        Method(
            "loss_learn_without_prediction",
            "lossLearn without prediction",
            "aalu",
            "assistant",
            adversary=False,
            prediction=False,
        ),
        Method("adv_vae_loss_learn", "advVAE+lossLearn", "aalu", "assistant", prediction=False),
        Method("aalu", "AALU", "aalu", "assistant"),
    )
}
"""Every method by name, in the order of the paper's tables."""


def methods_named(names: Sequence[str]) -> list[Method]:
    """Return the methods with these names, each once, in the given order.

    Raises:
        ConfigurationError: a name is unknown, or `names` is empty.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ConfigurationError(
            f"{'no method ' + repr(unknown[0]) if unknown else 'no method is named'}; "
            f"choose from {', '.join(METHODS)}",
            reason="METHOD_UNKNOWN",
        )
    return [METHODS[name] for name in dict.fromkeys(names)]


def assistant_method(cotrain: CotrainConfig) -> Method:
    """Return the method that has the switches of `cotrain`: AALU or an ablation."""
    switches = (cotrain.adversary, cotrain.prediction, cotrain.ranking)
    return next(
        method
        for method in METHODS.values()
        if method.kind == "assistant" and (method.adversary, method.prediction, method.ranking) == switches
    )
