import math

from torch import Tensor

from align_bench.api import selection


@selection(paper="arXiv:2112.09332", kl_bound=lambda n: math.log(n) - (n - 1) / n)
def best_of_n(rewards: Tensor) -> Tensor:
    """Best of n: of n answers of the base, or of its start, the one with the highest reward; nothing is trained.

    Equation:
        y = argmax_i r(x, y_i),  y_1 … y_n ~ π_0(·|x);  KL(π ‖ π_0) ≤ log n − (n − 1)/n nats
        π_0: the base, or the policy that `start_from` names

    Args:
        rewards: the reward model's scores of the candidates, shape [prompts, n], in its own unit.

    Returns:
        The place of each prompt's pick, the first of equals, integer tensor of shape [prompts].

    Source:
        Nakano et al. 2021 (best of 4, 16 and 64, which is the range of n); the KL bound of Beirami et al. 2024
        (arXiv:2401.01879).

        Tests hold it to the highest reward among the candidates.

    Differs from the source:
        1. Candidates are answers of the suite's base by default; the source's policy is fine-tuned on demonstrations,
           as with `start_from: sft`.
    """
    return rewards.argmax(1)
