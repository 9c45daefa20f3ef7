"""The paper's losses, one function an equation (Zhu and Wang, AALU, equations 1–9).

The assistant A answers 0 for "labelled" and 1 for "unlabelled". It comes here as logits x wherever the paper
takes a logarithm of it, as −log A = −log σ(x) and −log(1 − A) = −log σ(−x) stay finite for any logit, and as
its output in [0, 1] where the paper compares outputs (eq. 8). 𝔼 is the mean over a mini-batch.

Equations 2 and 4 are equations 5 and 7 on z in place of m = [z, p]: the same functions, on the logits of an
assistant that was given no prediction.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from topb_trainer.config import Reduction


def negative_elbo(
    features: Tensor,
    reconstruction: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    kl_reduction: Reduction = "mean",
) -> Tensor:
    """Eq. 1: what the VAE's encoder and decoder minimise to represent the features.

    The paper speaks of minimising a lower bound and swaps the letters of encoder and decoder. What can be
    minimised is the negative of the bound: ‖f − f̂‖² + KL(N(μ, σ²) ‖ N(0, I)). The squared error is the
    negative log-likelihood of a Gaussian decoder of variance ½, without its constant.

    Args:
        features: float (N, D), f.
        reconstruction: float (N, D), f̂, decoded from z ~ N(μ, σ²).
        mean: float (N, Z), μ.
        log_variance: float (N, Z), log σ².
        kl_reduction: how the KL terms of a batch are reduced; the error is always averaged. "sum" weighs the
            KL by the batch size, as VAAL's code does.

    Returns:
        float (): summed over dimensions, reduced over the batch.
    """
    squared_error = (features - reconstruction).square().sum(1)  # (N)
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)  # (N)
    return squared_error.mean() + (kl.mean() if kl_reduction == "mean" else kl.sum())


def vae_adversarial_loss(labelled_logits: Tensor, unlabelled_logits: Tensor) -> Tensor:
    """Eq. 5 (and 2): the VAE wants A to call both labelled: −𝔼[log(1 − A(m_L))] − 𝔼[log(1 − A(m_U))].

    Args:
        labelled_logits: float (L), A's logits of labelled samples.
        unlabelled_logits: float (U), A's logits of unlabelled samples.

    Returns:
        float ().
    """
    return -F.logsigmoid(-labelled_logits).mean() - F.logsigmoid(-unlabelled_logits).mean()


def vae_loss(representation_loss: Tensor, adversarial_loss: Tensor, beta: float) -> Tensor:
    """Eq. 6 (and 3): L_rep + β L_adv, what the VAE minimises; () from ()."""
    return representation_loss + beta * adversarial_loss


def assistant_adversarial_loss(labelled_logits: Tensor, unlabelled_logits: Tensor) -> Tensor:
    """Eq. 7 (and 4): A wants to tell them apart: −𝔼[log(1 − A(m_L))] − 𝔼[log A(m_U)].

    Args:
        labelled_logits: float (L), A's logits of labelled samples.
        unlabelled_logits: float (U), A's logits of unlabelled samples.

    Returns:
        float ().
    """
    return -F.logsigmoid(-labelled_logits).mean() - F.logsigmoid(unlabelled_logits).mean()


def ranking_loss(scores: Tensor, task_losses: Tensor, margin: float) -> Tensor:
    """Eq. 8: of two labelled samples, A shall score the one with the larger task loss higher, by `margin`.

    1/n Σᵢ max(0, −sgn(lᵢ − lₙ₊ᵢ)(A(mᵢ) − A(mₙ₊ᵢ)) + ξ). Of two equal losses sgn is 0, and the pair adds ξ.

    Args:
        scores: float (2n), A's outputs in [0, 1] for labelled samples; sample i is paired with n + i.
        task_losses: float (2n), the task model's loss for the same samples.
        margin: ξ.

    Returns:
        float ().

    Raises:
        ValueError: the samples cannot be paired.
    """
    if scores.shape != task_losses.shape or scores.ndim != 1 or len(scores) % 2 or not len(scores):
        raise ValueError(
            f"scores {tuple(scores.shape)}, task losses {tuple(task_losses.shape)}; expected both (2n), n ≥ 1"
        )
    n = len(scores) // 2
    sign = (task_losses[:n] - task_losses[n:]).sign()  # (n)
    return (margin - sign * (scores[:n] - scores[n:])).relu().mean()


def assistant_loss(adversarial_loss: Tensor, ranking: Tensor, ranking_weight: float) -> Tensor:
    """Eq. 9: L_adv + λ L_loss, what the assistant minimises; () from ()."""
    return adversarial_loss + ranking_weight * ranking
