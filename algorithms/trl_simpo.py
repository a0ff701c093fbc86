from typing import Annotated

from annotated_types import Ge, Gt

from align_bench.api import PairJob, recipe

from ._trl import find_trainer, labelled, missing, train_pairs


@recipe(
    data="pairs",
    paper="arXiv:2405.14734",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: missing("CPO", "trl.experimental.cpo"),
)
def trl_simpo(job: PairJob, *, beta: Annotated[float, Gt(0)] = 2.5, gamma: Annotated[float, Ge(0)] = 1.25) -> None:
    """Simple Preference Optimization by TRL's CPOTrainer.

    Equation:
        −log σ(β(s̄_w − s̄_l) − γ),  s̄ = s / |y|

    Args:
        job: the training.
        beta: reward scale, per nat per token.
        gamma: target reward margin, no unit; TRL's `simpo_gamma`, which is not the ratio γ/β.

    Source:
        trl.experimental.cpo.CPOTrainer, loss_type="simpo"; Meng et al. 2024, equation 6.

        Tests hold it to the training of `simpo`: losses, gradient norms, and what the trained model says.

    Differs from simpo:
        1. Nothing but what holds for all of TRL's trainers here: see `_trl.py`. The likelihood term that TRL adds by
           default (`cpo_alpha = 1`) is off.
    """
    train_pairs(
        job,
        *find_trainer("CPO", "trl.experimental.cpo"),
        labelled,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=beta,
        simpo_gamma=gamma,
    )
