from typing import Annotated

from annotated_types import Ge, Gt

from align_bench.api import PromptJob, recipe

from ._trl import find_trainer, missing, train_online


@recipe(
    data="rollouts",
    paper="arXiv:2402.14740",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: missing("RLOO"),
)
def trl_rloo(
    job: PromptJob,
    *,
    reward: str = "gold",
    generations: Annotated[int, Ge(2)] = 4,
    beta: Annotated[float, Ge(0)] = 0.05,
    temperature: Annotated[float, Gt(0)] = 1.0,
    max_new_tokens: Annotated[int, Gt(0)] = 64,
) -> None:
    """REINFORCE Leave-One-Out by TRL's RLOOTrainer.

    Equation:
        −mean_i A_i·π(y_i)/π_old(y_i), the ratio clipped to 1 ± 0.2,
        A_i = R_i − mean of R_j≠i over the prompt's k answers,  R = reward − β(log π_old − log π_ref)

    Args:
        job: the training.
        reward: what scores the answers; `gold` is the data's own judge.
        generations: k, answers per prompt.
        beta: weight of the penalty on the drift from the reference, reward per nat.
        temperature: of the sampling, no unit.
        max_new_tokens: longest answer; a longer one is cut and scored as it is.

    Source:
        trl.RLOOTrainer; Ahmadian et al. 2024, section 3.3.

        Tests hold it to a reward that rises; the loss is TRL's own.

    Differs from the source:
        1. One update follows each sampling, so that the ratio is 1 and clips nothing.
        2. `batch_size` counts prompts, and a step takes k times as many answers. A shorter last batch is filled up by
           going round it again, where TRL would drop it.
    """
    train_online(job, *find_trainer("RLOO"), generations, max_new_tokens, beta=beta, temperature=temperature)
