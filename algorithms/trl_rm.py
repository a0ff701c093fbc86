from typing import Annotated

from annotated_types import Ge

from align_bench.api import Pair, PairJob, recipe

from ._trl import Row, find_trainer, missing, train_pairs


@recipe(
    data="scores",
    paper="arXiv:2203.02155",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    libraries=("trl",),
    obstacle=lambda: missing("Reward"),
)
def trl_rm(job: PairJob, *, centering: Annotated[float, Ge(0)] = 0.01) -> None:
    """Bradley–Terry reward model by TRL's RewardTrainer.

    Equation:
        −log σ(r_w − r_l) + c·(r_w + r_l)²

    Args:
        job: the training.
        centering: c, TRL's `center_rewards_coefficient`, no unit.

    Source:
        trl.RewardTrainer; Ouyang et al. 2022, equation 1.

        Tests hold it to the training of `rm`: losses, gradient norms, and what the trained model says.

    Differs from rm:
        1. Nothing in fp32. TRL finds an answer's last token by the pad token's id, ours by the mask: here rows are
           padded with a token that ends none of them.
    """
    last = {side[-1] for pair in job.examples for side in (pair.chosen, pair.rejected)}
    free = next(token for token in range(len(job.tokenizer)) if token not in last)
    job.tokenizer.pad_token = job.tokenizer.convert_ids_to_tokens(free)
    train_pairs(job, *find_trainer("Reward"), _scored, center_rewards_coefficient=centering)


def _scored(pair: Pair) -> Row:
    """A row of RewardTrainer's prepared data set, as its collator reads it."""
    return {"chosen_ids": [*pair.prompt, *pair.chosen], "rejected_ids": [*pair.prompt, *pair.rejected]}
