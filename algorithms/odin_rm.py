from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import LengthHead, LengthHeadScores, Loss, algorithm


@algorithm(
    paper="arXiv:2402.07319",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="r",
    auxiliary=LengthHead,
)
def odin_rm(
    scores: LengthHeadScores,
    *,
    length_weight: Annotated[float, Ge(0)] = 1.0,
    orthogonality: Annotated[float, Ge(0)] = 1.0,
    centering: Annotated[float, Ge(0)] = 0.01,
) -> Loss:
    """ODIN reward model: two heads, one drawn to length and one away from it; the second alone is kept.

    Equation:
        −log σ((r_w + q_w) − (r_l + q_l)) + λ_L·(|ρ(r, |y|)| − ρ(q, |y|)) + λ_O·|cos(W_r, W_q)| + c·(r_w + r_l)²,
        ρ: Pearson's correlation over all answers of the batch

    Args:
        scores: scores of the quality head (r) and the length head (q), no unit, shape [rows], and those of the batch.
        length_weight: λ_L, weight of the correlations, no unit; the paper uses 1.
        orthogonality: λ_O, weight of the cosine between the heads' weights W_r and W_q, no unit; 1 in
            the paper.
        centering: c, weight of the term that keeps scores near 0, no unit; as in rm.

    Returns:
        Per-example loss and the quality head's scores as rewards, each of shape [rows].

    Source:
        Chen et al. 2024, the losses L^R, L^L and L^O.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The correlations are taken over the whole effective batch, not over a micro-batch.
        2. The orthogonality term is the cosine, which no shrinking of the weights can lower.
        3. The centring term, as in rm.
    """
    pair = (scores.chosen + scores.length_chosen) - (scores.rejected + scores.length_rejected)
    quality = _length_correlation(scores, scores.chosen, scores.rejected, scores.batch_scores)
    length = _length_correlation(scores, scores.length_chosen, scores.length_rejected, scores.batch_length_scores)
    direction = _pearson(scores.batch_scores, scores.batch_tokens).sign()
    values = -logsigmoid(pair) + length_weight * (direction * quality - length)
    values = values + orthogonality * scores.head_cosine.abs()
    return Loss(
        values + centering * (scores.chosen + scores.rejected).square(),
        chosen_rewards=scores.chosen,
        rejected_rewards=scores.rejected,
        metrics={"length_correlation": quality.detach(), "head_length_correlation": length.detach()},
    )


def _length_correlation(scores: LengthHeadScores, chosen: Tensor, rejected: Tensor, batch_values: Tensor) -> Tensor:
    """The correlation of one head's scores with length, as the mean over both answers of each pair."""
    sides = (chosen, scores.chosen_tokens), (rejected, scores.rejected_tokens)
    won, lost = (_correlation(values, tokens, batch_values, scores.batch_tokens) for values, tokens in sides)
    return (won + lost) / 2


def _correlation(values: Tensor, tokens: Tensor, batch_values: Tensor, batch_tokens: Tensor) -> Tensor:
    """Terms whose mean over the batch is Pearson's ρ, and whose gradients are those of ρ.

    With z-scores by the batch's mean and spread, both held constant, the derivative of z·z' − ρ/2·(z² − 1) by a value
    is (z' − ρz)/σ: that of n·ρ itself.
    """
    z = (values - batch_values.mean()) / _spread(batch_values)
    z_tokens = (tokens - batch_tokens.to(values).mean()) / _spread(batch_tokens.to(values))
    return z * z_tokens - _pearson(batch_values, batch_tokens) / 2 * (z.square() - 1)


def _pearson(values: Tensor, tokens: Tensor) -> Tensor:
    tokens = tokens.to(values)
    covariance = ((values - values.mean()) * (tokens - tokens.mean())).mean()
    return covariance / (_spread(values) * _spread(tokens))


def _spread(values: Tensor) -> Tensor:
    """Standard deviation over the batch, kept off 0: values that are all equal correlate with nothing."""
    return values.std(correction=0).clamp(min=torch.finfo(values.dtype).eps)
