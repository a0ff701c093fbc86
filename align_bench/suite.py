"""A suite file: YAML in, one frozen, fully checked `Suite` out."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from align_bench.errors import SuiteError, nearest

DEFAULT_SUITE = "assignment"
BASE_CELL = "base"
JUDGE_CELL = "judge"
GOLD = "gold"  # the programmatic judge, where the data knows its right answers


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Strict):
    """Low-rank adapters, as in peft."""

    r: int = Field(16, gt=0, description="rank")
    alpha: float = Field(32, gt=0, description="scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapters' input")
    target_modules: str | list[str] = Field("all-linear", description="peft's target_modules")


class DataFile(_Strict):
    """Where rows come from. A bare string is its `path`."""

    path: str = Field(description="file (.parquet, .jsonl, .json, .csv), hub id, or embedded/planted")
    split: str | None = Field(None, description="split of a hub data set, or train | judge | val of embedded/planted")
    columns: dict[str, str] = Field(default_factory=dict, description="standard column name → the file's own")
    rows: int | None = Field(None, gt=0, description="use the first n usable rows")
    skip: int = Field(0, ge=0, description="pass over the first n usable rows; two entries can share a file and no row")
    revision: str | None = Field(None, description="commit of a hub data set")
    bias: float | str = Field(
        "default", description="length bias of embedded/planted: none | default | strong | number"
    )
    too_long: Literal["truncate", "drop"] = Field("truncate", description="what to do beyond train.max_length")


def _path_to_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


DataField = Annotated[DataFile, BeforeValidator(_path_to_mapping)]


class Data(_Strict):
    """The rows that all methods train on, and the rows that all are measured on."""

    train: DataField
    val: DataField


class Ensemble(_Strict):
    """Several judges that differ by their seed, combined to one score."""

    size: int = Field(3, gt=1, description="members; their seeds count up from the judge's")
    combine: Literal["mean", "worst", "variance_penalised"] = Field(
        "mean", description="mean of the scores, the least of them, or mean − penalty × variance"
    )
    penalty: float = Field(1.0, ge=0, description="of variance_penalised, per unit of reward")


class TrainedJudge(_Strict):
    """A reward model that scores generations, trained on rows of its own."""

    name: str | None = Field(None, min_length=1, description="key of its scores; by default its method")
    method: str = Field("rm", description="a reward method of the registry")
    data: DataField = Field(description="its training rows; keep them apart from data.train")
    parameters: dict[str, Any] = Field(default_factory=dict, description="its hyper-parameters and learning_rate")
    seed: int = Field(0, description="its seed")
    may_be_reward: bool = Field(False, description="allow an online method whose reward is the judge itself")
    ensemble: Ensemble | None = Field(None, description="train several, and judge by all of them")

    @property
    def title(self) -> str:
        """How reports call it without a name: by its method, and by how its members are combined."""
        several = self.ensemble and f"{self.ensemble.size} × {self.method}, {self.ensemble.combine}"
        return several or self.method


class LoadedJudge(_Strict):
    """A sequence-classification model that is loaded as it is. A bare string is its `model`."""

    name: str | None = Field(None, min_length=1, description="key of its scores; by default the model's own name")
    model: str = Field(description="hub id or folder of a sequence-classification model, or an align-anything one")
    revision: str | None = Field(None, description="commit, branch or tag of a hub model")
    template: Literal["chat", "pair"] | None = Field(
        None,
        description="chat: its tokenizer's chat template; pair: prompt and answer as two texts; by default chat where "
        "there is a template",
    )

    @property
    def title(self) -> str:
        """How reports call it without a name: its hub id, or its folder's own name."""
        return Path(self.model).name if Path(self.model).is_dir() else self.model


class GoldJudge(_Strict):
    """The programmatic judge, where the data knows its right answers. Written `gold`."""

    method: Literal["gold"] = Field(description="gold")
    may_be_reward: bool = Field(False, description="allow an online method whose reward is gold, too")

    @property
    def title(self) -> str:
        """How reports call it."""
        return GOLD


AnyJudge = TrainedJudge | LoadedJudge | GoldJudge
_JUDGE_KINDS: Mapping[str, type[AnyJudge]] = {"trained": TrainedJudge, "loaded": LoadedJudge, "gold": GoldJudge}


def _judge_kind(value: Any) -> str:
    if not isinstance(value, Mapping):
        return next(kind for kind, model in _JUDGE_KINDS.items() if isinstance(value, model))
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
    Discriminator(_judge_kind),
]


def judge_cell(place: int) -> str:
    """What the judge at a place (0-based) of the list is called among the cells: `judge`, `judge2`, …"""
    return JUDGE_CELL if place == 0 else f"{JUDGE_CELL}{place + 1}"


def judge_names(judges: Sequence[AnyJudge]) -> list[str]:
    """The key of each judge's scores: its name, or its title, numbered where it stands twice.

    Raises:
        SuiteError: when two judges are given the same name, one is given the gold judge's, or `gold` stands twice.
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

    epochs: int = Field(1, gt=0, description="passes over the training rows")
    batch_size: int = Field(32, gt=0, description="examples per optimizer step: pairs, or answers for unpaired methods")
    max_length: int = Field(1024, gt=1, description="tokens of prompt + answer")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps with rising learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning rate after warm-up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm is clipped to this")
    micro_batch_tokens: int = Field(
        8192,
        gt=0,
        description="tokens, padding included, that one pass may hold; on a CPU 1024 at most, 768 in training, where "
        "more gains nothing; halved by itself when memory runs out",
    )
    checkpoint_minutes: float = Field(5.0, gt=0, description="a killed training goes on from its last checkpoint")
    trackers: list[Literal["tensorboard"]] = Field(
        default_factory=list,
        description="also log every step here, under runs/NAME/trackers; needs the extra `trackers`",
    )

    @field_validator("trackers")
    @classmethod
    def _installed(cls, trackers: list[str]) -> list[str]:
        for tracker in trackers:
            if find_spec(tracker) is None:
                raise ValueError(f"{tracker} is not installed; pip install 'align-bench[trackers]'")
        return trackers


class Evaluate(_Strict):
    """What is measured beyond the validation pairs as they are."""

    epsilons: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=list,
        description="accuracy of reward models under attack: steps on the input embeddings, × their norm",
    )


class Audit(_Strict):
    """How far judges and reward models can be trusted: what moves their scores beside the worth of an answer."""

    pairs: int = Field(200, ge=0, description="the first n validation pairs, scored again with other texts; 0 for none")
    seed: int = Field(0, description="seed of the shuffled prompts")


class Generate(_Strict):
    """How the base and every policy answer validation prompts."""

    prompts: int = Field(500, gt=0, description="the first n validation prompts")
    max_new_tokens: int = Field(256, gt=0, description="longest answer; beyond it an answer counts as unfinished")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    samples: int = Field(1, gt=0, description="answers per prompt; averaged before tests")
    batch_size: int = Field(64, gt=0, description="prompts answered at once")

    @model_validator(mode="after")
    def _several_samples_need_sampling(self) -> Generate:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples > 1 needs temperature > 0: greedy answers are all the same")
        return self


class Report(_Strict):
    """How results are judged."""

    equivalence_dz: float = Field(
        0.1,
        gt=0,
        description="a difference below this × its standard deviation over prompts counts as none (Cohen's dz)",
    )


class Tune(_Strict):
    """A search over every method's declared ranges, with as many trials for each.

    A trial trains on a part of train and is measured on the rest, which it holds out by prompt: reward models by the
    accuracy of their scores, policies by that of their mean log-probability a token. The best parameters train the
    method's cells on all of train. Trials have the first seed; the judge is not tuned.
    """

    trials: int = Field(4, ge=2, description="settings tried per method; the first one is its own parameters")
    search: Literal["random", "grid"] = Field("random", description="how the others are taken from the ranges")
    seed: int = Field(0, description="seed of the search and of the held-out prompts")
    holdout: float = Field(0.2, gt=0, lt=1, description="share of train's prompts that trials are measured on")


class Method(_Strict):
    """One entry of `methods`: a name, and each parameter's values (several make a grid).

    Beside its own parameters a method takes `learning_rate`, and `epochs` and `batch_size` in place of the suite's.
    """

    name: str
    grid: dict[str, list[Any]] = Field(default_factory=dict)


def _method_entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, parameters),) = value.items()
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, Mapping):
            raise ValueError(f"parameters of {name} must be a mapping, such as {{beta: 0.1}}")
        grid = {key: item if isinstance(item, list) else [item] for key, item in parameters.items()}
        if empty := [key for key, item in grid.items() if not item]:
            raise ValueError(f"{name}.{empty[0]} is an empty list; give at least one value")
        return {"name": name, "grid": grid}
    raise ValueError("expected a method's name, or `name: {parameter: value}`")


MethodEntry = Annotated[Method, BeforeValidator(_method_entry)]


class Suite(_Strict):
    """Everything that a run needs to know."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the folders runs/NAME and reports/NAME"
    )
    base: str = Field(description="hub id, folder, .gguf file, or embedded/tiny")
    precision: Literal["nf4", "bf16", "fp32", "auto"] = Field(
        "auto",
        description="storage of the frozen base; auto: nf4 on CUDA, bf16 where a CPU computes it fast, else fp32",
    )
    lora: Lora = Field(default=Lora())
    data: Data
    judge: Annotated[tuple[JudgeEntry, ...], BeforeValidator(_judges)] = Field(
        (), description="what scores generations: one or a list, the first is the main one"
    )
    seeds: list[int] = Field([0], min_length=1, description="every method is trained once per seed")
    train: Train = Field(default=Train())
    evaluate: Evaluate = Field(default=Evaluate())
    audit: Audit = Field(default=Audit())
    generate: Generate = Field(default=Generate())
    report: Report = Field(default=Report())
    methods: list[MethodEntry] = Field(
        min_length=1, description="names, or `name: {parameter: value or list of values}`"
    )
    tune: Tune | None = Field(None, description="without it, every method runs with the parameters it is given")
    plugins: list[str] = Field(default_factory=list, description="further plugin files or folders")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 5e-4 is a number (YAML 1.1 reads it as text) and a key may stand only once."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def builtin_folder(name: Literal["suites", "algorithms"]) -> Path:
    """The packaged folder: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parent
    installed = package / "_builtin" / name
    return installed if installed.is_dir() else package.parent / name


def packaged_suites() -> dict[str, Path]:
    """Name → file of each packaged suite."""
    return {path.stem: path for path in sorted(builtin_folder("suites").glob("*.yaml"))}


def find_suite(name_or_path: str) -> Path:
    """The file of a suite given by path or by a packaged suite's name.

    Raises:
        SuiteError: when neither exists.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path.resolve()
    packaged = packaged_suites()
    # `suites/assignment.yaml` must work in an empty folder too, where only the packaged file exists.
    if path.stem in packaged and path.parent in (Path(), Path("suites")) and path.suffix in ("", ".yaml"):
        return packaged[path.stem]
    raise SuiteError(
        f"no suite {name_or_path!r}: not a file, and {nearest(path.stem, packaged, what='packaged suite')}"
    )


def load_suite(name_or_path: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite, follow `extends`, apply `key=value` overrides, fill in ${VARIABLES}, check everything.

    Args:
        name_or_path: a file, or the name of a packaged suite.
        overrides: `key=value`, keys dotted (`train.epochs=2`), values in YAML.

    Raises:
        SuiteError: with the file, the key, what was found and what was expected.
    """
    path = find_suite(name_or_path)
    raw, folders = _extended(path, seen=())
    for override in overrides:
        _override(raw, override)
    raw = _expanded(raw, path)
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        raise SuiteError(f"{path}:\n" + "\n".join(_in_words(item, raw) for item in error.errors())) from None
    return _located(suite, folders)


def _extended(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The suite's keys over its parents', and the folders of all these files, its own first."""
    if path in seen:
        raise SuiteError(f"{path} extends itself through {' → '.join(str(step) for step in seen)}")
    raw = _parsed(path)
    parent = raw.pop("extends", None)
    if parent is None:
        return raw, (path.parent,)
    beside = path.parent / str(parent)
    try:
        target = beside.resolve() if beside.is_file() else find_suite(str(parent))
    except SuiteError as error:
        raise SuiteError(f"{path}: extends: {error.message}") from None
    below, folders = _extended(target, (*seen, path))
    return _merged(below, raw), (path.parent, *folders)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise SuiteError(f"{path} is not valid YAML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise SuiteError(f"{path}: got {type(raw).__name__}, expected a mapping with base, data and methods")
    return raw


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings merge key by key, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not (key == "judge" and _another(value, old)):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _another(judge: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a judge takes the old one's place, rather than to change some of its keys."""
    return _judge_kind(judge) != _judge_kind(old) and bool({"model", "method", "data"} & set(judge))


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SuiteError(f"--set {override!r}: expected key=value", fix="for example --set train.epochs=2")
    *parents, last = key.split(".")
    here: dict[str, Any] = raw
    for depth, parent in enumerate(parents):
        child = here.get(parent)
        if isinstance(child, str) and parent in ("train", "val", "data"):
            child = {"path": child}
        elif child is None:
            child = {}
        elif not isinstance(child, dict):
            raise SuiteError(f"--set {override!r}: {'.'.join(parents[: depth + 1])} is not a mapping")
        here[parent] = here = dict(child)  # a copy: a YAML anchor may share it with another key
    try:
        here[last] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SuiteError(f"--set {override!r}: the value is not valid YAML: {error}") from None


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expanded(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in os.environ:
            return os.environ[name]
        if default is None:
            raise SuiteError(
                f"{path}: the environment variable {name} is not set", fix=f"export {name}=…, or use --set"
            )
        return str(default)

    return _VARIABLE.sub(fill, value)


def _located(suite: Suite, folders: Sequence[Path]) -> Suite:
    """Local paths that exist beside the suite file or one that it extends, but not from here, become absolute."""

    def locate(path: str) -> str:
        if Path(path).exists():
            return path
        return next((str(folder / path) for folder in folders if (folder / path).exists()), path)

    def locate_file(file: DataFile) -> DataFile:
        return file.model_copy(update={"path": locate(file.path)})

    def locate_judge(judge: AnyJudge) -> AnyJudge:
        if isinstance(judge, TrainedJudge):
            return judge.model_copy(update={"data": locate_file(judge.data)})
        return judge.model_copy(update={"model": locate(judge.model)}) if isinstance(judge, LoadedJudge) else judge

    return suite.model_copy(
        update={
            "base": locate(suite.base),
            "data": Data(train=locate_file(suite.data.train), val=locate_file(suite.data.val)),
            "judge": tuple(locate_judge(judge) for judge in suite.judge),
            "plugins": [locate(plugin) for plugin in suite.plugins],
        }
    )


def _in_words(error: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    location = [str(part) for part in _as_written(error["loc"], raw)]
    where = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        return f"  {where}: unknown key. {nearest(location[-1], known, what='key')}"
    if error["type"] == "missing":
        return f"  {where}: missing, and it has no default"
    return f"  {where}: got {error['input']!r}; {error['msg'].removeprefix('Value error, ')}"


def _as_written(location: Sequence[str | int], raw: Mapping[str, Any]) -> Sequence[str | int]:
    """A place without what only the model has: the kind of a judge, and its number where there is no list."""
    if location[:1] != ("judge",):
        return location
    number = location[1:2] if isinstance(raw.get("judge"), list) else ()
    return ["judge", *number, *location[3:]]


def _keys_at(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Suite
    if location[:1] == ("judge",):
        model, location = _JUDGE_KINDS[str(location[2])], location[3:]
    for part in location:
        if not isinstance(part, str) or part not in model.model_fields:
            continue
        model = _model_in(model.model_fields[part].annotation) or model
    keys = list(model.model_fields)
    return ["extends", *keys] if model is Suite else keys


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None


def json_schema() -> dict[str, Any]:
    """The JSON schema of a suite file as users write it: shorthand forms and `extends` included."""
    schema = Suite.model_json_schema()
    definitions = schema["$defs"]
    definitions["Method"] = {
        "description": "a method's name, or its name with parameters; a list of values makes a grid",
        "anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}],
    }
    definitions["DataFile"] = {"anyOf": [{"type": "string"}, definitions["DataFile"]]}
    one = [{"type": "string"}, *({"$ref": f"#/$defs/{kind.__name__}"} for kind in _JUDGE_KINDS.values())]
    schema["properties"]["judge"] = {
        "anyOf": [*one, {"type": "array", "items": {"anyOf": one}}, {"type": "null"}],
        "description": schema["properties"]["judge"]["description"],
    }
    schema["properties"]["extends"] = {"type": "string", "description": "a packaged suite's name or a path"}
    # With `extends`, the parent may bring what is required.
    schema.pop("required", None)
    return schema
