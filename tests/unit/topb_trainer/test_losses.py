"""Each equation compared with the paper, written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.distributions import Normal, kl_divergence

from topb_trainer.losses import (
    assistant_adversarial_loss,
    assistant_loss,
    negative_elbo,
    ranking_loss,
    vae_adversarial_loss,
    vae_loss,
)

Array = NDArray[np.float64]

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.normal(scale=2, size=shape) for shape in shapes]


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@given(seeds, st.integers(1, 9))
def test_equation_1_is_the_negative_evidence_lower_bound(seed: int, count: int) -> None:
    f, f_hat, mu, log_variance = tensors(*drawn(seed, (count, 5), (count, 5), (count, 3), (count, 3)))
    # A decoder of variance ½, without the constant of its density.
    log_likelihood = Normal(f_hat, math.sqrt(0.5)).log_prob(f).sum(1) + 5 / 2 * math.log(math.pi)  # (N)
    kl = kl_divergence(Normal(mu, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)  # (N)
    expected = (kl - log_likelihood).mean().item()
    assert negative_elbo(f, f_hat, mu, log_variance).item() == pytest.approx(expected, rel=1e-12)


def test_the_kl_can_be_summed_over_the_batch_as_in_vaal() -> None:
    f, mu, log_variance = drawn(0, (6, 5), (6, 3), (6, 3))
    same = tensors(f, f, mu, log_variance)
    mean = negative_elbo(*same)
    assert negative_elbo(*same, kl_reduction="sum").item() == pytest.approx(6 * mean.item())


@given(seeds, st.integers(1, 7), st.integers(1, 9))
def test_equation_5_has_the_target_labelled_for_both_kinds_and_equation_7_the_true_kind(
    seed: int, labelled: int, unlabelled: int
) -> None:
    logits = drawn(seed, (labelled,), (unlabelled,))
    a_l, a_u = map(sigmoid, logits)
    fool = -np.mean(np.log(1 - a_l)) - np.mean(np.log(1 - a_u))
    tell = -np.mean(np.log(1 - a_l)) - np.mean(np.log(a_u))
    assert vae_adversarial_loss(*tensors(*logits)).item() == pytest.approx(fool, rel=1e-12)
    assert assistant_adversarial_loss(*tensors(*logits)).item() == pytest.approx(tell, rel=1e-12)


@pytest.mark.parametrize("loss", [vae_adversarial_loss, assistant_adversarial_loss])
def test_adversarial_losses_stay_finite_if_the_assistant_is_certain(loss) -> None:
    for sign in (-1, 1):
        logits = torch.full((4,), sign * 1e4, requires_grad=True)
        value = loss(logits, logits)
        value.backward()
        assert torch.isfinite(value)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


@given(seeds, st.integers(1, 8), st.floats(0, 1))
def test_equation_8_pairs_sample_i_with_n_plus_i(seed: int, n: int, margin: float) -> None:
    raw, losses = drawn(seed, (2 * n,), (2 * n,))
    losses[0] = losses[n] if seed % 2 else losses[0]  # sometimes a tie, whose sign is 0
    scores = sigmoid(raw)
    pairs = [
        max(0.0, -np.sign(losses[i] - losses[n + i]) * (scores[i] - scores[n + i]) + margin) for i in range(n)
    ]
    expected = pytest.approx(np.mean(pairs), rel=1e-12, abs=1e-15)
    assert ranking_loss(*tensors(scores, losses), margin).item() == expected


def test_equation_8_is_zero_once_the_harder_scores_higher_by_the_margin() -> None:
    scores, losses = torch.tensor([0.9, 0.2, 0.7, 0.4]), torch.tensor([3.0, 0.1, 1.0, 0.5])
    assert ranking_loss(scores, losses, 0.1).item() == 0
    assert ranking_loss(scores, -losses, 0.1).item() == pytest.approx(0.3)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((4,), (2,)), ((0,), (0,)), ((4, 1), (4, 1))])
def test_equation_8_refuses_samples_that_cannot_be_paired(shapes) -> None:
    with pytest.raises(ValueError, match="2n"):
        ranking_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 0.1)


def test_equations_6_and_9_weigh_their_terms() -> None:
    two, five = torch.tensor(2.0), torch.tensor(5.0)
    assert vae_loss(two, five, beta=0.5).item() == 4.5
    assert assistant_loss(two, five, ranking_weight=10).item() == 52
