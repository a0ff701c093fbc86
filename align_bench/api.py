"""What a plugin may import: the records a loss reads, the loss it returns, and the decorator that declares it.

Notation, as in the field's papers: `s = Σ_t log π(y_t | x, y_<t)` over response tokens (end-of-turn token included,
prompt excluded), in nats; `ρ = s_policy − s_ref`; `|y|` response tokens; `s̄ = s / |y|`.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import annotated_types

from align_bench.errors import PluginError, nearest
from align_bench.records import OWN_SETTINGS

if TYPE_CHECKING:
    from torch import Tensor  # methods are listed without it

__all__ = [
    "Advantages",
    "Adversary",
    "Algorithm",
    "Answer",
    "BiasExpert",
    "ChosenLogps",
    "Experience",
    "Job",
    "LengthHead",
    "Loss",
    "Pair",
    "PairLogps",
    "PairScores",
    "Parameter",
    "PluginError",
    "Prompt",
    "Range",
    "Recipe",
    "Rollouts",
    "Selection",
    "UnpairedLogps",
    "algorithm",
    "recipe",
    "selection",
]

DataKind = Literal["pairs", "chosen", "unpaired", "scores", "rollouts"]
RecipeData = Literal["pairs", "unpaired", "scores", "rollouts"]
SelectionData = Literal["candidates"]
Record = Union["PairLogps", "ChosenLogps", "UnpairedLogps", "PairScores", "Rollouts"]
AtReference = float | tuple[float, float] | Callable[..., float | tuple[float, float]]
Auxiliary = Union["BiasExpert", "Adversary", "LengthHead"]


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Response log-probabilities of a batch of preference pairs.

    Attributes:
        chosen, rejected: `s` under the policy, float tensors of shape [rows], in nats, with gradient.
        chosen_tokens, rejected_tokens: `|y|`, integer tensors of shape [rows], at least 1.
        ref_chosen, ref_rejected: `s` under the reference, shape [rows], no gradient; None unless the method
            declared `reference=True`.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None

    @property
    def chosen_mean(self) -> Tensor:
        """`s̄` of the chosen answers, nats per token, shape [rows]."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> Tensor:
        """`s̄` of the rejected answers, nats per token, shape [rows]."""
        return self.rejected / self.rejected_tokens


@dataclass(frozen=True, slots=True)
class ChosenLogps:
    """Response log-probabilities of chosen (desirable) answers alone; no rejected answer goes through the model.

    Attributes:
        logps: `s` under the policy, shape [rows], in nats, with gradient.
        tokens: `|y|`, integer tensor of shape [rows].
        ref_logps: `s` under the reference, shape [rows]; None unless declared.
    """

    logps: Tensor
    tokens: Tensor
    ref_logps: Tensor | None = None


@dataclass(frozen=True, slots=True)
class UnpairedLogps:
    """Response log-probabilities of single answers, each desirable or not.

    Attributes:
        logps: `s` under the policy, shape [rows], in nats, with gradient.
        tokens: `|y|`, integer tensor of shape [rows].
        desirable: boolean tensor of shape [rows].
        ref_logps: `s` under the reference, shape [rows]; None unless declared.
        mismatched: `s` of other rows' answers to these prompts under the policy, shape [batch], no gradient. `batch`
            is the whole effective batch, so a mean over it does not depend on micro-batching.
        ref_mismatched: the same under the reference, shape [batch]; None unless declared.
    """

    logps: Tensor
    tokens: Tensor
    desirable: Tensor
    ref_logps: Tensor | None
    mismatched: Tensor
    ref_mismatched: Tensor | None


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scalar-head scores of a batch of preference pairs.

    Attributes:
        chosen, rejected: `r`, float tensors of shape [rows], with gradient; no unit (a Bradley–Terry logit).
        chosen_tokens, rejected_tokens: `|y|`, integer tensors of shape [rows]; None outside training.
        bias_chosen, bias_rejected: `b`, the bias expert's scores, as `r`; None unless a `BiasExpert` was declared.
        adversarial_chosen, adversarial_rejected: `r` under attack, as `r`; None unless an `Adversary` was declared.
        length_chosen, length_rejected: the length head's scores, as `r`; None unless a `LengthHead` was declared.
        head_cosine: cosine between the weights of the two heads, a scalar with gradient; with a `LengthHead` only.
        batch_scores, batch_length_scores, batch_tokens: `r`, the length head's score and `|y|` of all answers of the
            whole effective batch, shape [2 · batch], no gradient, so that statistics of the batch do not depend on
            micro-batching; with a `LengthHead` only.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor | None = None
    rejected_tokens: Tensor | None = None
    bias_chosen: Tensor | None = None
    bias_rejected: Tensor | None = None
    adversarial_chosen: Tensor | None = None
    adversarial_rejected: Tensor | None = None
    length_chosen: Tensor | None = None
    length_rejected: Tensor | None = None
    head_cosine: Tensor | None = None
    batch_scores: Tensor | None = None
    batch_length_scores: Tensor | None = None
    batch_tokens: Tensor | None = None


@dataclass(frozen=True, slots=True)
class BiasExpert:
    """A small second scorer, trained beside the reward model and dropped after training.

    Attributes:
        length_only: True for a network that reads the answer's token count and nothing else; False for a recurrent
            network over the frozen input embeddings of prompt and answer.
        noise: standard deviation of the Gaussian noise on those embeddings, in units of their root mean square.
        width: hidden units.
        learning_rate_factor: its learning rate, × that of the reward model.
    """

    length_only: bool = False
    noise: float = 0.0
    width: int = 32
    learning_rate_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Adversary:
    """One normalised-gradient step on an answer's input embeddings `e`, against its label.

    Attributes:
        epsilon: norm of the step over prompt and answer, × ‖e‖.
    """

    epsilon: float


@dataclass(frozen=True, slots=True)
class LengthHead:
    """A second linear head on the reward model's last hidden state, dropped after training."""


@dataclass(frozen=True, slots=True)
class Experience:
    """All answers that the policy wrote for one batch of prompts, judged by the reward; no tensor has a gradient.

    Attributes:
        rewards: of each answer, shape [rows], in the reward's unit; an answer that never ended has paid its penalty.
        group: number of each answer's prompt, integer tensor of shape [rows].
        mask: True at response tokens (end of turn included), shape [rows, time].
        logps: log π(y_t | x, y_<t) when the answers were written, nats, shape [rows, time]; 0 beyond the mask.
        ref_logps: the same under the reference.
        values: the value head's predictions before each token, shape [rows, time]; None without a critic.
    """

    rewards: Tensor
    group: Tensor
    mask: Tensor
    logps: Tensor
    ref_logps: Tensor
    values: Tensor | None


@dataclass(frozen=True, slots=True)
class Advantages:
    """What a method makes of an `Experience`.

    Attributes:
        advantages: of each token over what was expected, shape [rows, time].
        returns: targets of the value head, shape [rows, time]; None without a critic.
    """

    advantages: Tensor
    returns: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Answers that the policy wrote, token by token, as a micro-batch of an update.

    Attributes:
        logps: log π(y_t | x, y_<t) under the policy as it is now, nats, shape [rows, time], with gradient.
        old_logps: the same when the answers were written, no gradient.
        ref_logps: the same under the reference, no gradient.
        mask: True at response tokens, shape [rows, time]; all else is 0 beyond it.
        advantages, returns: what the method's own advantage function made of the whole batch, shape [rows, time].
        values, old_values: the value head's predictions now (with gradient) and when the answers were written, shape
            [rows, time]; None without a critic, as are `returns`.
        mean_tokens: response tokens of an answer, on average over the whole batch: a row's sum over tokens divided by
            it gives, in the mean over rows, the mean over all tokens.
    """

    logps: Tensor
    old_logps: Tensor
    ref_logps: Tensor
    mask: Tensor
    advantages: Tensor
    returns: Tensor | None
    values: Tensor | None
    old_values: Tensor | None
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class Loss:
    """What a plugin returns. The mean over the effective batch is the caller's.

    Attributes:
        values: per-example loss, shape [rows].
        chosen_rewards, rejected_rewards: the method's own (implicit) rewards of a pair, shape [rows].
        rewards: the same for rows of single answers, shape [rows].
        metrics: further per-example tensors of shape [rows] to log as means.
        correlations: pairs of tensors of equal shape; Pearson's r of each over the effective batch is logged.
    """

    values: Tensor
    chosen_rewards: Tensor | None = None
    rejected_rewards: Tensor | None = None
    rewards: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    correlations: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a hyper-parameter's source recommends or tunes over, both ends included.

    Stands in a signature (`beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1`). Unlike a bound it may be left: the
    run then warns. A suite's `tune` searches it.

    Attributes:
        low, high: its ends, finite, in the parameter's unit.

    Raises:
        PluginError: when they are no two finite numbers in ascending order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (self.low, self.high))
        if not numbers or not -math.inf < self.low < self.high < math.inf:
            raise PluginError(f"Range({self.low!r}, {self.high!r}): expected two finite numbers, the lower one first")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}–{self.high:g}"

    def at(self, share: float) -> float:
        """The value at a share (0 to 1) of the way from `low` to `high`, to three significant digits.

        The way is logarithmic where the range spans a factor of ten or more above 0, else linear.
        """
        if self.low > 0 and self.high / self.low >= 10:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return min(max(float(f"{value:.3g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A hyper-parameter, read from the plugin's signature.

    Attributes:
        name: keyword in the signature.
        type: `float`, `int`, `bool` or `str`.
        default: value when the suite says nothing.
        bounds: such as `> 0` or `0 ≤ x < 0.5`, in words; empty when unbounded.
        constraints: the `annotated_types` bounds themselves.
        description: its line in the docstring's `Args`.
        range: values that its source recommends or tunes over; None when none are known.
    """

    name: str
    type: type
    default: Any
    bounds: str
    constraints: tuple[annotated_types.BaseMetadata, ...]
    description: str
    range: Range | None = None

    def parse(self, value: Any) -> Any:
        """`value` as this parameter's type, checked against its bounds.

        Raises:
            ValueError: with what was found and what was expected.
        """
        expected = f"{self.type.__name__}{f' {self.bounds}' if self.bounds else ''}"
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.type:
            raise ValueError(f"{self.name}: got {value!r}, expected {expected}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{self.name}: got {value!r}, expected a finite number")
        if not all(_holds(constraint, value) for constraint in self.constraints):
            raise ValueError(f"{self.name}: got {value!r}, expected {expected}")
        return value


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A declared method: its loss and all that the benchmark needs to know of it.

    Attributes:
        name: the function's name; how suites call it.
        function: the loss.
        data: the record it reads: `pairs`, `chosen`, `unpaired`, `scores` or `rollouts`; `candidates` of a `Selection`.
        reference: whether it needs reference log-probabilities.
        paper: where it comes from, such as `arXiv:2305.18290`.
        learning_rate: default for LoRA adapters; None for a method that trains nothing.
        reward: definition of the rewards it returns, in one phrase.
        parameters: name → hyper-parameter.
        doc: the docstring, dedented.
        at_reference, normalised, uses_rejected: what the conformance kit may hold it to; see `algorithm`.
        advantage, critic: of an online method; see `algorithm`.
        auxiliary: from the resolved hyper-parameters to what a scored pair brings beside its scores; None for nothing.
        learning_rate_range: learning rates that suit LoRA adapters; None when none are known.
    """

    name: str
    function: Callable[..., Any]
    data: DataKind | RecipeData | SelectionData
    reference: bool
    paper: str
    learning_rate: float | None
    reward: str
    parameters: Mapping[str, Parameter]
    doc: str
    at_reference: AtReference | None = None
    normalised: bool | None = None
    uses_rejected: bool | Callable[..., bool] = True
    advantage: Callable[..., Advantages] | None = None
    critic: bool = False
    auxiliary: Callable[[Mapping[str, Any]], Auxiliary] | None = None
    learning_rate_range: Range | None = None

    @property
    def ranges(self) -> dict[str, Range]:
        """The declared ranges: hyper-parameter → range, `learning_rate` first."""
        rate = {"learning_rate": self.learning_rate_range} if self.learning_rate_range else {}
        return rate | {name: item.range for name, item in self.parameters.items() if item.range is not None}

    @property
    def searched(self) -> dict[str, Range]:
        """The ranges that a suite's `tune` searches: all, but none of a method without training."""
        return {} if self.learning_rate is None else self.ranges

    @property
    def kind(self) -> Literal["reward", "policy"]:
        """What it yields: a reward model (scalar head) or a policy."""
        return "reward" if self.data == "scores" else "policy"

    @property
    def online(self) -> bool:
        """Whether it is trained on answers that it writes itself, against a reward."""
        return self.data == "rollouts"

    @property
    def rewarded(self) -> bool:
        """Whether its parameter `reward` names what judges the answers that it learns from, or picks among."""
        return self.data in ("rollouts", "candidates")

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.strip().splitlines()[0] if self.doc.strip() else ""

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All hyper-parameters: the given ones, checked, over the defaults.

        Raises:
            ValueError: for an unknown name, a wrong type or a value out of bounds.
        """
        for name in given:
            if name not in self.parameters:
                every = [] if self.learning_rate is None else ["learning_rate", *OWN_SETTINGS]
                hint = nearest(name, [*self.parameters, *every], what="parameter")
                raise ValueError(f"{self.name} has no parameter {name!r}. {hint}")
        return {
            name: parameter.parse(given[name]) if name in given else parameter.default
            for name, parameter in self.parameters.items()
        }

    def advantages(self, experience: Experience, parameters: Mapping[str, Any]) -> Advantages:
        """What an online method makes of a batch of answers; `parameters` are all of its hyper-parameters.

        Raises:
            PluginError: when it is not what the contract asks for.
        """
        assert self.advantage is not None, "an online method declares one"
        found = self.advantage(experience, **_named_by(self.advantage, parameters))
        if not isinstance(found, Advantages):
            raise PluginError(
                f"{self.name}: its advantage returned {type(found).__name__}, expected align_bench.api.Advantages"
            )
        for name, tensor in {"advantages": found.advantages, "returns": found.returns}.items():
            if (tensor is None) != (name == "returns" and not self.critic):
                raise PluginError(f"{self.name}: its advantage {'lacks' if tensor is None else 'has'} {name}")
            if tensor is not None and tensor.shape != experience.mask.shape:
                raise PluginError(
                    f"{self.name}: its advantage returned {name} of shape {tuple(tensor.shape)}, "
                    f"expected one a token: {tuple(experience.mask.shape)}"
                )
        return found

    def __call__(self, batch: Record, **parameters: Any) -> Loss:
        """The loss of one batch.

        Raises:
            PluginError: when it is not what the contract asks for.
        """
        own = _named_by(self.function, parameters) if self.data == "rollouts" else parameters
        loss = self.function(batch, **own)
        if not isinstance(loss, Loss):
            raise PluginError(f"{self.name} returned {type(loss).__name__}, expected align_bench.api.Loss")
        rows = _rows(batch)
        for field_name in ("values", *self.reward_fields):
            tensor = getattr(loss, field_name)
            if tensor is None:
                raise PluginError(f"{self.name} returned a Loss without {field_name}, which data={self.data!r} needs")
            if tuple(tensor.shape) != (rows,):
                raise PluginError(
                    f"{self.name} returned {field_name} of shape {tuple(tensor.shape)}, expected one a row: ({rows},)",
                    fix="return per-example values; the mean is the caller's",
                )
        for name, tensor in loss.metrics.items():
            if tuple(tensor.shape) != (rows,):
                raise PluginError(
                    f"{self.name} returned the metric {name!r} of shape {tuple(tensor.shape)}, "
                    f"expected one a row: ({rows},)",
                    fix="expand it to the rows, such as value.expand(rows)",
                )
        return loss

    @property
    def reward_fields(self) -> tuple[str, ...]:
        """The fields of `Loss` that hold this method's rewards; none of an online method, which is given its reward."""
        if self.data == "rollouts":
            return ()
        return ("rewards",) if self.data in ("chosen", "unpaired") else ("chosen_rewards", "rejected_rewards")


def algorithm(
    *,
    data: DataKind,
    paper: str,
    learning_rate: float,
    learning_rate_range: tuple[float, float] | None = None,
    reference: bool = False,
    reward: str,
    at_reference: AtReference | None = None,
    normalised: bool | None = None,
    uses_rejected: bool | Callable[..., bool] = True,
    advantage: Callable[..., Advantages] | None = None,
    critic: bool = False,
    rollout: Mapping[str, Any] | None = None,
    auxiliary: Callable[[Mapping[str, Any]], Auxiliary] | None = None,
) -> Callable[[Callable[..., Any]], Algorithm]:
    """Declare a loss as a method of the benchmark. Its signature is its hyper-parameter schema.

    Args:
        data: the record that the loss reads: `pairs` (PairLogps), `chosen` (ChosenLogps), `unpaired` (UnpairedLogps),
            `scores` (PairScores) or `rollouts` (Rollouts).
        paper: citation, such as `arXiv:2305.18290`.
        learning_rate: default peak learning rate for LoRA adapters.
        learning_rate_range: lowest and highest one that suit LoRA adapters; outside of them a run warns.
        reference: True when the loss reads reference log-probabilities.
        reward: definition of the rewards in the returned `Loss`, in one phrase for the tables.
        at_reference: the closed form of a row's loss where the policy equals the reference (`scores`: where both scores
            are 0), or a function of the hyper-parameters, by keyword, that returns it; a pair of numbers stands for
            desirable and undesirable answers. `align-bench check` holds the loss to it.
        normalised: True when the loss reads log-probabilities per token, so that answers twice as long at the same `s̄`
            leave it alone; False when it reads sums and never token counts; None when neither holds.
        uses_rejected: whether rejected (undesirable) answers move the loss, or a function of the hyper-parameters that
            tells it.
        advantage: of an online method (`rollouts`): a function from an `Experience` to its `Advantages`, called once
            for each batch of answers; its keyword arguments are hyper-parameters too, as are those of `_rollout`.
        critic: True to train a value head beside the policy, which `advantage` and the loss then read.
        rollout: defaults of an online method that differ from those of `_rollout`.
        auxiliary: from the resolved hyper-parameters to a `BiasExpert`, an `Adversary` or a `LengthHead`, whose fields
            of `PairScores` the loss reads; for `data="scores"` only.

    Returns:
        A decorator that turns the function into an `Algorithm`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., Any]) -> Algorithm:
        name = function.__name__
        if data not in typing.get_args(DataKind):
            raise PluginError(
                f"{name}: data={data!r}. {nearest(str(data), typing.get_args(DataKind), what='data kind')}"
            )
        doc = inspect.getdoc(function) or ""
        if not doc:
            raise PluginError(f"{name} has no docstring", fix="say its equation, arguments and source in one")
        number = isinstance(learning_rate, int | float) and not isinstance(learning_rate, bool)
        if not number or not 0 < learning_rate < math.inf:
            raise PluginError(f"{name}: learning_rate={learning_rate!r}, expected a number > 0")
        if at_reference is not None and not reference and data != "scores":
            raise PluginError(
                f"{name}: at_reference is declared, but the loss reads no reference",
                fix="declare reference=True, or leave at_reference out",
            )
        if (data == "rollouts") != (advantage is not None):
            raise PluginError(f"{name}: data='rollouts' and advantage=… go together")
        online = {} if advantage is None else _online_parameters(name, advantage, doc, rollout or {})
        if clash := online.keys() & inspect.signature(function).parameters.keys():
            raise PluginError(f"{name}: parameter {clash.pop()!r} stands in the loss and in its advantage or rollout")
        if auxiliary is not None and data != "scores":
            raise PluginError(f"{name}: auxiliary= stands beside scores, got data={data!r}", fix='use data="scores"')
        rates = None if learning_rate_range is None else Range(*learning_rate_range)
        if rates is not None and (rates.low <= 0 or learning_rate not in rates):
            raise PluginError(
                f"{name}: learning_rate_range={rates}, expected numbers > 0 around the default {learning_rate:g}"
            )
        return Algorithm(
            name=name,
            function=function,
            data=data,
            reference=reference,
            paper=paper,
            learning_rate=learning_rate,
            reward=reward,
            parameters={**_parameters(function, doc), **online},
            doc=doc,
            at_reference=at_reference,
            normalised=normalised,
            uses_rejected=uses_rejected,
            advantage=advantage,
            critic=critic,
            auxiliary=auxiliary,
            learning_rate_range=rates,
        )

    return declare


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


@dataclass(frozen=True, slots=True)
class Job:
    """A whole training, as a recipe gets it.

    Attributes:
        model: a frozen base under a fresh, trainable fp32 adapter (and a scalar head, `score`, for data `scores`), on
            its device. The recipe trains the adapter `default` in place and leaves no other.
        tokenizer: the base's tokenizer; the recipe's own copy.
        examples: a `Pair` each for data `pairs` and `scores`, an `Answer` each for `unpaired`, a `Prompt` each for
            `rollouts`.
        lengths: padded tokens that each example costs, all its answers together (of a `Prompt`, itself alone).
        batches: the examples (by number) of every optimizer step, in order; an epoch is as many steps as the next.
        learning_rate: peak learning rate of AdamW.
        settings: the suite's `train:` section (`align_bench.suite.models.Train`).
        seed: seed of what is random beside the order of rows.
        device: `cuda`, `cpu` and the like.
        bf16: whether activations are bf16; fp32 otherwise.
        scratch: an empty folder, deleted afterwards.
        log: to be called once an optimizer step with its numbers: `loss`, and as known `learning_rate`,
            `gradient_norm`, `chosen_reward`, `rejected_reward`, `margin`, `accuracy` and others; and where the recipe
            makes answers itself, `tokens`, of prompts and answers since the start.
        reward: for `rollouts`, (example's number, ids of an answer to it) → reward, no unit; else None.
    """

    model: Any
    tokenizer: Any
    examples: Sequence[Pair] | Sequence[Answer] | Sequence[Prompt]
    lengths: Sequence[int]
    batches: Sequence[Sequence[int]]
    learning_rate: float
    settings: Any
    seed: int
    device: str
    bf16: bool
    scratch: Path
    log: Callable[[Mapping[str, float]], None]
    reward: Callable[[int, Sequence[int]], float] | None = None


@dataclass(frozen=True, slots=True)
class Recipe(Algorithm):
    """A method that takes the whole training instead of a loss, such as one of a foreign trainer.

    Attributes:
        function: takes a `Job` and the hyper-parameters, returns nothing.
        data: what its examples are: `pairs`, `unpaired`, `scores` or `rollouts`.
        libraries: distributions whose versions its numbers depend on; they are part of its artefacts' keys.
        obstacle: tells in words what keeps it from training here, or None when nothing does; see `recipe`.
    """

    libraries: tuple[str, ...] = ()
    obstacle: Callable[[], str | None] | None = None


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
        data: what `Job.examples` holds: `pairs`, `unpaired` or `rollouts` (prompts to answer) train a policy, `scores`
            a reward model on pairs. With `rollouts` a parameter `reward` names what scores the answers: a reward method
            of the suite, or `gold`.
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
        if data not in typing.get_args(RecipeData):
            known = nearest(str(data), typing.get_args(RecipeData), what="data kind of a recipe")
            raise PluginError(f"{function.__name__}: data={data!r}. {known}")
        reward = "r" if data == "scores" else "s̄"
        # As a loss is declared, but for the data: no loss reads rollouts.
        declared = algorithm(
            data="pairs",
            paper=paper,
            learning_rate=learning_rate,
            learning_rate_range=learning_rate_range,
            reward=reward,
        )(function)
        if data == "rollouts" and "reward" not in declared.parameters:
            raise PluginError(f"{declared.name}: rollouts need a reward", fix='add the parameter reward: str = "gold"')
        shared = {each.name: getattr(declared, each.name) for each in fields(declared)}
        return Recipe(**shared | {"data": data}, libraries=tuple(libraries), obstacle=obstacle)

    return declare


@dataclass(frozen=True, slots=True)
class Selection(Algorithm):
    """A method that trains nothing: of several answers that the base writes to a prompt, it picks one by a reward.

    Attributes:
        function: takes the rewards of the candidates, shape [prompts, n], and its own hyper-parameters; returns the
            place of each prompt's pick, integer tensor of shape [prompts].
        data: always `candidates`.
        kl_bound: from the resolved hyper-parameters to a bound of the KL divergence of its answers from the base's, in
            nats a prompt.
    """

    kl_bound: Callable[[Mapping[str, Any]], float] = field(kw_only=True)

    def pick(self, rewards: Tensor, parameters: Mapping[str, Any]) -> list[int]:
        """The place of each prompt's pick.

        Args:
            rewards: of the candidates, shape [prompts, n], in the reward's unit.
            parameters: all of its hyper-parameters.

        Raises:
            PluginError: when it returned something else than a place for each prompt.
        """
        from torch import Tensor

        found = self.function(rewards, **_named_by(self.function, parameters))
        prompts, n = rewards.shape
        places = found.tolist() if isinstance(found, Tensor) and tuple(found.shape) == (prompts,) else None
        if places is None or not all(isinstance(place, int) and 0 <= place < n for place in places):
            raise PluginError(
                f"{self.name} returned {found!r}, expected an integer tensor of shape ({prompts},) below {n}",
                fix="return the place of the picked candidate of each row, such as rewards.argmax(1)",
            )
        return places


def selection(
    *, paper: str, kl_bound: Callable[[Mapping[str, Any]], float]
) -> Callable[[Callable[..., Tensor]], Selection]:
    """Declare a function that picks among the base's answers as a method. It has no adapter and no learning rate.

    Beside its own hyper-parameters it has those of `_candidates`: which reward, how many candidates, how they are
    sampled. What it writes to a pair's answers has no log-probability of its own, so that all measures of pairs are
    undefined for it.

    Args:
        paper: citation, such as `arXiv:2112.09332`.
        kl_bound: from the resolved hyper-parameters to a bound of the KL divergence of its answers from the base's, in
            nats a prompt; the report states it.

    Returns:
        A decorator that turns the function into a `Selection`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., Tensor]) -> Selection:
        name, doc = function.__name__, inspect.getdoc(function) or ""
        if not doc:
            raise PluginError(f"{name} has no docstring", fix="say its equation, arguments and source in one")
        own, shared = _parameters(function, doc), _parameters(_candidates, inspect.getdoc(_candidates) or "")
        if clash := own.keys() & shared.keys():
            raise PluginError(f"{name}: parameter {clash.pop()!r} is one that every selection has")
        return Selection(
            name=name,
            function=function,
            data="candidates",
            reference=False,
            paper=paper,
            learning_rate=None,
            reward="",
            parameters=own | shared,
            doc=doc,
            kl_bound=kl_bound,
        )

    return declare


def _candidates(
    _: None,
    *,
    reward: str = "rm",
    n: Annotated[int, annotated_types.Ge(1), Range(4, 64)] = 8,
    temperature: Annotated[float, annotated_types.Gt(0)] = 1.0,
) -> None:
    """How every selection gathers what it picks among; the suite's `generate:` says the rest.

    Args:
        reward: a reward method of the same suite, or gold.
        n: candidates, answers of the base to one prompt.
        temperature: of sampling them, no unit; the KL bound is against the base as sampled at it.
    """


def _rollout(
    _: None,
    *,
    reward: str = "rm",
    samples: Annotated[int, annotated_types.Ge(1)] = 4,
    updates: Annotated[int, annotated_types.Ge(1)] = 1,
    max_new_tokens: Annotated[int, annotated_types.Ge(1)] = 64,
    temperature: Annotated[float, annotated_types.Gt(0)] = 1.0,
    no_end_penalty: Annotated[float, annotated_types.Ge(0)] = 1.0,
) -> None:
    """How every online method gathers its answers.

    Args:
        reward: a reward method of the same suite, or gold.
        samples: answers to each prompt of a batch.
        updates: optimizer steps on each batch of answers; more than one makes it partly off-policy.
        max_new_tokens: longest answer, in tokens.
        temperature: of sampling, no unit; log-probabilities are read at 1.
        no_end_penalty: taken off the reward of an answer without end of turn, in the reward's unit.
    """


def _online_parameters(
    name: str, advantage: Callable[..., Advantages], doc: str, defaults: Mapping[str, Any]
) -> dict[str, Parameter]:
    shared = _parameters(_rollout, inspect.getdoc(_rollout) or "")
    if unknown := defaults.keys() - shared.keys():
        raise PluginError(f"{name}: rollout: {nearest(unknown.pop(), shared, what='setting')}")
    own = _parameters(advantage, doc)
    if clash := own.keys() & shared.keys():
        raise PluginError(f"{name}: parameter {clash.pop()!r} stands in the advantage and in the rollout")
    shared |= {key: replace(shared[key], default=shared[key].parse(value)) for key, value in defaults.items()}
    return own | shared


def _named_by(function: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those parameters that the function takes."""
    return {name: parameters[name] for name in inspect.signature(function).parameters if name in parameters}


def _parameters(function: Callable[..., Any], doc: str) -> dict[str, Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    found = {}
    signature = list(inspect.signature(function).parameters.values())
    if not signature or signature[0].kind not in (signature[0].POSITIONAL_ONLY, signature[0].POSITIONAL_OR_KEYWORD):
        raise PluginError(
            f"{function.__name__}: its first argument must be the batch", fix="write def name(batch, *, …)"
        )
    for parameter in signature[1:]:
        where = f"{function.__name__}: parameter {parameter.name!r}"
        if parameter.name == "learning_rate":
            raise PluginError(f"{where} is every method's own", fix="give its default to @algorithm(learning_rate=…)")
        if parameter.name in OWN_SETTINGS:
            raise PluginError(f"{where} is a training setting, which suites set for every method", fix="rename it")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty:
            raise PluginError(f"{where} must be keyword-only with a default", fix="write *, name: float = 0.1")
        hint = hints.get(parameter.name)
        base, constraints = hint, tuple[annotated_types.BaseMetadata, ...]()
        ranges: list[Range] = []
        if typing.get_origin(hint) is typing.Annotated:
            base, *metadata = typing.get_args(hint)
            constraints = tuple(_bounds(metadata, where))
            ranges = [item for item in metadata if isinstance(item, Range)]
        if base not in (float, int, bool, str):
            raise PluginError(f"{where} has type {base!r}, expected float, int, bool or str")
        declared = Parameter(
            name=parameter.name,
            type=base,
            default=parameter.default,
            bounds=", ".join(_in_words(constraint) for constraint in constraints),
            constraints=constraints,
            description=_described(parameter.name, doc),
        )
        try:
            declared = replace(declared, default=declared.parse(parameter.default))
        except ValueError as error:
            raise PluginError(f"{function.__name__}: the default breaks its own schema: {error}") from error
        found[parameter.name] = replace(declared, range=_range(ranges, declared, where))
    return found


def _range(ranges: list[Range], declared: Parameter, where: str) -> Range | None:
    """The parameter's range, checked against its type, bounds and default."""
    if not ranges:
        return None
    if len(ranges) > 1 or declared.type not in (float, int):
        raise PluginError(f"{where} has {', '.join(map(repr, ranges))}, expected one on a float or int")
    try:
        found = Range(declared.parse(ranges[0].low), declared.parse(ranges[0].high))
    except ValueError as error:
        raise PluginError(f"{where}: its range breaks its own schema: {error}") from error
    if declared.default not in found:
        raise PluginError(f"{where}: the default {declared.default:g} is outside its range {found}")
    return found


def _bounds(metadata: list[Any], where: str) -> Iterator[annotated_types.BaseMetadata]:
    """The bounds among the metadata; one such as Interval stands for several."""
    for item in metadata:
        if isinstance(item, annotated_types.GroupedMetadata):
            yield from _bounds(list(item), where)
        elif isinstance(item, annotated_types.BaseMetadata):
            if type(item) not in _CHECKS:
                raise PluginError(
                    f"{where}: bound {item!r} is not one of Gt, Ge, Lt, Le",
                    fix="use one bound a side, such as Gt(0), Lt(1)",
                )
            yield item


def _described(name: str, doc: str) -> str:
    for line in doc.splitlines():
        stripped = line.strip()
        if stripped.startswith(f"{name}:"):
            return stripped.removeprefix(f"{name}:").strip()
    return ""


_CHECKS: dict[type, tuple[str, str, Callable[[Any, Any], bool]]] = {
    annotated_types.Gt: ("gt", ">", lambda value, bound: value > bound),
    annotated_types.Ge: ("ge", "≥", lambda value, bound: value >= bound),
    annotated_types.Lt: ("lt", "<", lambda value, bound: value < bound),
    annotated_types.Le: ("le", "≤", lambda value, bound: value <= bound),
}


def _check_of(constraint: annotated_types.BaseMetadata) -> tuple[Any, str, Callable[[Any, Any], bool]]:
    attribute, symbol, check = _CHECKS[type(constraint)]
    return getattr(constraint, attribute), symbol, check


def _holds(constraint: annotated_types.BaseMetadata, value: Any) -> bool:
    bound, _, check = _check_of(constraint)
    return check(value, bound)


def _in_words(constraint: annotated_types.BaseMetadata) -> str:
    bound, symbol, _ = _check_of(constraint)
    return f"{symbol} {bound:g}"


def _rows(batch: Record) -> int:
    return len(batch.chosen if isinstance(batch, PairLogps | PairScores) else batch.logps)
