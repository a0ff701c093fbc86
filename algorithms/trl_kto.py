from typing import Annotated

from annotated_types import Gt

from align_bench.api import Answer, AnswerJob, recipe

from ._trl import Row, find_trainer, missing, train_answers


@recipe(
    data="unpaired",
    paper="arXiv:2402.01306",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    libraries=("trl",),
    obstacle=lambda: missing("KTO"),
)
def trl_kto(
    job: AnswerJob,
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    desirable_weight: Annotated[float, Gt(0)] = 1.0,
    undesirable_weight: Annotated[float, Gt(0)] = 1.0,
) -> None:
    """Kahneman–Tversky Optimization by TRL's KTOTrainer.

    Equation:
        desirable λ_D(1 − σ(β(ρ − z0))), undesirable λ_U(1 − σ(β(z0 − ρ))),
        z0 = max(0, mean over the micro-batch of ρ(x_i, y_j≠i)), no gradient

    Args:
        job: the training.
        beta: strength of the pull towards the reference, per nat.
        desirable_weight: λ_D, no unit.
        undesirable_weight: λ_U, no unit.

    Source:
        trl.KTOTrainer, loss_type="kto"; Ethayarajh et al. 2024, equation 8.

        Tests hold it to the training of `kto`: losses, gradient norms, and what the trained model says.

    Differs from kto:
        1. z0 is taken over a micro-batch, by ours over the effective batch. They agree where one micro-batch holds the
           whole batch.
        2. The answer that stands for an unrelated one is the suite's, as with kto. TRL by itself takes the previous
           row's, within blocks of the micro-batch's size in the order before shuffling.
    """
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    train_answers(job, *find_trainer("KTO"), _single, beta=beta, **weights)


def _single(answer: Answer) -> Row:
    """A row of KTOTrainer's prepared data set, as its collator reads it."""
    return {
        "prompt_ids": list(answer.prompt),
        "completion_ids": list(answer.answer),
        "KL_completion_ids": list(answer.mismatched),
        "label": answer.desirable,
    }
