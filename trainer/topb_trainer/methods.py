"""The methods that an experiment compares: those of the paper's Fig. 2, and the ablations of its Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from topb_trainer.config import TrainConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.losses import Reduction
from topb_trainer.rounds import SelectorKind


@dataclass(frozen=True)
class Method:
    """What picks the next images: what is trained beside T, and the query strategy of the scorer."""

    name: str
    title: str
    """As the paper writes it."""
    strategy: str
    """By which the scorer picks from the exported bundle."""
    kind: SelectorKind = "none"
    adversary: bool = True
    """Of `kind` "assistant": the switches of `CotrainConfig`."""
    prediction: bool = True
    ranking: bool = True
    kl_reduction: Reduction = "sum"
    """Of `kind` "vaal"."""

    def configured(self, config: TrainConfig) -> TrainConfig:
        """Returns the settings with this method's switches."""
        if self.kind == "assistant":
            return replace(
                config,
                cotrain=replace(
                    config.cotrain,
                    adversary=self.adversary,
                    prediction=self.prediction,
                    ranking=self.ranking,
                ),
            )
        if self.kind == "vaal":
            return replace(config, vaal=replace(config.vaal, kl_reduction=self.kl_reduction))
        return config


_ALL = (
    Method("random", "Random", "random"),
    Method("entropy", "Entropy", "entropy"),
    Method("core_set", "Core-set", "core_set"),
    Method("vaal", "VAAL", "vaal", "vaal"),
    Method("vaal_mean_kl", "VAAL, mean KL", "vaal", "vaal", kl_reduction="mean"),
    Method("adv_vae", "advVAE", "aalu", "assistant", prediction=False, ranking=False),
    Method("adv_vae_prediction", "advVAE+Prediction", "aalu", "assistant", ranking=False),
    Method("loss_learn", "lossLearn", "aalu", "assistant", adversary=False),
    Method("adv_vae_loss_learn", "advVAE+lossLearn", "aalu", "assistant", prediction=False),
    Method("aalu", "AALU", "aalu", "assistant"),
)

METHODS = {method.name: method for method in _ALL}
"""By name, in the order of the paper's tables."""


def methods_named(names: Sequence[str]) -> list[Method]:
    """Returns the methods of these names, each once, in the order given.

    Raises:
        ConfigurationError: there is no such method, or none is named.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ConfigurationError(
            f"{'no method ' + repr(unknown[0]) if unknown else 'no method is named'}; "
            f"there are {', '.join(METHODS)}",
            reason="METHOD_UNKNOWN",
        )
    return [METHODS[name] for name in dict.fromkeys(names)]
