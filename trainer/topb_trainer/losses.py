"""The losses of the paper (Zhu and Wang, AALU). Each of the equations 1 to 9 has a function.

The assistant A answers 0 for "labelled" and 1 for "unlabelled". Equations 2 to 7 take the logarithm of A.
Their functions take logits x instead, with A = σ(x), because −log A = −log σ(x) and −log(1 − A) = −log σ(−x)
stay finite for every x. Equation 8 compares outputs of A, so its function takes A itself. The expectation 𝔼
is the mean over a mini-batch.

Equations 2 to 4 are equations 5 to 7 with z in place of m = [z, p]. The same functions compute them, with an
assistant that does not see the prediction p.
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
    """Return the representation loss of the VAE, eq. 1: ‖f − f̂‖² + KL(N(μ, σ²) ‖ N(0, I)).

    The paper says that the lower bound is minimised, and swaps the letters of encoder and decoder. This
    function returns the negative of the bound, which can be minimised. The squared error is the negative
    log-likelihood of a Gaussian decoder with variance ½, without its constant.

    Args:
        features: float (N, D), f.
        reconstruction: float (N, D), f̂, decoded from z ~ N(μ, σ²).
        mean: float (N, Z), μ.
        log_variance: float (N, Z), log σ².
        kl_reduction: how the KL divergences of the mini-batch are reduced. "sum", as in the code of VAAL,
            multiplies their weight by N. The squared error is always averaged.

    Returns:
        The loss, float (), summed over dimensions and reduced over the mini-batch.
    """
    squared_error = (features - reconstruction).square().sum(1)  # (N)
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)  # (N)
    return squared_error.mean() + (kl.mean() if kl_reduction == "mean" else kl.sum())  # ()


def vae_adversarial_loss(labelled_logits: Tensor, unlabelled_logits: Tensor) -> Tensor:
    """Return the VAE's adversarial loss, eq. 5 (and 2): −𝔼[log(1 − A(m_L))] − 𝔼[log(1 − A(m_U))].

    It trains the VAE to make both kinds of samples look labelled.

    Args:
        labelled_logits: float (L), logits of A for labelled samples.
        unlabelled_logits: float (U), logits of A for unlabelled samples.

    Returns:
        The loss, float ().
    """
    return -F.logsigmoid(-labelled_logits).mean() - F.logsigmoid(-unlabelled_logits).mean()  # ()


def vae_loss(representation_loss: Tensor, adversarial_loss: Tensor, beta: float) -> Tensor:
    """Return the loss of the VAE, eq. 6 (and 3): L_rep + β L_adv. All are float ()."""
    return representation_loss + beta * adversarial_loss  # ()


def assistant_adversarial_loss(labelled_logits: Tensor, unlabelled_logits: Tensor) -> Tensor:
    """Return the assistant's adversarial loss, eq. 7 (and 4): −𝔼[log(1 − A(m_L))] − 𝔼[log A(m_U)].

    It trains the assistant to distinguish the two kinds of samples.

    Args:
        labelled_logits: float (L), logits of A for labelled samples.
        unlabelled_logits: float (U), logits of A for unlabelled samples.

    Returns:
        The loss, float ().
    """
    return -F.logsigmoid(-labelled_logits).mean() - F.logsigmoid(unlabelled_logits).mean()  # ()


def ranking_loss(scores: Tensor, task_losses: Tensor, margin: float) -> Tensor:
    """Return the ranking loss, eq. 8: 1/n Σᵢ max(0, −sgn(lᵢ − lₙ₊ᵢ) (A(mᵢ) − A(mₙ₊ᵢ)) + ξ).

    Of each pair of labelled samples, the one with the larger task loss should score higher, by the margin ξ.
    If the two losses are equal, sgn is 0, so the pair contributes ξ and no gradient.

    Args:
        scores: float (2n), outputs of A in [0, 1] for labelled samples. Sample i is paired with n + i.
        task_losses: float (2n), l, the loss of the task model for the same samples.
        margin: ξ.

    Returns:
        The loss, float ().

    Raises:
        ValueError: the samples cannot be paired.
    """
    if scores.shape != task_losses.shape or scores.ndim != 1 or len(scores) % 2 or not len(scores):
        raise ValueError(
            f"scores have shape {tuple(scores.shape)}, task losses {tuple(task_losses.shape)}; "
            "expected the shape (2n), n ≥ 1, for both"
        )
    n = len(scores) // 2
    sign = (task_losses[:n] - task_losses[n:]).sign()  # (n)
    return (margin - sign * (scores[:n] - scores[n:])).relu().mean()  # ()


def assistant_loss(adversarial_loss: Tensor, ranking: Tensor, ranking_weight: float) -> Tensor:
    """Return the loss of the assistant, eq. 9: L_adv + λ L_loss. All are float ()."""
    return adversarial_loss + ranking_weight * ranking  # ()
