from typing import Annotated

from annotated_types import Gt

from align_bench.api import Pair, PairJob, recipe

from ._trl import Row, find_trainer, missing, train_pairs


@recipe(
    data="pairs",
    paper="arXiv:2305.18290",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    libraries=("trl",),
    obstacle=lambda: missing("DPO"),
)
def trl_dpo(job: PairJob, *, beta: Annotated[float, Gt(0)] = 0.1) -> None:
    """Direct Preference Optimization by TRL's DPOTrainer.

    Equation:
        −log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref

    Args:
        job: the training.
        beta: strength of the pull towards the reference, per nat.

    Source:
        trl.DPOTrainer, loss_type="sigmoid"; Rafailov et al. 2023, equation 7.

        Tests hold it to the training of `dpo`: losses, gradient norms, and what the trained model says.

    Differs from dpo:
        1. Nothing but what holds for all of TRL's trainers here: see `_trl.py`.
    """
    train_pairs(job, *find_trainer("DPO"), _paired, beta=beta)


def _paired(pair: Pair) -> Row:
    """A row of DPOTrainer's prepared data set, as its collator reads it."""
    return {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}
