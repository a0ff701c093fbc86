"""What TRL's own trainers as methods share; anyone can hold ours against them (TRL 1.16).

Each of `trl_*.py` is one of them.

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
from typing import Any, TypeVar

from torch.utils.data import Sampler

from align_bench.api import Answer, AnswerJob, Job, Pair, PairJob, PluginError, Prompt, PromptJob

Row = dict[str, Any]  # of a prepared data set, as a trainer's collator reads it
E = TypeVar("E", Pair, Answer)

_KNOWN = "trl>=1.16,<1.17"  # what these recipes were held against


def find_trainer(name: str, module: str = "trl") -> tuple[Any, Any]:
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


def missing(name: str, module: str = "trl") -> str | None:
    """Why such a trainer cannot be used here, in words; None when it can."""
    try:
        find_trainer(name, module)
    except PluginError as error:
        return f"{error.message}; {error.fix}"
    return None


def arguments(job: Job, rows: int, size: int) -> dict[str, Any]:
    """What every trainer's configuration shares, at `rows` of a step's `size` rows a forward pass."""
    settings = job.settings
    return {
        "output_dir": str(job.scratch),
        "seed": job.seed,
        "use_cpu": job.device == "cpu",
        "bf16": job.bf16,
        "gradient_checkpointing": settings.activation_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
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


def labelled(pair: Pair) -> Row:
    """A row of CPOTrainer's or ORPOTrainer's prepared data set, as its collator reads it."""
    row: Row = {}
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


def train_pairs(
    job: PairJob, trainer_class: Any, config_class: Any, row: Callable[[Pair], Row], **options: Any
) -> None:
    """A training on pairs of answers."""
    _train(job, job.examples, trainer_class, config_class, row, options)


def train_answers(
    job: AnswerJob, trainer_class: Any, config_class: Any, row: Callable[[Answer], Row], **options: Any
) -> None:
    """A training on single answers."""
    _train(job, job.examples, trainer_class, config_class, row, options)


def _train(
    job: Job,
    examples: Sequence[E],
    trainer_class: Any,
    config_class: Any,
    row: Callable[[E], Row],
    options: Mapping[str, Any],
) -> None:
    size = job.settings.batch_size
    shared = arguments(job, _micro_batch(size, job.micro_batch_tokens // max(job.lengths)), size)
    # Rows are cut already; only another row's answer to a prompt, for KTO, may be longer.
    config = shared | {"max_length": 2 * job.settings.max_length} | dict(options)
    rows = [row(example) for example in examples]
    with built(job, trainer_class, config_class, config, rows, list) as trainer:
        trainer.train()


def train_online(
    job: PromptJob, trainer_class: Any, config_class: Any, generations: int, max_new_tokens: int, **options: Any
) -> None:
    """A training on the policy's own answers."""
    prompts = job.settings.batch_size
    size = prompts * generations
    rows = _micro_batch(size, job.micro_batch_tokens // (max(job.lengths) + max_new_tokens))
    lengths = {"num_generations": generations, "max_completion_length": max_new_tokens}

    def filled(batch: Sequence[int]) -> list[int]:
        """Each prompt for each of its answers; the whole batch for each of its micro-batches, as TRL reads it."""
        whole = [batch[place % len(batch)] for place in range(prompts)]
        return [prompt for _ in range(size // rows) for prompt in whole for _ in range(generations)]

    def scored(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [job.reward(int(prompt), answer) for prompt, answer in zip(prompts, completion_ids, strict=True)]

    # A prompt goes through the trainer by its number, so that nothing tokenises it again.
    numbers: list[Row] = [{"prompt": str(number)} for number in range(len(job.examples))]
    config = arguments(job, rows, size) | lengths | options
    with built(job, trainer_class, config_class, config, numbers, filled, reward_funcs=scored) as trainer:
        trainer.train()


@contextlib.contextmanager
def built(
    job: Job,
    trainer_class: Any,
    config_class: Any,
    config: Mapping[str, Any],
    rows: list[Row],
    filled: Callable[[Sequence[int]], Sequence[int]],
    **more: Any,
) -> Iterator[Any]:
    """One of TRL's trainers over prepared rows in the planned order; what it leaves behind is undone at the end."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    asked: Sequence[Prompt] = job.examples if isinstance(job, PromptJob) else ()

    class Fed(trainer_class):  # type: ignore[misc]  # found by name
        """The trainer without its own tokenisation and order of rows."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        @staticmethod
        def tokenize_row(row: Row) -> Row:
            return row

        def _get_train_sampler(self, *_: Any) -> _Planned:
            return _Planned(job, filled)

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(asked[int(prompt)].prompt) for prompt in prompts], None, {}

        def _send_telemetry(self) -> None:
            """What is trained here is no one else's business."""

    class Logged(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
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
