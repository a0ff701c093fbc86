from align_bench.api import Loss, PairLogps, algorithm


@algorithm(
    paper="arXiv:2502.00883",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    reward="e^s̄",
    normalised=True,
)
def simper(logps: PairLogps) -> Loss:
    """SimPER: raises the inverse perplexity of chosen answers, lowers that of rejected ones, without hyper-parameters.

    Equation:
        −e^s̄_w + e^s̄_l,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.

    Returns:
        Per-example loss, between −1 and 1, and the rewards e^s̄ (inverse perplexity), each of shape [rows].

    Source:
        Xiao et al. 2025, and the authors' code.

        Not in TRL.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The rewards are what the loss compares; the authors' code notes s̄.
        2. The default learning rate suits LoRA adapters, as SimPO's here (3e-7 to 1e-6 in the authors' runs).
    """
    chosen, rejected = logps.chosen_mean.exp(), logps.rejected_mean.exp()
    return Loss(rejected - chosen, chosen_rewards=chosen, rejected_rewards=rejected)
