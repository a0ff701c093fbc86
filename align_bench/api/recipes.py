"""Methods that take the whole training instead of a loss, such as those of a foreign trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from align_bench.api.algorithms import Algorithm, checked_rate, checked_rates, documentation
from align_bench.api.declaring import checked_function, checked_text, declaring, in_short
from align_bench.api.docstrings import SECTIONS
from align_bench.api.readings import batch_type
from align_bench.api.signatures import parameters_of
from align_bench.errors import PluginError, nearest

if TYPE_CHECKING:
    from align_bench.records import Parameters

RecipeData: TypeAlias = Literal["pairs", "unpaired", "scores", "rollouts"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair as token ids; every answer runs through its end-of-turn token unless it was truncated."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as token ids.

    Attributes:
        prompt, answer: token ids.
        desirable: whether it is one that people preferred.
        mismatched: another row's answer, to be held against this prompt where a KL estimate needs one.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    desirable: bool
    mismatched: Sequence[int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt to answer, as token ids; it ends with the template's answer header."""

    prompt: Sequence[int]


class TrainSettings(Protocol):
    """The suite's `train:` section, as far as a recipe needs it.

    Attributes:
        epochs: passes over the rows.
        batch_size: examples per optimizer step.
        max_length: longest prompt with its answer, in tokens; rows are cut to it already.
        weight_decay: of AdamW, no unit.
        max_grad_norm: norm that gradients are clipped to.
        activation_checkpointing: whether layers compute again in the backward pass (gradient checkpointing).
        schedule: of the learning rate: `cosine`, `linear` or `constant`.
        warmup: share of the steps over which the learning rate rises.
    """

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def activation_checkpointing(self) -> bool: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A whole training, as a recipe gets it: a `PairJob`, an `AnswerJob` or a `PromptJob`.

    Attributes:
        model: a frozen base under a fresh, trainable fp32 adapter (and a scalar head, `score`, for data `scores`), on
            its device. The recipe trains the adapter `default` in place and leaves no other.
        tokenizer: the base's tokenizer; the recipe's own copy.
        lengths: padded tokens that each example costs, all its answers together (of a `Prompt`, itself alone).
        micro_batch_tokens: padded tokens that one forward pass may hold.
        batches: the examples (by number) of every optimizer step, in order; an epoch is as many steps as the next.
        learning_rate: peak learning rate of AdamW.
        settings: the suite's `train:` section.
        seed: seed of what is random beside the order of rows.
        device: `cuda`, `cpu` and the like.
        bf16: whether activations are bf16; fp32 otherwise.
        scratch: an empty folder, deleted afterwards.
        log: to be called once per optimizer step with its numbers: `loss`, and as known `learning_rate`,
            `gradient_norm`, `chosen_reward`, `rejected_reward`, `margin`, `accuracy` and others; and where the recipe
            makes answers itself, `tokens`, of prompts and answers since the start.
    """

    model: Any  # torch's and transformers' own classes: a plugin of another trainer may want any of them
    tokenizer: Any
    lengths: Sequence[int]
    micro_batch_tokens: int
    batches: Sequence[Sequence[int]]
    learning_rate: float
    settings: TrainSettings
    seed: int
    device: str
    bf16: bool
    scratch: Path
    log: Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairJob(Job):
    """A training on pairs: of a policy for data `pairs`, of a reward model for `scores`.

    Attributes:
        examples: the pairs.
    """

    examples: Sequence[Pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob(Job):
    """A training on single answers, for data `unpaired`.

    Attributes:
        examples: the answers.
    """

    examples: Sequence[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptJob(Job):
    """A training on the policy's own answers, for data `rollouts`.

    Attributes:
        examples: the prompts.
        reward: (example's number, ids of an answer to it) → reward, no unit.
    """

    examples: Sequence[Prompt]
    reward: Callable[[int, Sequence[int]], float]


_JOBS: Mapping[RecipeData, type[Job]] = {
    "pairs": PairJob,
    "unpaired": AnswerJob,
    "scores": PairJob,
    "rollouts": PromptJob,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Algorithm):
    """A method that takes the whole training instead of a loss, such as one of a foreign trainer.

    Attributes:
        function: takes a `Job` and the hyper-parameters, returns nothing.
        libraries: distributions whose versions its numbers depend on; they are part of its artefacts' keys.
        obstacle: tells in words what keeps it from training here, or None when nothing does; see `recipe`.
    """

    function: Callable[..., None]
    libraries: tuple[str, ...] = ()
    obstacle: Callable[[], str | None] | None = None

    @property
    def family(self) -> str:
        """Another library trains."""
        return "Trainings of other libraries"

    @property
    def sections(self) -> tuple[str, ...]:
        """The headings that its docstring is to have: it returns nothing, and differs from the method it repeats."""
        return tuple(section for section in SECTIONS if section not in ("Returns", "Differs from the source"))

    @property
    def without_loss(self) -> str:
        """Why it has no loss, in words."""
        return "a recipe takes the whole training"

    @property
    def reference_in_words(self) -> str:
        """It makes its own reference, if any."""
        return "its own"

    @property
    def needs(self) -> str:
        """What trains it, in words."""
        return " ".join(["takes the whole training", *(f"with {library}" for library in self.libraries)])

    def obstacle_here(self) -> str | None:
        """What keeps it from training on this machine, in words; None when nothing does."""
        return None if self.obstacle is None else self.obstacle()

    def __call__(self, job: Job, parameters: Parameters) -> None:
        """Train the job's model."""
        self.function(job, **parameters)


@declaring
def recipe(
    *,
    data: RecipeData,
    paper: str,
    learning_rate: float,
    learning_rate_range: tuple[float, float] | None = None,
    libraries: Sequence[str] = (),
    obstacle: Callable[[], str | None] | None = None,
) -> Callable[[Callable[..., None]], Recipe]:
    """Declare a function that takes the whole training as a method. Its signature is its hyper-parameter schema.

    A policy's reward is s̄ in every table, since there is no loss to ask for another; a reward model's is its score.

    Args:
        data: what `examples` of the job are: `pairs` (a `PairJob`), `unpaired` (an `AnswerJob`) or `rollouts` (a
            `PromptJob`) train a policy, `scores` (a `PairJob`) a reward model. With `rollouts` a parameter `reward`
            names what scores the answers: a reward method of the suite, or `gold`.
        paper: citation, such as `arXiv:2305.18290`.
        learning_rate: default peak learning rate for LoRA adapters.
        learning_rate_range: lowest and highest one that suit LoRA adapters; outside of them a run warns.
        libraries: distributions that do the training, such as `("trl",)`; another version is another result.
        obstacle: a function that says in a sentence why the recipe cannot train here, such as a library that lacks what
            it needs, or returns None; it is asked before any work is done.

    Returns:
        A decorator that turns the function into a `Recipe`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., None]) -> Recipe:
        name = function.__name__
        if data not in get_args(RecipeData):
            known = nearest(str(data), get_args(RecipeData), what="data kind of a recipe")
            raise PluginError(f"{name}: data={data!r}. {known}")
        doc = documentation(function)
        rate = checked_rate(name, learning_rate)
        if isinstance(libraries, str) or not isinstance(libraries, Sequence):
            raise PluginError(f"{name}: libraries={in_short(libraries)}, expected names, such as ('trl',)")
        for library in libraries:
            checked_text(name, "a library", library)
        if obstacle is not None:
            checked_function(name, "obstacle", obstacle)
        job = batch_type(function)
        if isinstance(job, type) and issubclass(job, Job) and job not in (Job, _JOBS[data]):
            raise PluginError(
                f"{name}: data={data!r}, but its job is a {job.__name__}", fix=f"annotate job: {_JOBS[data].__name__}"
            )
        parameters = parameters_of(function, doc)
        if data == "rollouts" and "reward" not in parameters:
            raise PluginError(f"{name}: rollouts need a reward", fix='add the parameter reward: str = "gold"')
        return Recipe(
            name=name,
            function=function,
            data=data,
            paper=paper,
            learning_rate=rate,
            learning_rate_range=checked_rates(name, rate, learning_rate_range),
            reward="r" if data == "scores" else "s̄",
            parameters=parameters,
            doc=doc,
            libraries=tuple(libraries),
            obstacle=obstacle,
        )

    return declare
