from typing import Annotated

from annotated_types import Ge, Gt

from align_bench.api import PromptJob, recipe

from ._trl import find_trainer, missing, train_online


@recipe(
    data="rollouts",
    paper="arXiv:2402.03300",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: missing("GRPO"),
)
def trl_grpo(
    job: PromptJob,
    *,
    reward: str = "gold",
    generations: Annotated[int, Ge(2)] = 4,
    beta: Annotated[float, Ge(0)] = 0.04,
    temperature: Annotated[float, Gt(0)] = 1.0,
    max_new_tokens: Annotated[int, Gt(0)] = 64,
) -> None:
    """Group Relative Policy Optimization by TRL's GRPOTrainer.

    Equation:
        −mean_i 1/|y_i| Σ_t [A_i·π(y_it)/π_old(y_it), the ratio clipped to 1 ± 0.2, − β·k3_it],
        A_i = (R_i − mean R) / (std R + 10⁻⁴) over the prompt's k answers,
        k3 = π_ref/π − log(π_ref/π) − 1

    Args:
        job: the training.
        reward: what scores the answers; `gold` is the data's own judge.
        generations: k, answers per prompt.
        beta: weight of the KL estimate k3, per nat.
        temperature: of the sampling, no unit.
        max_new_tokens: longest answer; a longer one is cut and scored as it is.

    Source:
        trl.GRPOTrainer, loss_type="grpo"; Shao et al. 2024, equation 3.

        Tests hold it to a reward that rises; the loss is TRL's own.

    Differs from the source:
        1. The loss is the paper's, with a mean over each answer's tokens; TRL's own default is `dapo`, and its β is 0.
        2. One update follows each sampling, so that the ratio is 1 and clips nothing.
        3. `batch_size` counts prompts, and a step takes k times as many answers. A shorter last batch is filled up by
           going round it again, where TRL would drop it.
    """
    options = {"loss_type": "grpo", "beta": beta, "temperature": temperature}
    train_online(job, *find_trainer("GRPO"), generations, max_new_tokens, **options)
