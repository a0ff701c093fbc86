from typing import Annotated

from annotated_types import Ge

from align_bench.api import PairJob, recipe

from ._trl import find_trainer, labelled, missing, train_pairs


@recipe(
    data="pairs",
    paper="arXiv:2403.07691",
    learning_rate=5e-5,
    learning_rate_range=(1e-5, 5e-4),
    libraries=("trl",),
    obstacle=lambda: missing("ORPO", "trl.experimental.orpo"),
)
def trl_orpo(job: PairJob, *, lambda_: Annotated[float, Ge(0)] = 0.1) -> None:
    """Odds Ratio Preference Optimization by TRL's ORPOTrainer.

    Equation:
        NLL − λ·log σ(logit e^s̄_w − logit e^s̄_l),  logit e^a = a − log(1 − e^a),
        NLL the mean over all tokens of the micro-batch's prompts and chosen answers

    Args:
        job: the training.
        lambda_: weight of the odds-ratio term, no unit; TRL's `beta`.

    Source:
        trl.experimental.orpo.ORPOTrainer; Hong et al. 2024, equations 6 and 7.

        Tests hold it to the training of `orpo`: losses, gradient norms, and what the trained model says.

    Differs from orpo:
        1. The likelihood term covers the prompt, too, and is a mean over tokens; ours is the mean over answers of each
           answer's own mean. They agree where prompts have one token and chosen answers have equal lengths, and in
           effect nowhere else.
    """
    train_pairs(job, *find_trainer("ORPO", "trl.experimental.orpo"), labelled, beta=lambda_)
