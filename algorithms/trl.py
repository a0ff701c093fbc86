"""TRL's own trainers as methods, so that anyone can hold ours against them (TRL 1.16).

All of them get what the suite's own methods get: the same token ids, never tokenised again, in the same order, epoch by
epoch; the same adapter to start from; AdamW, warm-up, schedule and clipping of `train:`, dropout of `lora:`. What they
would do otherwise, and does not happen here:

- they tokenise, truncate or drop rows, each trainer in its own way, and shuffle them;
- they turn on bf16, which not every CPU takes, and gradient checkpointing;
- they turn the adapter of a 4-bit base into bf16, in which the small steps of AdamW vanish;
- they pad with the tokenizer's pad token, behind which the reward trainer does not find the end of an answer when that
  is the end token, too;
- they patch the model's forward, add an adapter called `ref`, switch accelerate to their device for the whole process
  and report to the Hub that they were used.

What differs from the suite's own methods for all of them:

1. A step's loss is the mean over its micro-batches of their means. All of them have as many rows, except for the last
   of an epoch. A micro-batch holds as many rows as fit into `micro_batch_tokens` at the length of the longest one.
2. The reference is computed in every step, from an untrained copy of the adapter, and not once.
3. A killed training starts again.
4. Their reward in the tables is s̄, of which every policy has one, or a reward model's score.
"""

import contextlib
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch.utils.data import Sampler

from align_bench.api import Answer, Job, Pair, PluginError, recipe

_KNOWN = "trl>=1.16,<1.17"  # what these recipes were held against


def _trainer(name: str, module: str = "trl") -> tuple[Any, Any]:
    """A trainer of TRL's and its configuration, such as `DPOTrainer` and `DPOConfig`.

    Raises:
        PluginError: when the installed TRL does not have them, or not what the recipes take over of them.
    """
    try:
        version = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError as error:
        raise PluginError("trl is not installed", fix=f"pip install '{_KNOWN}'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental says so; that is why it is looked for here
            found = importlib.import_module(module)
            trainer, config = getattr(found, f"{name}Trainer"), getattr(found, f"{name}Config")
    except (ImportError, AttributeError, RuntimeError) as error:  # RuntimeError: of a lazy module that cannot be loaded
        raise PluginError(
            f"trl {version} gives no {module}.{name}Trainer: {error}",
            fix=f"pip install '{_KNOWN}', which is known to have it",
        ) from error
    if not hasattr(trainer, "_get_train_sampler"):
        raise PluginError(
            f"{module}.{name}Trainer of trl {version} orders its rows in another way",
            fix=f"pip install '{_KNOWN}', whose rows can be ordered as the suite does",
        )
    return trainer, config


def _missing(name: str, module: str = "trl") -> str | None:
    """Why such a trainer cannot be used here, in words; None when it can."""
    try:
        _trainer(name, module)
    except PluginError as error:
        return f"{error.message}; {error.fix}"
    return None


@recipe(
    data="scores",
    paper="arXiv:2203.02155",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("Reward"),
)
def trl_rm(job: Job, *, centering: Annotated[float, Ge(0)] = 0.01) -> None:
    """Bradley–Terry reward model by TRL's RewardTrainer.

    Equation:
        −log σ(r_w − r_l) + c·(r_w + r_l)²

    Args:
        job: the training.
        centering: c, TRL's `center_rewards_coefficient`, no unit.

    Source:
        trl.RewardTrainer; Ouyang et al. 2022, equation 1.

    Differs from rm:
        1. Nothing in fp32. TRL finds an answer's last token by the pad token's id, ours by the mask: here rows are
           padded with a token that ends none of them.
    """
    last = {side[-1] for pair in job.examples for side in (pair.chosen, pair.rejected)}
    free = next(token for token in range(len(job.tokenizer)) if token not in last)
    job.tokenizer.pad_token = job.tokenizer.convert_ids_to_tokens(free)
    _train(job, *_trainer("Reward"), _scored, center_rewards_coefficient=centering)


@recipe(
    data="pairs",
    paper="arXiv:2305.18290",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("DPO"),
)
def trl_dpo(job: Job, *, beta: Annotated[float, Gt(0)] = 0.1) -> None:
    """Direct Preference Optimization by TRL's DPOTrainer.

    Equation:
        −log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref

    Args:
        job: the training.
        beta: strength of the pull towards the reference, per nat.

    Source:
        trl.DPOTrainer, loss_type="sigmoid"; Rafailov et al. 2023, equation 7.

    Differs from dpo:
        1. Nothing but what holds for all of TRL's trainers here.
    """
    _train(job, *_trainer("DPO"), _paired, beta=beta)


@recipe(
    data="unpaired",
    paper="arXiv:2402.01306",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("KTO"),
)
def trl_kto(
    job: Job,
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

    Differs from kto:
        1. z0 is taken over a micro-batch, by ours over the effective batch. They agree where one micro-batch holds the
           whole batch.
        2. The answer that stands for an unrelated one is the suite's, as with kto. TRL by itself takes the previous
           row's, within blocks of the micro-batch's size in the order before shuffling.
    """
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    _train(job, *_trainer("KTO"), _single, beta=beta, **weights)


@recipe(
    data="pairs",
    paper="arXiv:2405.14734",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("CPO", "trl.experimental.cpo"),
)
def trl_simpo(job: Job, *, beta: Annotated[float, Gt(0)] = 2.5, gamma: Annotated[float, Ge(0)] = 1.25) -> None:
    """Simple Preference Optimization by TRL's CPOTrainer.

    Equation:
        −log σ(β(s̄_w − s̄_l) − γ),  s̄ = s / |y|

    Args:
        job: the training.
        beta: reward scale, per nat per token.
        gamma: target reward margin, no unit; TRL's `simpo_gamma`, which is not the ratio γ/β.

    Source:
        trl.experimental.cpo.CPOTrainer, loss_type="simpo"; Meng et al. 2024, equation 6.

    Differs from simpo:
        1. Nothing but what holds for all of TRL's trainers here. The likelihood term that TRL adds by default
           (`cpo_alpha = 1`) is off.
    """
    _train(
        job,
        *_trainer("CPO", "trl.experimental.cpo"),
        _labelled,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=beta,
        simpo_gamma=gamma,
    )


@recipe(
    data="pairs",
    paper="arXiv:2403.07691",
    learning_rate=5e-5,
    learning_rate_range=(1e-5, 5e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("ORPO", "trl.experimental.orpo"),
)
def trl_orpo(job: Job, *, lambda_: Annotated[float, Ge(0)] = 0.1) -> None:
    """Odds Ratio Preference Optimization by TRL's ORPOTrainer.

    Equation:
        NLL − λ·log σ(logit e^s̄_w − logit e^s̄_l),  logit e^a = a − log(1 − e^a),
        NLL the mean over all tokens of the micro-batch's prompts and chosen answers

    Args:
        job: the training.
        lambda_: weight of the odds-ratio term, no unit; TRL's `beta`.

    Source:
        trl.experimental.orpo.ORPOTrainer; Hong et al. 2024, equations 6 and 7.

    Differs from orpo:
        1. The likelihood term covers the prompt, too, and is a mean over tokens; ours is the mean over answers of each
           answer's own mean. They agree where prompts have one token and chosen answers have equal lengths, and in
           effect nowhere else.
    """
    _train(job, *_trainer("ORPO", "trl.experimental.orpo"), _labelled, beta=lambda_)


@recipe(
    data="rollouts",
    paper="arXiv:2402.14740",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("RLOO"),
)
def trl_rloo(
    job: Job,
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
        generations: k, answers a prompt.
        beta: weight of the penalty on the drift from the reference, reward per nat.
        temperature: of the sampling, no unit.
        max_new_tokens: longest answer; a longer one is cut and scored as it is.

    Source:
        trl.RLOOTrainer; Ahmadian et al. 2024, section 3.3.

    Differs from the source:
        1. One update follows each sampling, so that the ratio is 1 and clips nothing.
        2. `batch_size` counts prompts, and a step takes k times as many answers. A shorter last batch is filled up by
           going round it again, where TRL would drop it.
    """
    _train_online(job, *_trainer("RLOO"), generations, max_new_tokens, beta=beta, temperature=temperature)


@recipe(
    data="rollouts",
    paper="arXiv:2402.03300",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    libraries=("trl",),
    obstacle=lambda: _missing("GRPO"),
)
def trl_grpo(
    job: Job,
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
        generations: k, answers a prompt.
        beta: weight of the KL estimate k3, per nat.
        temperature: of the sampling, no unit.
        max_new_tokens: longest answer; a longer one is cut and scored as it is.

    Source:
        trl.GRPOTrainer, loss_type="grpo"; Shao et al. 2024, equation 3.

    Differs from the source:
        1. The loss is the paper's, with a mean over each answer's tokens; TRL's own default is `dapo`, and its β is 0.
        2. One update follows each sampling, so that the ratio is 1 and clips nothing.
        3. `batch_size` counts prompts, and a step takes k times as many answers. A shorter last batch is filled up by
           going round it again, where TRL would drop it.
    """
    options = {"loss_type": "grpo", "beta": beta, "temperature": temperature}
    _train_online(job, *_trainer("GRPO"), generations, max_new_tokens, **options)


def _arguments(job: Job, rows: int, size: int) -> dict[str, Any]:
    """What every trainer's configuration shares, at `rows` of a step's `size` rows a forward pass."""
    settings = job.settings
    return {
        "output_dir": str(job.scratch),
        "seed": job.seed,
        "use_cpu": job.device == "cpu",
        "bf16": job.bf16,
        "gradient_checkpointing": False,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": size // rows,
        "optim": "adamw_torch",
        "learning_rate": job.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": math.ceil(settings.warmup * len(job.batches)),
        "disable_dropout": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": job.device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def _micro_batch(size: int, most: int) -> int:
    """The largest divisor of a batch's size that is at most `most`, so that all micro-batches are of one size."""
    return max((rows for rows in range(1, min(size, most) + 1) if size % rows == 0), default=1)


# A row of each trainer's prepared data set, as its collator reads it.


def _scored(pair: Pair) -> dict[str, Any]:
    return {"chosen_ids": [*pair.prompt, *pair.chosen], "rejected_ids": [*pair.prompt, *pair.rejected]}


def _paired(pair: Pair) -> dict[str, Any]:
    return {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}


def _single(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_ids": list(answer.prompt),
        "completion_ids": list(answer.answer),
        "KL_completion_ids": list(answer.mismatched),
        "label": answer.desirable,
    }


def _labelled(pair: Pair) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        row[f"{side}_input_ids"] = [*pair.prompt, *answer]
        row[f"{side}_attention_mask"] = [1] * len(row[f"{side}_input_ids"])
        row[f"{side}_labels"] = [-100] * len(pair.prompt) + list(answer)
    return row


class _Planned(Sampler[int]):
    """The suite's order of examples, epoch by epoch."""

    def __init__(self, job: Job, filled: Callable[[Sequence[int]], Sequence[int]]) -> None:
        steps = len(job.batches) // job.settings.epochs
        epochs = [job.batches[start : start + steps] for start in range(0, len(job.batches), steps)]
        self.orders = [[example for batch in epoch for example in filled(batch)] for epoch in epochs]
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.orders[0])

    def __iter__(self) -> Iterator[int]:
        return iter(self.orders[self.epoch])


# TRL's name of a number → the suite's.
_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "rewards/margins": "margin",
    "margin": "margin",
    "rewards/accuracies": "accuracy",
    "accuracy": "accuracy",
    "log_odds_chosen": "log_odds_ratio",
    "reward": "reward",
    "kl": "kl",
    "completions/mean_length": "answer_tokens",
    "num_tokens": "tokens",
}


def _train(
    job: Job, trainer_class: Any, config_class: Any, row: Callable[[Any], Mapping[str, Any]], **options: Any
) -> None:
    """A training on given answers."""
    size = job.settings.batch_size
    shared = _arguments(job, _micro_batch(size, job.settings.micro_batch_tokens // max(job.lengths)), size)
    # Rows are cut already; only another row's answer to a prompt, for KTO, may be longer.
    config = shared | {"max_length": 2 * job.settings.max_length} | options
    rows = [row(example) for example in job.examples]
    with _built(job, trainer_class, config_class, config, rows, list) as trainer:
        trainer.train()


def _train_online(
    job: Job, trainer_class: Any, config_class: Any, generations: int, max_new_tokens: int, **options: Any
) -> None:
    """A training on the policy's own answers."""
    prompts = job.settings.batch_size
    size = prompts * generations
    rows = _micro_batch(size, job.settings.micro_batch_tokens // (max(job.lengths) + max_new_tokens))
    lengths = {"num_generations": generations, "max_completion_length": max_new_tokens}

    def filled(batch: Sequence[int]) -> list[int]:
        """Each prompt for each of its answers; the whole batch for each of its micro-batches, as TRL reads it."""
        whole = [batch[place % len(batch)] for place in range(prompts)]
        return [prompt for _ in range(size // rows) for prompt in whole for _ in range(generations)]

    def scored(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert job.reward is not None, "it comes with rollouts"
        return [job.reward(int(prompt), answer) for prompt, answer in zip(prompts, completion_ids, strict=True)]

    # A prompt goes through the trainer by its number, so that nothing tokenises it again.
    numbers = [{"prompt": str(number)} for number in range(len(job.examples))]
    config = _arguments(job, rows, size) | lengths | options
    with _built(job, trainer_class, config_class, config, numbers, filled, reward_funcs=scored) as trainer:
        trainer.train()


@contextlib.contextmanager
def _built(
    job: Job,
    trainer_class: Any,
    config_class: Any,
    config: Mapping[str, Any],
    rows: list[Mapping[str, Any]],
    filled: Callable[[Sequence[int]], Sequence[int]],
    **more: Any,
) -> Iterator[Any]:
    """One of TRL's trainers over prepared rows in the planned order; what it leaves behind is undone at the end."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    class Fed(trainer_class):
        """The trainer without its own tokenisation and order of rows."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        @staticmethod
        def tokenize_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
            return row

        def _get_train_sampler(self, *_: Any) -> _Planned:
            return _Planned(job, filled)

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(job.examples[int(prompt)].prompt) for prompt in prompts], None, {}

        def _send_telemetry(self) -> None:
            """What is trained here is no one else's business."""

    class Logged(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
            if "loss" in logs:  # the last entry sums the training up
                job.log({_NAMES[name]: float(value) for name, value in logs.items() if name in _NAMES})

    with _undone(job.model):
        trainer = Fed(
            model=job.model,
            args=config_class(**config),
            train_dataset=Dataset.from_list(rows),
            processing_class=job.tokenizer,
            callbacks=[Logged()],
            **more,
        )
        trainer.remove_callback(PrinterCallback)
        for parameter in job.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        yield trainer


@contextlib.contextmanager
def _undone(model: Any) -> Iterator[None]:
    """Take back what a trainer does to the model and to the process."""
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import extract_model_from_parallel
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        if not silent:
            enable_progress_bars()
        extract_model_from_parallel(model, keep_fp32_wrapper=False)
        vars(model.get_base_model()).pop("forward", None)
        if "ref" in model.peft_config:
            model.delete_adapter("ref")
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
