"""Each equation compared with the paper, written out in NumPy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

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
    f, f_hat, mu, log_variance = drawn(seed, (count, 5), (count, 5), (count, 3), (count, 3))
    total = 0.0
    for i in range(count):
        # A Gaussian decoder of variance 1/2, without the constant of its density.
        log_likelihood = -sum((f[i, d] - f_hat[i, d]) ** 2 for d in range(5))
        kl = 0.0
        for d in range(3):
            variance = np.exp(log_variance[i, d])
            kl += 0.5 * (variance + mu[i, d] ** 2 - 1 - np.log(variance))
        total += -(log_likelihood - kl)
    assert negative_elbo(*tensors(f, f_hat, mu, log_variance)).item() == pytest.approx(
        total / count, rel=1e-12
    )


def test_equation_1_s_kl_is_that_of_two_gaussians_by_integration() -> None:
    mu, sigma = 0.7, 1.3
    z = np.linspace(-15, 15, 200_001)
    q = np.exp(-((z - mu) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    log_p = -(z**2) / 2 - np.log(np.sqrt(2 * np.pi))
    log_q = -((z - mu) ** 2) / (2 * sigma**2) - np.log(sigma * np.sqrt(2 * np.pi))
    integral = float((q * (log_q - log_p)).sum() * (z[1] - z[0]))
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    mean, log_variance = tensors(np.array([[mu]]), np.array([[np.log(sigma**2)]]))
    assert negative_elbo(nothing, nothing, mean, log_variance).item() == pytest.approx(integral, rel=1e-9)


def test_kl_may_be_summed_over_the_batch_as_vaal_publishes_it() -> None:
    f, mu, log_variance = drawn(0, (6, 5), (6, 3), (6, 3))
    same = tensors(f, f, mu, log_variance)
    mean = negative_elbo(*same)
    assert negative_elbo(*same, kl_reduction="sum").item() == pytest.approx(6 * mean.item())


@given(seeds, st.integers(1, 7), st.integers(1, 9))
def test_equation_5_asks_for_the_answer_labelled_on_both(seed: int, labelled: int, unlabelled: int) -> None:
    l_logits, u_logits = drawn(seed, (labelled,), (unlabelled,))
    expected = -np.mean(np.log(1 - sigmoid(l_logits))) - np.mean(np.log(1 - sigmoid(u_logits)))
    assert vae_adversarial_loss(*tensors(l_logits, u_logits)).item() == pytest.approx(expected, rel=1e-12)


@given(seeds, st.integers(1, 7), st.integers(1, 9))
def test_equation_7_asks_for_both_to_be_told_apart(seed: int, labelled: int, unlabelled: int) -> None:
    l_logits, u_logits = drawn(seed, (labelled,), (unlabelled,))
    expected = -np.mean(np.log(1 - sigmoid(l_logits))) - np.mean(np.log(sigmoid(u_logits)))
    assert assistant_adversarial_loss(*tensors(l_logits, u_logits)).item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("loss", [vae_adversarial_loss, assistant_adversarial_loss])
def test_adversarial_losses_stay_finite_where_the_assistant_is_sure(loss) -> None:
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
    total = 0.0
    for i in range(n):
        total += max(0.0, -np.sign(losses[i] - losses[n + i]) * (scores[i] - scores[n + i]) + margin)
    assert ranking_loss(*tensors(scores, losses), margin).item() == pytest.approx(
        total / n, rel=1e-12, abs=1e-15
    )


def test_equation_8_is_zero_once_the_harder_scores_higher_by_the_margin() -> None:
    scores, losses = torch.tensor([0.9, 0.2, 0.7, 0.4]), torch.tensor([3.0, 0.1, 1.0, 0.5])
    assert ranking_loss(scores, losses, 0.1).item() == 0
    assert ranking_loss(scores, -losses, 0.1).item() == pytest.approx(0.3)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((4,), (2,)), ((0,), (0,)), ((4, 1), (4, 1))])
def test_equation_8_refuses_what_cannot_be_paired(shapes) -> None:
    with pytest.raises(ValueError, match="2n"):
        ranking_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 0.1)


def test_equations_6_and_9_weigh_their_terms() -> None:
    two, five = torch.tensor(2.0), torch.tensor(5.0)
    assert vae_loss(two, five, beta=0.5).item() == 4.5
    assert assistant_loss(two, five, ranking_weight=10).item() == 52
