"""Multilayer perceptrons: what the paper builds encoder, decoder and assistant from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], *, activate_last: bool = False) -> nn.Sequential:
    """Returns linear layers from sizes[0] to sizes[-1], a ReLU between each two, after the last if asked."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*(layers if activate_last else layers[:-1]))
