from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import BiasExpert, BiasExpertScores, Loss, algorithm


@algorithm(
    paper="arXiv:2310.05199",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="r",
    auxiliary=lambda noise, length_expert, bias_rate: BiasExpert(
        length_only=length_expert, noise=noise, learning_rate_factor=bias_rate
    ),
)
def poe_rm(
    scores: BiasExpertScores,
    *,
    noise: Annotated[float, Ge(0)] = 1.0,
    length_expert: bool = False,
    bias_rate: Annotated[float, Gt(0)] = 10.0,
    bias_weight: Annotated[float, Ge(0)] = 0.0,
    centering: Annotated[float, Ge(0)] = 0.01,
) -> Loss:
    """Product-of-Experts reward model: a small expert takes up the bias, and is dropped after training.

    Equation:
        −log σ((r_w + b_w) − (r_l + b_l)) − α·log σ(b_w − b_l) + c·(r_w + r_l)²

    Args:
        scores: scores of the main expert (r) and of the bias expert (b), no unit, shape [rows].
        noise: standard deviation of the noise on the bias expert's input embeddings, × their rms, no unit;
            0 is an ablation.
        length_expert: the bias expert reads the answer's token count alone, and no embedding; an ablation.
        bias_rate: learning rate of the bias expert, × that of the main one.
        bias_weight: α, weight of the bias expert's own loss, no unit; 0 is the published objective.
        centering: c, weight of the term that keeps scores near 0, no unit; as in rm.

    Returns:
        Per-example loss and the main expert's scores as rewards, each of shape [rows].

    Source:
        Shen et al. 2023, section 3.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The bias expert is a recurrent network of 32 units over the frozen input embeddings, not a language model.
        2. The bias expert's own loss, on request. Nothing in the published objective says which of the two experts is
           to hold the length, so that the main one keeps what it learnt first. On the embedded set (suite debias, seed
           0) the published objective lowers the partial correlation of r with length from 0.73 to 0.56, and r is right
           more often than rm where the right answer is the shorter (0.53 against 0.39). With length_expert and α = 1
           these are 0.23 and 0.71.
        3. The centring term, as in rm.
    """
    difference = scores.chosen - scores.rejected
    bias = scores.bias_chosen - scores.bias_rejected
    values = -logsigmoid(difference + bias) - bias_weight * logsigmoid(bias)
    longer = scores.chosen_tokens - scores.rejected_tokens
    return Loss(
        values + centering * (scores.chosen + scores.rejected).square(),
        chosen_rewards=scores.chosen,
        rejected_rewards=scores.rejected,
        metrics={"bias_accuracy": 0.5 * (bias.sign() + 1)},
        correlations={"length_correlation": (difference, longer), "bias_length_correlation": (bias, longer)},
    )
