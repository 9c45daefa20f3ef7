"""Encoders that the user's own code makes: `package.module:factory`."""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from topb_trainer.encoders.source import TorchEncoder
from topb_trainer.encoders.weights import load_weights
from topb_trainer.errors import ConfigurationError


class FactoryEncoder(TorchEncoder):
    """A torch module that a function returns. It takes normalised images, float32 (N, 3, H, W), RGB."""

    def __init__(self, place: str, weights: str | None) -> None:
        """Name the function.

        Args:
            place: package.module:function. The function takes no arguments.
            weights: a file; None for the weights that the function gives the module.

        Raises:
            ConfigurationError: with reason WEIGHTS_UNAVAILABLE.
        """
        if weights in ("pretrained", "random"):
            raise ConfigurationError(
                f"the weights are to be {weights}, but the function {place} makes the module; let it "
                "give the module such weights, or give a file",
                reason="WEIGHTS_UNAVAILABLE",
            )
        self._place = place
        self._weights = weights

    def backbone(self, height: int, width: int) -> nn.Module:
        """Call the function, and return its module with its weights, in evaluation mode.

        Raises:
            ConfigurationError: with reason FACTORY_UNUSABLE, WEIGHTS_UNREADABLE or WEIGHTS_MISMATCH.
        """
        module_name, _, name = self._place.partition(":")
        try:
            module = getattr(importlib.import_module(module_name), name)()
        except Exception as error:
            # The user's code raises whatever it likes.
            raise ConfigurationError(
                f"the encoder {self._place} cannot be made: calling {name}() of {module_name} failed: "
                f"{type(error).__name__}: {error}; expected a function without arguments that returns a "
                "torch module. Is its directory in PYTHONPATH?",
                reason="FACTORY_UNUSABLE",
            ) from error
        if not isinstance(module, nn.Module):
            raise ConfigurationError(
                f"{self._place} returned a {type(module).__name__}; expected a torch module",
                reason="FACTORY_UNUSABLE",
            )
        if self._weights is not None:
            load_weights(module, Path(self._weights))
        return module.eval()
