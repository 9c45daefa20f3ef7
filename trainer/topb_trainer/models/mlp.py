"""Multilayer perceptrons. The paper builds encoder, decoder and assistant from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], *, activate_last: bool = False) -> nn.Sequential:
    """Return linear layers from sizes[0] to sizes[-1], with a ReLU after each but the last.

    Args:
        sizes: number of inputs, sizes of the hidden layers, number of outputs.
        activate_last: whether a ReLU follows the last layer too.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*(layers if activate_last else layers[:-1]))
