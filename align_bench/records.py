"""What flows between the stages. Plain frozen records: no torch, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

# What JSON can hold, and what a hyper-parameter can be (None: of a loaded model that has no such thing).
Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
Scalar: TypeAlias = bool | int | float | str | None
Parameters: TypeAlias = Mapping[str, Scalar]
Facts: TypeAlias = Mapping[str, Json]  # small values beside an artefact, read without opening its files
Kind = Literal["reward", "policy", "base"]
Status = Literal["done", "failed", "skipped"]
Level = Literal["checkpoint", "method"]
Decision = Literal["higher", "lower", "equivalent", "none", "undefined"]
MAX_DROPPED = 0.05  # share of rows that may be dropped when they are read or rendered, if nothing else is asked for
SMALLEST_TEMPERATURE = 1e-4  # logits that are divided by less may leave the range of float32
OWN_SETTINGS = ("epochs", "batch_size")  # of a suite's `train`, which a method may set or sweep for itself
START_SETTINGS = ("start_from", "reference_policy")  # what a method is trained from, and what its reference is


@dataclass(frozen=True, slots=True)
class CellJson:
    """A `CellId` as JSON holds it.

    Attributes:
        text: what rows, tables and files call it; not read back.
        name, parameters, seed, trial, run: as of a `CellId`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    text: str
    name: str
    parameters: dict[str, Scalar]
    seed: int | None
    trial: int | None
    run: str | None


@dataclass(frozen=True, slots=True)
class CellId:
    """Which cell of a suite, or which method: a method is what the seeds replicate.

    Its text is for people, files and folders; nothing reads it back.

    Attributes:
        name: the method, `base`, or the judge (`judge`, `judge2`).
        parameters: those that tell it from the suite's other cells of that method, each with its value.
        seed: None of a method, and where the suite has one seed.
        trial: number of a trial, where it is one of `tune`.
        run: the stored run that it is from, where several are compared.
    """

    name: str
    parameters: tuple[tuple[str, Scalar], ...] = ()
    seed: int | None = None
    trial: int | None = None
    run: str | None = None

    @property
    def method(self) -> CellId:
        """The same without its seed."""
        return replace(self, seed=None)

    def __str__(self) -> str:
        run = "" if self.run is None else f"{self.run}/"
        shown = ",".join(f"{name}={value}" for name, value in self.parameters)
        trial = "" if self.trial is None else f" trial {self.trial}"
        seed = "" if self.seed is None else f"#{self.seed}"
        return f"{run}{self.name}{f'[{shown}]' if shown else ''}{trial}{seed}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as made

        written = handler.generate_schema(CellJson)
        return made.union_schema(
            [made.is_instance_schema(cls), made.no_info_after_validator_function(cls._of_json, written)],
            serialization=made.plain_serializer_function_ser_schema(cls._as_json, return_schema=written),
        )

    def _as_json(self) -> CellJson:
        return CellJson(str(self), self.name, dict(self.parameters), self.seed, self.trial, self.run)

    @classmethod
    def _of_json(cls, found: CellJson) -> CellId:
        return cls(found.name, tuple(found.parameters.items()), found.seed, found.trial, found.run)


@dataclass(frozen=True, slots=True)
class MetricKey:
    """Which metric, and by whom where there are several.

    Attributes:
        name: such as `accuracy` or `judge_reward`.
        of: the judge, where it is not the main one; or the reward model's cell. Empty for all others.
    """

    name: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.name}[{self.of}]" if self.of else self.name


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TemplateInputs:
    """What a chat template reads beside the turns: the same in training, generation, judging and `score`.

    Attributes:
        kwargs: a suite's `chat_template_kwargs`, such as `enable_thinking: false`.
        date: the day that a template gets which asks for today's (`strftime_now`), as 2026-01-01; None where none asks.
    """

    kwargs: Mapping[str, Json] = field(default_factory=dict, hash=False)
    date: str | None = None

    def identity(self) -> dict[str, Json]:
        """What of it belongs into keys beside the date: nothing where nothing is set."""
        return {"chat_template_kwargs": self.kwargs} if self.kwargs else {}


@dataclass(frozen=True, slots=True)
class Preference:
    """One row of a preference set.

    Attributes:
        pair: the row's number in its source, before any row was dropped (0-based); where a row holds several pairs, the
            pair's.
        prompt: the turns before the answer; the last one is the user's.
        chosen: the preferred (desirable) answer; None in an unpaired, undesirable row.
        rejected: the other (undesirable) answer; None in an unpaired, desirable row.
        gold: the right answer where the data has a gold judge.
        candidates: rival answers of the prompt's kind, `gold` included; empty for numbers.
        gold_choice: 1 when `chosen` alone is right, 2 when `rejected` alone is right, else None.
        label_probability: with which the label was drawn, that of preferring `chosen`; None where the data do not say.
        chosen_first: whether `chosen` is the first of two answers that the row numbers; None where it numbers none.
        margin: how much better `chosen` is, in the data's own unit: its margin, its difference of scores, or the size
            of its signed choice; None where it has none of these.
    """

    pair: int
    prompt: tuple[Message, ...]
    chosen: str | None
    rejected: str | None
    gold: str | None = None
    candidates: tuple[str, ...] = ()
    gold_choice: int | None = None
    label_probability: float | None = None
    chosen_first: bool | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt and one answer to it, as texts.

    Attributes:
        prompt: the turns before the answer; the last one is the user's.
        answer: the answer, without the end-of-turn token.
        finished: whether the answer ended by itself, rather than being cut off.
    """

    prompt: tuple[Message, ...]
    answer: str
    finished: bool = True


@dataclass(frozen=True, slots=True)
class PreferenceSet:
    """A data set as read: its usable rows, and what was dropped and why.

    Attributes:
        rows: the usable rows; very many are kept in a file, and read when they are asked for (`data.spilled`).
        shape: the recognised shape, in words (such as `question + response_1/2 + overall_response`).
        counts: reason → rows; always holds `read` and `kept`, and one `dropped: …` for each reason that occurred.
        unread: columns that are not read.
        unread_keys: keys of turns that say something and are not read.
    """

    rows: Sequence[Preference]
    shape: str
    counts: Mapping[str, int]
    unread: tuple[str, ...] = ()
    unread_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One preference row as token ids. The prompt ends with the template's answer header.

    Attributes:
        pair: the row's number in its source.
        prompt: token ids of the rendered prompt.
        chosen, rejected: token ids of the answer with its end-of-turn token (absent when truncated); None when
            unpaired.
        gold_choice, margin: see `Preference`.
    """

    pair: int
    prompt: tuple[int, ...]
    chosen: tuple[int, ...] | None
    rejected: tuple[int, ...] | None
    gold_choice: int | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The one tokenised table that every method uses.

    Attributes:
        rows: the kept rows; those of `data.token_rows` are kept in Arrow, and made when they are asked for.
        counts: reason → rows: `kept`, `truncated`, `dropped: …`.
        examples: reason → number of the first row that was dropped for it; not stored.
    """

    rows: Sequence[TokenRow]
    counts: Mapping[str, int]
    examples: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled answer.

    Attributes:
        cell: name of the cell that wrote it (`base` for the untrained base).
        algorithm: the method's name.
        seed: the cell's seed.
        prompt_id: the validation pair whose prompt was answered.
        sample: 0-based number among the samples of this prompt.
        prompt: the user's last turn.
        text: the answer, without the end-of-turn token.
        tokens: generated tokens, end of turn included.
        finished: whether the answer ended by itself.
        scores: judge name → score (a reward; 0 or 1 for the judge `gold`).
        proxies: name of a reward model's cell → score by that model, where the policy learned from it or picked by it;
            of the base's answers, by every such model of the suite.
        logp, ref_logp: its log-probability under the policy and under the base, nats; None for the base's answers.
        kl: KL(policy ‖ base), summed over its tokens, nats: the k3 estimate of `evaluate.drift`.
        start_logp, start_kl: as `ref_logp` and `kl`, of the policy's start; None where that is the base.
    """

    cell: str
    algorithm: str
    seed: int
    prompt_id: int
    sample: int
    prompt: str
    text: str
    tokens: int
    finished: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    proxies: Mapping[str, float] = field(default_factory=dict)
    logp: float | None = None
    ref_logp: float | None = None
    kl: float | None = None
    start_logp: float | None = None
    start_kl: float | None = None


@dataclass(frozen=True, slots=True)
class PairTexts:
    """What a validation pair says, as `pairs.parquet` shows it.

    Attributes:
        pair: the row's number in its source.
        prompt: the user's last turn.
        chosen, rejected: the preferred answer and the other one.
        label_probability, gold: see `Preference`.
    """

    pair: int
    prompt: str
    chosen: str
    rejected: str
    label_probability: float | None = None
    gold: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A preferred answer of the training set, as `training_texts.parquet` shows it: its keywords are of these.

    Attributes:
        pair: the row's number in its source.
        chosen: the preferred (desirable) answer.
    """

    pair: int
    chosen: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval. Undefined is None, never 0.

    Attributes:
        value: the estimate.
        low, high: bounds of the 95% confidence interval.
        n: observations behind it.
        wanted: the n that the interval wants, where it is less: values are so skewed, have such heavy tails or are so
            few that it covers less often than 95%.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A tested difference `a − b`. Undefined is None, never 0.

    Attributes:
        a, b: cells (level `checkpoint`) or methods (level `method`).
        level: what the claim is about.
        metric: the compared metric.
        unit: the unit of the difference and its bounds: `share`, `reward` or `correlation`.
        difference, low, high: mean difference and its 95% interval, that of the test; not adjusted for the family where
            there is a p-value, adjusted (Bonferroni) where the interval alone decides.
        bootstrap_low, bootstrap_high: its 95% BCa bootstrap interval over prompts, between checkpoints; nothing is
            decided by it. For 100 prompts of lognormal scores it covers 91% in simulations.
        test: the test's name, as a reader would cite it.
        p, p_holm: p-value, plain and Holm-adjusted over the family; 1e-300 stands for that or less.
        p_wilcoxon: of Wilcoxon's signed-rank test beside the paired t.
        effect: Cohen's dz for paired means; None where the test has none.
        margin: a difference smaller than this counts as none, in `unit`.
        p_tost, p_tost_holm: p-value of the equivalence test (TOST) within ±margin, plain and Holm-adjusted over all
            equivalence tests of the family.
        n: pairs of observations; seeds of the smaller group at the level `method`.
        prompts: distinct prompts behind them.
        family: tests that were adjusted together with this one: those of the metric among reward models, or among
            policies with the base, between checkpoints; all between methods. 0 in reports from before there were any.
        df: degrees of freedom of the t-test, where it is one.
        decision: what may be said; None in reports from before it was kept.
        method_low, method_high: interval of the difference between the methods of two checkpoints, which allows for
            other seeds; at 95% together with those of its family (Bonferroni), since it alone decides. None where no
            seed noise is known, or the methods have seeds enough for a test.
        seed_share: share of that interval's variance that comes from the seeds.
        seed_noise: what it allows for: the standard deviation of a method's mean over seeds, in standard deviations of
            the difference between the two checkpoints on one prompt.
        seed_noise_declared: whether the suite declares that; otherwise its own seeds show it. None without it.
    """

    a: CellId
    b: CellId
    level: Level
    metric: MetricKey
    unit: str
    difference: float | None
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    test: str
    p: float | None
    p_holm: float | None
    p_wilcoxon: float | None
    effect: float | None
    margin: float | None
    p_tost: float | None
    p_tost_holm: float | None
    n: int
    prompts: int
    family: int = 0
    df: float | None = None
    decision: Decision | None = None
    method_low: float | None = None
    method_high: float | None = None
    seed_share: float | None = None
    seed_noise: float | None = None
    seed_noise_declared: bool | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What an artefact cost.

    Attributes:
        seconds: wall-clock time.
        tokens: tokens through the model.
        peak_bytes: peak memory.
        flops: floating-point operations that its passes needed, by `models.flops`; None where they were not counted.
        utilisation: these per second, as a share of what the device was measured to reach; None with them, and where it
            would be above 1, for then that was measured beside other work.
        threads: that the CPU computed with; None where they were not recorded.
        device: the name of the GPU, or `cpu`; None where it was not recorded, or not all was made on one.
    """

    seconds: float
    tokens: int
    peak_bytes: int
    flops: float | None = None
    utilisation: float | None = None
    threads: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell of the suite after the run: a method with its parameters and seed, or the base.

    Attributes:
        cell: unique in the report.
        algorithm: the method's name (`base` for the base).
        kind: what was trained.
        parameters: all hyper-parameters, defaults included.
        seed: the cell's seed.
        status: how it ended.
        reason: why it failed or was skipped.
        reward: the definition of the reward in `scores.parquet`, in words.
        cost: summed over the cell's own artefacts; None when it did not finish.
        trainable: parameters that its training changed; 0 for the base, None when it did not finish.
        warnings: a line for each hyper-parameter outside the range that its method declares.
        remarks: what a reader of its numbers has to know beside its parameters, a line each.
        adapter: the folder of its adapter, below that of what is computed (`runs`); None where it trained none.
        start: the cell that it starts from; None for the base, and for an adapter or a model that was given.
        chain: what it was trained after, from the first start on, and itself last; empty where it starts from the base.
    """

    cell: CellId
    algorithm: str
    kind: Kind
    parameters: Parameters
    seed: int
    status: Status
    reason: str | None = None
    reward: str = ""
    cost: Cost | None = None
    trainable: int | None = None
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()
    adapter: str | None = None
    start: CellId | None = None
    chain: Sequence[str] = ()


class Update(Protocol):
    """How a long stage reports its progress."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of work are finished; `note` is a short remark, such as the loss."""


def no_update(done: int, total: int, note: str = "") -> None:
    """An `Update` that shows nothing."""


# Takes the log entry of an optimizer step: `step`, `loss`, and what else a training logs.
LogStep: TypeAlias = Callable[[Mapping[str, float]], None]


def unlogged(entry: Mapping[str, float]) -> None:
    """A `LogStep` that keeps nothing."""
