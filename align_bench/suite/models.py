"""What a suite may say: every key with its type, default and description."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    field_validator,
    model_validator,
)

from align_bench.errors import SuiteError
from align_bench.records import MAX_DROPPED, OWN_SETTINGS, SMALLEST_TEMPERATURE, START_SETTINGS
from align_bench.suite.names import BASE_CELL as BASE_CELL
from align_bench.suite.names import GOLD as GOLD
from align_bench.suite.names import JUDGE_CELL as JUDGE_CELL
from align_bench.suite.strict import Number, Seed, Text, Truth, Whole

DEFAULT_SUITE = "assignment"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# What `chat_template_kwargs` may not say: arguments of the tokenizer, the turns themselves, and the date.
_ARGUMENTS = (
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "strftime_now"),
)


def _template_kwargs(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in value:
        if not name.isidentifier():
            raise ValueError(f"{name!r} is not the name of a template's variable")
        if name in _ARGUMENTS:
            hint = "; set `date`" if name == "strftime_now" else ""
            raise ValueError(f"{name} is not for a suite to set{hint}")
    return value


def _day(value: Any) -> Any:
    """A day of YAML as text; a day is written as 2026-01-01."""
    return value.isoformat() if type(value) is date else value


def _a_day(value: str) -> str:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is None:
        raise ValueError("expected a day, such as 2026-01-01")
    date.fromisoformat(value)
    return value


TemplateKwargs = Annotated[dict[str, JsonValue], AfterValidator(_template_kwargs)]
Day = Annotated[str, BeforeValidator(_day), AfterValidator(_a_day)]


class Lora(_Strict):
    """Low-rank adapters, as in peft."""

    r: Whole = Field(16, gt=0, description="rank")
    alpha: Number = Field(32, gt=0, description="scale; the update is multiplied by alpha / r")
    dropout: Number = Field(0.0, ge=0, lt=1, description="dropout on the adapters' input")
    target_modules: Text | list[Text] = Field("all-linear", description="peft's target_modules")


class DataFile(_Strict):
    """Where rows come from. A bare string, or a list of them, is its `path`."""

    path: Text | Annotated[list[Text], Field(min_length=1)] = Field(
        description="file (.parquet, .jsonl, .json, .csv, .arrow; text also .gz or .zst), pattern (train-*.parquet), "
        "folder of such files or of save_to_disk, list of these; hub id; or embedded/planted"
    )
    split: Text | None = Field(
        None,
        description="split of a hub data set or of a folder of several, or train | judge | val | test of "
        "embedded/planted",
    )
    columns: dict[Text, Text] = Field(default_factory=dict, description="standard column name → the file's own")
    choice: dict[Text, Text] = Field(
        default_factory=dict,
        description="value of the choice or label column, or a comparison such as '>=4' → what it stands for: an "
        "answer's column, a, b, desirable, undesirable or drop (a tie); where several columns tell the winner, each of "
        "them → the same",
    )
    rows: Whole | None = Field(None, gt=0, description="use the first n usable rows")
    skip: Whole = Field(
        0, ge=0, description="skip the first n usable rows, so that two entries can share a file but no row"
    )
    prompts: tuple[Number, Number] | None = Field(
        None,
        description="of these rows, use those whose prompt falls into this part of all prompts, such as [0, 0.2], by a "
        "hash of its text; entries with parts that do not overlap can share a file but no prompt",
    )
    revision: Text | None = Field(None, description="commit of a hub data set")
    bias: Number | Text = Field(
        "default", description="length bias of embedded/planted: none | default | strong | number"
    )
    too_long: Literal["truncate", "drop"] = Field("truncate", description="what to do beyond train.max_length")

    @field_validator("choice", mode="before")
    @classmethod
    def _as_texts(cls, choice: Any) -> Any:
        """Keys as YAML has them: 0, true, model_a."""
        if not isinstance(choice, Mapping):
            return choice
        return {str(key).lower() if isinstance(key, bool) else str(key): side for key, side in choice.items()}

    @field_validator("prompts")
    @classmethod
    def _a_part(cls, prompts: tuple[float, float] | None) -> tuple[float, float] | None:
        if prompts is not None and not 0 <= prompts[0] < prompts[1] <= 1:
            raise ValueError("expected two numbers from 0 to 1, the lower one first")
        return prompts

    @property
    def paths(self) -> tuple[str, ...]:
        """The path, or all of a list."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @property
    def embedded(self) -> bool:
        """Whether the rows ship with the package."""
        return self.paths[0].startswith("embedded/")


def _path_to_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | list) else value


DataField = Annotated[DataFile, BeforeValidator(_path_to_mapping)]


class Data(_Strict):
    """The rows that all methods train on, and the rows that all are measured on."""

    train: DataField
    val: DataField
    test: DataField | None = Field(
        None, description="pairs that nothing is chosen on, on which the base and every policy are compared once more"
    )
    max_dropped: Number = Field(
        MAX_DROPPED,
        ge=0,
        le=1,
        strict=True,
        description="share of an entry's rows that may be dropped when they are read or by the chat template; more "
        "stops the run",
    )


class Ensemble(_Strict):
    """Several judges that differ by their seed, combined to one score."""

    size: Whole = Field(3, gt=1, description="members; their seeds count up from the judge's")
    combine: Literal["mean", "worst", "variance_penalised"] = Field(
        "mean", description="mean of the scores, the lowest of them, or mean − penalty × variance"
    )
    penalty: Number = Field(1.0, ge=0, description="of variance_penalised, per unit of reward")


class TrainedJudge(_Strict):
    """A reward model that scores generations, trained on rows of its own."""

    name: Text | None = Field(
        None, min_length=1, max_length=100, description="key of its scores; by default its method"
    )
    method: Text = Field("rm", description="a reward method of the registry")
    data: DataField = Field(description="its training rows; keep them apart from data.train")
    holdout: Number | None = Field(
        None,
        gt=0,
        lt=1,
        description="in place of data: the share of data.train's prompts that it is trained on, and no method is",
    )
    parameters: dict[Text, Any] = Field(default_factory=dict, description="its hyper-parameters and learning_rate")
    seed: Seed = Field(0, description="its seed")
    allow_judge_as_reward: Truth = Field(False, description="allow a method whose reward is this judge itself")
    ensemble: Ensemble | None = Field(None, description="train several reward models and combine their scores")

    @property
    def title(self) -> str:
        """How reports call it without a name: by its method, and by how its members are combined."""
        several = self.ensemble and f"{self.ensemble.size} × {self.method}, {self.ensemble.combine}"
        return several or self.method


class LoadedJudge(_Strict):
    """A sequence-classification model that is loaded as it is. A bare string is its `model`."""

    name: Text | None = Field(
        None, min_length=1, max_length=100, description="key of its scores; by default the model's own name"
    )
    model: Text = Field(
        description="hub id or folder of a reward model (a sequence classifier, align-anything, exported, an adapter)"
    )
    revision: Text | None = Field(None, description="commit, branch or tag of a hub model")
    template: Literal["chat", "pair"] | None = Field(
        None,
        description="chat: its tokenizer's chat template; pair: prompt and answer as two texts; by default chat where "
        "there is a template",
    )
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict, description="what its chat template reads beside the turns"
    )
    date: Day | None = Field(
        None, description="the day that a chat template gets which writes today's; by default 2026-01-01"
    )

    @property
    def title(self) -> str:
        """How reports call it without a name: its hub id, or its folder's own name."""
        return Path(self.model).name if Path(self.model).is_dir() else self.model


class GoldJudge(_Strict):
    """The programmatic judge, where the data knows its right answers. Written `gold`."""

    method: Literal["gold"] = Field(description="gold")
    allow_judge_as_reward: Truth = Field(False, description="allow a method whose reward is gold as well")

    @property
    def title(self) -> str:
        """How reports call it."""
        return GOLD


AnyJudge = TrainedJudge | LoadedJudge | GoldJudge
JUDGE_KINDS: Mapping[str, type[AnyJudge]] = {"trained": TrainedJudge, "loaded": LoadedJudge, "gold": GoldJudge}


def judge_kind(value: Any) -> str:
    """Which of `JUDGE_KINDS` an entry of `judge:` is."""
    if not isinstance(value, Mapping):
        return next(kind for kind, model in JUDGE_KINDS.items() if isinstance(value, model))
    if value.get("method") == GOLD:
        return "gold"
    return "loaded" if "model" in value else "trained"


def _judges(value: Any) -> Any:
    """One judge or several, as a list of mappings."""
    if value is None:
        return []
    return [_judge_entry(entry) for entry in (value if isinstance(value, list | tuple) else [value])]


def _judge_entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"method": GOLD} if value == GOLD else {"model": value}
    if not isinstance(value, Mapping | TrainedJudge | LoadedJudge | GoldJudge):
        raise ValueError("expected {method: rm, data: …}, a hub id, a folder, gold, or a list of these")
    return value


JudgeEntry = Annotated[
    Annotated[TrainedJudge, Tag("trained")] | Annotated[LoadedJudge, Tag("loaded")] | Annotated[GoldJudge, Tag("gold")],
    Discriminator(judge_kind),
]


def judge_cell(place: int) -> str:
    """What the judge at a place (0-based) of the list is called among the cells: `judge`, `judge2`, …"""
    return JUDGE_CELL if place == 0 else f"{JUDGE_CELL}{place + 1}"


def judge_names(judges: Sequence[AnyJudge]) -> list[str]:
    """The key of each judge's scores: its name, or its title, numbered where two judges share it.

    Raises:
        SuiteError: when two judges are given the same name, one is given the gold judge's, or `gold` is listed twice.
    """
    names: list[str] = []
    for judge in judges:
        given = None if isinstance(judge, GoldJudge) else judge.name
        title = given or judge.title
        same = sum(name == title or name.startswith(f"{title} (") for name in names)
        if same and (given or isinstance(judge, GoldJudge)):
            raise SuiteError(f"judge: two judges are called {title!r}", fix="give one of them another name")
        if title == GOLD and not isinstance(judge, GoldJudge):
            raise SuiteError("judge: the name gold is the programmatic judge's", fix="choose another name")
        names.append(f"{title} ({same + 1})" if same else title)
    return names


class Train(_Strict):
    """Training settings that all methods share."""

    epochs: Whole = Field(1, gt=0, description="passes over the training rows")
    batch_size: Whole = Field(
        32, gt=0, description="examples per optimizer step: pairs, or answers for unpaired methods"
    )
    max_length: Whole = Field(1024, gt=1, description="tokens of prompt + answer")
    warmup: Number = Field(0.03, ge=0, lt=1, description="share of the steps with rising learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning rate after warm-up")
    weight_decay: Number = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: Number = Field(1.0, gt=0, description="gradient norm is clipped to this")
    micro_batch_tokens: Whole | None = Field(
        None,
        gt=0,
        description="tokens per forward pass, padding included; by default 768 on a CPU, and 1024 where nothing is "
        "trained, since more was not faster there when measured, elsewhere 8192; halved automatically when memory runs "
        "out",
    )
    activation_checkpointing: Truth = Field(
        False,
        description="keep only the input of each layer for the backward pass, which computes the rest again (gradient "
        "checkpointing): less memory for one more forward pass, and on a CPU for padded rows; turned on automatically "
        "when memory runs out with single examples",
    )
    cuda_graphs: Truth = Field(
        False,
        description="on a CUDA device, training passes, and what online methods write, as CUDA graphs, of rows padded "
        "to few shapes: for small models, where starting kernels takes longer than computing; no effect on other "
        "devices, on passes with dropout, or where layers compute again in the backward pass; not yet measured on a "
        "GPU",
    )
    checkpoint_minutes: Number = Field(
        5.0, gt=0, description="minutes between checkpoints, from which a killed training resumes"
    )
    processes: Whole = Field(
        1,
        gt=0,
        le=64,
        description="processes that share the training of one cell, each with a GPU of its own where there are as many",
    )


class Evaluate(_Strict):
    """What is measured beyond the unchanged validation pairs."""

    epsilons: list[Annotated[Number, Field(gt=0)]] = Field(
        default_factory=list,
        description="accuracy of reward models under attack: steps on the input embeddings, × their norm",
    )


class Audit(_Strict):
    """How far judges and reward models can be trusted: what moves their scores besides the quality of an answer."""

    pairs: Whole = Field(
        200,
        ge=0,
        description="scored again with changed texts: all pairs of prompts drawn at random, until there are this many "
        "pairs and 200 prompts, or all; 0 turns the audit off",
    )
    seed: Seed = Field(0, description="seed of the drawn prompts, and of the shuffled ones")


class Generate(_Strict):
    """How the base and every policy answer validation prompts."""

    prompts: Whole = Field(500, gt=0, description="the first n validation prompts")
    max_new_tokens: Whole = Field(
        256, gt=0, description="longest answer; a longer one is cut off and counts as unfinished"
    )
    temperature: Number = Field(0.0, ge=0, description="0 is greedy")
    samples: Whole = Field(1, gt=0, description="answers per prompt; averaged before tests")
    batch_size: Whole = Field(64, gt=0, description="prompts answered at once")
    cuda_graphs: Truth = Field(
        False,
        description="on a CUDA device, one CUDA graph writes a token of every answer: for small models, where starting "
        "kernels takes longer than computing; no effect on other devices; not yet measured on a GPU",
    )

    @model_validator(mode="after")
    def _temperature_can_be_divided_by(self) -> Generate:
        if 0 < self.temperature < SMALLEST_TEMPERATURE:
            raise ValueError(
                f"temperature {self.temperature:g} is too small to divide by; expected 0, which is greedy, or at least "
                f"{SMALLEST_TEMPERATURE:g}"
            )
        return self

    @model_validator(mode="after")
    def _several_samples_need_sampling(self) -> Generate:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples > 1 needs temperature > 0: greedy answers are all the same")
        return self


class Report(_Strict):
    """How results are judged."""

    equivalence_dz: Number = Field(
        0.1,
        gt=0,
        strict=True,
        description="differences below this × their standard deviation over prompts count as equivalent (Cohen's dz)",
    )
    seed_noise: Number | None = Field(
        None,
        gt=0,
        strict=True,
        description="standard deviation of a method's mean over seeds, × the standard deviation over prompts of the "
        "difference between two checkpoints; what one seed says of its method then allows for it; not used where the "
        "suite has a method with two seeds",
    )
    course_figures: Truth = Field(
        False,
        description="set the report's figures beside those that the course's report published for its own model and "
        "data: a sanity range, not a claim",
    )
    against: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="test every method against these methods of the suite and the base only, and not against every "
        "other one: fewer tests, so that more can be shown of each; reward models, or policies, of which none is named "
        "are compared as always",
    )


def _sweep(value: Any) -> Any:
    """A method's values to try: none given are None; a single one is a list of one."""
    if not isinstance(value, Mapping):
        return value
    return {name: item if isinstance(item, list) else [item] for name, item in value.items()} or None


Sweep = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]] | None, BeforeValidator(_sweep)]


class Tune(_Strict):
    """A search over methods' declared ranges, with as many trials for each, or over values that the suite lists.

    A trial trains on a part of train and is measured on the rest, which it holds out by prompt: reward models by the
    accuracy of their scores, policies by that of their mean log-probability per token. The best parameters train the
    method's cells on all of train. Trials have the first seed; the judge is not tuned.
    """

    trials: Whole = Field(
        4, ge=2, description="trials per method without listed values; the first one has its given parameters"
    )
    search: Literal["random", "grid"] = Field("random", description="how the others are drawn from the ranges")
    methods: dict[Text, Sweep] | None = Field(
        None,
        description="the methods that are tuned if the suite has them, each with the values to try, "
        "`rm: {learning_rate: [1e-4, 1e-3]}`, all combinations of them, or without any (`rm:`) by its declared ranges; "
        "by default every method, by its ranges",
    )
    choose_by: Literal["accuracy", "loss"] = Field(
        "accuracy",
        description="what is best on the held-out pairs: the highest accuracy, or the lowest Bradley–Terry loss, which "
        "only reward models have",
    )
    seed: Seed = Field(0, description="seed of the search and of the held-out prompts")
    holdout: Number = Field(0.2, gt=0, lt=1, description="share of train's prompts that trials are measured on")


class Method(_Strict):
    """One entry of `methods`: a name, and each parameter's values (several make a grid).

    Besides its own parameters, a method takes `start_from`; one that trains takes `learning_rate`, and `epochs` and
    `batch_size` in place of the suite's; one that trains a policy takes `reference_policy`, too. Of a sum of losses,
    the parameters are each term's `TERM.weight` and `TERM.PARAMETER`.
    """

    name: Text
    grid: dict[Text, list[Any]] = Field(default_factory=dict)

    @property
    def terms(self) -> tuple[str, ...]:
        """The methods whose losses a sum adds up, in alphabetical order; none where the entry is no sum."""
        return tuple(sorted(key.removesuffix(_WEIGHT) for key in self.grid if key.endswith(_WEIGHT)))


_WEIGHT = ".weight"
_SUM_FORMS = "`sum: {dpo: 0.8, sft: 1.0}`, or `NAME: {sum: {dpo: {weight: 0.8, beta: 0.1}, sft: 1.0}}`"


def _method_entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, parameters),) = value.items()
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, Mapping):
            wanted = _SUM_FORMS if name == "sum" else "{beta: 0.1}"
            raise ValueError(f"parameters of {name} must be a mapping, such as {wanted}")
        apart = ("learning_rate", *OWN_SETTINGS, *START_SETTINGS)
        if name == "sum":
            own = {key: item for key, item in parameters.items() if key in apart}
            terms = {key: item for key, item in parameters.items() if key not in own}
            name, parameters = "+".join(sorted(map(str, terms))), {**_terms(terms), **own}
        elif "sum" in parameters:
            if not isinstance(parameters["sum"], Mapping):
                raise ValueError(f"{name}: a sum is a mapping of two terms or more; expected {_SUM_FORMS}")
            if not str(name).isidentifier():
                raise ValueError(f"{name!r} cannot name a sum; use letters, digits and _, a letter first")
            own = {key: item for key, item in parameters.items() if key != "sum"}
            parameters = {**_terms(parameters["sum"]), **own}
        grid = {key: item if isinstance(item, list) else [item] for key, item in parameters.items()}
        if empty := [key for key, item in grid.items() if not item]:
            raise ValueError(f"{name}.{empty[0]} is an empty list; give at least one value")
        return {"name": name, "grid": grid}
    raise ValueError("expected a method's name, or `name: {parameter: value}`")


def _terms(terms: Mapping[object, object]) -> dict[str, object]:
    """The parameters of a sum: for each term, in alphabetical order, its weight and its own."""
    if len(terms) < 2:
        raise ValueError(f"a sum has two terms or more, got {len(terms)}; expected {_SUM_FORMS}")
    found: dict[str, object] = {}
    for term, value in sorted(terms.items(), key=lambda item: str(item[0])):
        if isinstance(value, Mapping) and "weight" not in value:
            raise ValueError(f"sum: {term} has no weight; expected {_SUM_FORMS}")
        if value is None or isinstance(value, str):
            raise ValueError(f"sum: {term}: got {value!r}, expected its weight, or {_SUM_FORMS}")
        own = value if isinstance(value, Mapping) else {"weight": value}
        found |= {f"{term}.{key}": item for key, item in own.items()}
    return found


MethodEntry = Annotated[Method, BeforeValidator(_method_entry)]


class Suite(_Strict):
    """Everything that a run needs to know."""

    name: Text = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="names its report's folder, reports/NAME"
    )
    base: Text = Field(description="hub id or folder, of a model or of an adapter; .gguf file; or embedded/tiny")
    precision: Literal["nf4", "bf16", "fp32", "auto"] = Field(
        "auto",
        description="storage of the frozen base; auto: nf4 on CUDA, bf16 where a CPU computes it fast, else fp32",
    )
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict,
        description="what the base's chat template reads beside the turns, such as {enable_thinking: false}: in "
        "training, generation, judging by reward models trained here, and score",
    )
    date: Day | None = Field(
        None,
        description="the day that the base's chat template gets if it writes today's; by default 2026-01-01, so that "
        "prompts and scores are the same on every day",
    )
    lora: Lora = Field(default=Lora())
    data: Data
    judge: Annotated[tuple[JudgeEntry, ...], BeforeValidator(_judges)] = Field(
        (), description="what scores generations: one or a list, the first is the main one"
    )
    seeds: list[Seed] = Field([0], min_length=1, description="every method is trained once per seed")
    train: Train = Field(default=Train())
    evaluate: Evaluate = Field(default=Evaluate())
    audit: Audit = Field(default=Audit())
    generate: Generate = Field(default=Generate())
    report: Report = Field(default=Report())
    methods: list[MethodEntry] = Field(
        min_length=1,
        description="names, or `name: {parameter: value or list of values}`; `start_from` names what is "
        "trained on, or what writes the answers to pick among; or sums of losses, `sum: {dpo: 0.8, sft: 1.0}` or "
        "`name: {sum: {dpo: {weight: 0.8, beta: 0.1}, sft: 1.0}}`",
    )
    tune: Tune | None = Field(
        None, description="hyper-parameter search; without it, every method runs with its given parameters"
    )
    plugins: list[Text] = Field(default_factory=list, description="further plugin files or folders")
    quick: Truth = Field(
        False,
        description="a try-out in a fraction of the time, as --quick: rows, prompts and trials are cut by a fixed "
        "rule, and the name ends in -quick; its numbers say that everything runs, and nothing of the methods",
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds

    @model_validator(mode="after")
    def _opponents_are_methods(self) -> Suite:
        names = {method.name for method in self.methods}
        for name in self.report.against or ():
            if name not in names:
                raise ValueError(
                    f"report.against: got {name!r}, expected methods of this suite: {', '.join(sorted(names))}"
                )
        return self
