"""Read a suite file: `extends`, overrides, environment variables; every error says file, key, found and expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from align_bench.errors import SuiteError, nearest
from align_bench.records import START_SETTINGS, Json
from align_bench.suite.given import (
    MOST_DEPTH,
    MOST_EXTENDED,
    MOST_SET_BYTES,
    clipped,
    in_short,
    parsed,
    text_of,
)
from align_bench.suite.layers import SET, Layer, nearest_origin, refuse_bound, value_at
from align_bench.suite.limits import refuse_too_many_cells
from align_bench.suite.models import (
    JUDGE_KINDS,
    AnyJudge,
    Data,
    DataFile,
    LoadedJudge,
    Method,
    Suite,
    TrainedJudge,
    judge_kind,
)
from align_bench.suite.names import PlacedText
from align_bench.suite.quick import cut
from align_bench.suite.variables import as_far_as_set, expanded

_EXPECTED = (  # pydantic's words → ours
    (r"^Value error, ", ""),
    (r"^Input should be (greater|less) than", r"expected a number \1 than"),
    (r"^Input should be a valid dictionary.*", "expected a mapping"),
    (r"^Input should be a valid integer.*", "expected a whole number"),
    (r"^Input should be a valid", "expected a"),
    (r"^Input should be", "expected"),
    (r"^\w+ should have (at least|at most) (\d+ \w+).*", r"expected \1 \2"),
    (r"^String should match pattern", "expected text that matches"),
)
MOST_MISTAKES = 20  # that one message lists
# What looks like a setting of the training, and is a parameter of a method.
METHODS_OWN = ("learning_rate", "beta", "reward", "kl_coef", *START_SETTINGS)
RENAMED = {"may_be_reward": "allow_judge_as_reward"}  # key of an earlier version → what it is called now


def builtin_folder(name: Literal["suites", "algorithms"]) -> Path:
    """The packaged folder: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
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
    if _is_file(path):
        return path.resolve()
    packaged = packaged_suites()
    # `suites/assignment.yaml` must work in an empty folder too, where only the packaged file exists.
    if path.stem in packaged and path.parent in (Path(), Path("suites")) and path.suffix in ("", ".yaml"):
        return packaged[path.stem]
    raise SuiteError(
        f"no suite {name_or_path!r}: not a file, and not the name of a packaged suite. "
        + nearest(path.stem[:100], packaged, what="packaged suite")
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def load_suite(name_or_path: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite, follow `extends`, apply `key=value` overrides, fill in ${VARIABLES}, check everything.

    Args:
        name_or_path: a file, or the name of a packaged suite.
        overrides: `key=value`, keys dotted (`train.epochs=2`), values in YAML.

    Raises:
        SuiteError: with the file, the key, what was found and what was expected.
    """
    layers = read_layers(name_or_path, overrides)
    path = next(layer.path for layer in reversed(layers) if layer.path is not None)
    raw = {key: expanded(value, path) for key, value in layers[-1].merged.items()}
    refuse_bound(layers, as_far_as_set)
    try:
        suite = Suite.model_validate(raw | _with_rows(raw))
    except ValidationError as error:
        raise SuiteError("\n".join(_described(error, raw, layers, path)), fix=_given(path, error)) from None
    found = _located(_held_out(suite), [layer.path.parent for layer in reversed(layers) if layer.path is not None])
    found = cut(found) if found.quick else found
    refuse_too_many_cells(found, path)
    return found


def read_layers(name_or_path: str, overrides: Sequence[str] = ()) -> list[Layer]:
    """The files of a suite, the one that extends no other first, and its overrides last; nothing is checked.

    Args:
        name_or_path, overrides: as `load_suite` takes them.

    Raises:
        SuiteError: for a file that cannot be read, or a malformed override.
    """
    layers = _extended(find_suite(name_or_path), seen=())
    if overrides:
        raw, said = dict(layers[-1].merged), dict[str, Json]()
        for override in overrides:
            _override(raw, override)
            _override(said, override)
        layers.append(Layer(None, said, raw))
    return layers


def _extended(path: Path, seen: tuple[Path, ...]) -> list[Layer]:
    """The suite's file above those that it extends."""
    if path in seen:
        raise SuiteError(f"{path} extends itself through {' → '.join(str(step) for step in seen)}")
    if len(seen) >= MOST_EXTENDED:
        raise SuiteError(f"{path}: extends: more than {MOST_EXTENDED} files extend each other, from {seen[0]} on")
    raw = _parsed(path)
    parent = raw.pop("extends", None)
    if parent is None:
        return [Layer(path, raw, raw)]
    if not isinstance(parent, str):
        raise SuiteError(f"{path}: extends: got {in_short(parent)}, expected a packaged suite's name or a path")
    beside = path.parent / parent
    try:
        target = beside.resolve() if _is_file(beside) else find_suite(parent)
    except SuiteError as error:
        raise SuiteError(f"{path}: extends: {error.message}") from None
    below = _extended(target, (*seen, path))
    return [*below, Layer(path, raw, _merged(_inherited(below[-1].merged, raw), raw))]


def _inherited(below: Mapping[str, Json], above: Mapping[str, Json]) -> Mapping[str, Json]:
    """What a suite has of the one that it extends.

    With another base, other rows or other methods that is neither its test pairs, nor its search, nor the comparison
    with the course's figures: they are about these; nor, with other methods, whom they are tested against; nor, with
    another base, what its chat template reads.
    """
    data = above.get("data")
    rows = isinstance(data, Mapping) and ("train" in data or "val" in data)
    if not (rows or "base" in above or "methods" in above):
        return below
    of_base = ("chat_template_kwargs",) if "base" in above else ()
    kept = {key: value for key, value in below.items() if key not in ("tune", *of_base)}
    of_methods = [("report", "against")] if "methods" in above else []
    for key, part in (("data", "test"), ("report", "course_figures"), *of_methods):
        if isinstance(old := kept.get(key), Mapping):
            kept[key] = {name: value for name, value in old.items() if name != part}
    return kept


def _parsed(path: Path) -> dict[str, Json]:
    raw = parsed(text_of(path), str(path))
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise SuiteError(f"{path}: got {found}, expected a mapping with base, data and methods")
    return raw


def _merged(below: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    """`above` over `below`: mappings merge key by key, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not (key == "judge" and _replaces(value, old)):
            taken = [other for one, other in _ROWS_OF_JUDGES if key == "judge" and one in value]
            value = _merged({name: item for name, item in old.items() if name not in taken}, value)
        merged[key] = value
    return merged


_ROWS_OF_JUDGES = (("data", "holdout"), ("holdout", "data"))  # either says where a judge's rows come from


def _replaces(judge: Mapping[str, Json], old: Mapping[str, Json]) -> bool:
    """Whether a judge replaces the old one, rather than changing some of its keys."""
    return judge_kind(judge) != judge_kind(old) and bool({"model", "method", "data"} & set(judge))


def _override(raw: dict[str, Json], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SuiteError(f"--set {in_short(override)}: expected key=value", fix="for example --set train.epochs=2")
    *parents, last = key.split(".")
    if len(parents) >= MOST_DEPTH or not all((last, *parents)):
        raise SuiteError(f"--set {in_short(override)}: expected a key of up to {MOST_DEPTH} names with dots between")
    here = raw
    for depth, parent in enumerate(parents):
        child = here.get(parent)
        if isinstance(child, str | list) and parent in ("train", "val", "test", "data"):
            child = {"path": child}
        elif child is None:
            child = {}
        elif not isinstance(child, dict):
            raise SuiteError(f"--set {in_short(override)}: {'.'.join(parents[: depth + 1])} is not a mapping")
        here[parent] = here = dict(child)  # a copy: a YAML anchor may share it with another key
    here[last] = parsed(text, f"--set {in_short(override)}: the value", MOST_SET_BYTES)
    for one, other in _ROWS_OF_JUDGES:
        if parents[:1] == ["judge"] and one in (last, *parents[1:2]):
            raw_judge = raw["judge"]
            assert isinstance(raw_judge, dict), "it was a mapping, or was made one"
            raw_judge.pop(other, None)


def _with_rows(raw: Mapping[str, Json]) -> dict[str, Json]:
    """The suite's judges, those of held-out rows with train's entry, of which `_held_out` takes their part."""
    if "judge" not in raw:
        return {}
    judge, train = raw["judge"], value_at(raw, "data.train")

    def filled(entry: Json) -> Json:
        if not isinstance(entry, Mapping) or entry.get("holdout") is None:
            return entry
        if entry.get("data") is not None:
            raise SuiteError("judge: got data and holdout, expected one of them: its rows, or a share of data.train's")
        return {**entry, "data": train or ""}  # without train, that is what is missing

    return {"judge": [filled(entry) for entry in judge] if isinstance(judge, list) else filled(judge)}


def _held_out(suite: Suite) -> Suite:
    """With the prompts that judges hold out taken off `data.train`; a smaller share is a part of a larger one."""
    held = [judge.holdout for judge in suite.judge if isinstance(judge, TrainedJudge) and judge.holdout]
    if not held:
        return suite
    whole = suite.data.train
    if whole.embedded:  # whose split would else be that of the entry's role
        whole = whole.model_copy(update={"split": whole.split or "train"})
    first, last = whole.prompts or (0.0, 1.0)

    def part(start: float, end: float) -> DataFile:
        width = last - first
        return whole.model_copy(update={"prompts": (first + start * width, first + end * width)})

    def cut(judge: AnyJudge) -> AnyJudge:
        taken = isinstance(judge, TrainedJudge) and judge.holdout
        return judge.model_copy(update={"data": part(0.0, taken)}) if taken else judge

    data = suite.data.model_copy(update={"train": part(max(held), 1.0)})
    return suite.model_copy(update={"data": data, "judge": tuple(map(cut, suite.judge))})


def _matches(pattern: str, folder: Path | None) -> bool:
    return bool(glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _located(suite: Suite, folders: Sequence[Path]) -> Suite:
    """Local paths that exist beside the suite file or one that it extends, but not from here, become absolute."""

    def locate(path: str) -> str:
        if _exists(Path(path)):
            return path
        return next((str(folder / path) for folder in folders if _exists(folder / path)), path)

    def locate_files(name: str) -> str:
        here = [str(each / name) for each in folders if _matches(name, each)]
        return here[0] if here and not _exists(Path(name)) and not _matches(name, None) else locate(name)

    def locate_file(file: DataFile) -> DataFile:
        found = [locate_files(name) for name in file.paths]
        return file.model_copy(update={"path": found[0] if isinstance(file.path, str) else found})

    def locate_judge(judge: AnyJudge) -> AnyJudge:
        if isinstance(judge, TrainedJudge):
            return judge.model_copy(update={"data": locate_file(judge.data)})
        return judge.model_copy(update={"model": locate(judge.model)}) if isinstance(judge, LoadedJudge) else judge

    data = suite.data
    return suite.model_copy(
        update={
            "base": locate(suite.base),
            "data": Data(
                train=locate_file(data.train),
                val=locate_file(data.val),
                test=data.test and locate_file(data.test),
                max_dropped=data.max_dropped,
            ),
            "judge": tuple(locate_judge(judge) for judge in suite.judge),
            "plugins": [locate(plugin) for plugin in suite.plugins],
            "methods": [_started(method, locate) for method in suite.methods],
        }
    )


def _started(method: Method, locate: Callable[[str], str]) -> Method:
    """A method with the folder that it starts from located; what has no `/` may as well be a cell."""
    if "start_from" not in method.grid:
        return method
    values = [
        PlacedText(value, locate(value)) if isinstance(value, str) and "/" in value else value
        for value in method.grid["start_from"]
    ]
    return method.model_copy(update={"grid": {**method.grid, "start_from": values}})


def _given(path: Path, error: ValidationError) -> str | None:
    """How to say what a packaged suite leaves open."""
    open_keys = {item["loc"][0] for item in error.errors() if item["type"] == "missing"}
    if not open_keys & {"base", "data"} or path not in packaged_suites().values():
        return None
    return (
        f"write a suite of your own that says `extends: {path.stem}`, base and data; "
        "or add --set base=… --set data.train=… --set data.val=…"
    )


def _described(error: ValidationError, raw: Mapping[str, Json], layers: Sequence[Layer], path: Path) -> Iterator[str]:
    """A line per mistake: where, what was found and what was expected; under the file that says so, or `--set`."""
    items = error.errors()
    lines: dict[str, list[str]] = {}
    for item in items[:MOST_MISTAKES]:
        layer = None if item["type"] == "missing" else nearest_origin(layers, _location(item["loc"], raw))
        said = path if layer is None else layer.path
        lines.setdefault(f"{SET}, over {path}:" if said is None else f"{said}:", []).append(_line(item, raw))
    for header, mistakes in lines.items():
        yield header
        yield from mistakes
    if len(items) > MOST_MISTAKES:
        yield f"  and {len(items) - MOST_MISTAKES:,} more"


def _line(item: ErrorDetails, raw: Mapping[str, Json]) -> str:
    location = [clipped(str(part)) for part in _location(item["loc"], raw)]
    where, last = ".".join(location), location[-1] if location else ""
    if item["type"] == "missing":
        return f"  {where}: missing, and it has no default"
    if item["type"] != "extra_forbidden":
        return f"  {where}: got {in_short(item['input'])}; {_expected(item['msg'])}"
    known = _keys_at(item["loc"][:-1])
    if (new := RENAMED.get(last)) in known:
        return f"  {where}: renamed; write {new}"
    if last in METHODS_OWN:
        method = _first_method(raw)
        return (
            f"  {where}: unknown key. It is each method's own: write "
            f"methods: [{{{method}: {{{last}: {in_short(item['input'])}}}}}]"
        )
    return f"  {where}: unknown key. {nearest(last, known, what='key')}"


def _first_method(raw: Mapping[str, Json]) -> str:
    """A method of the suite for an example."""
    methods = raw.get("methods")
    first = methods[0] if isinstance(methods, list) and methods else None
    name = next(iter(first), None) if isinstance(first, Mapping) else first
    return clipped(name) if isinstance(name, str) else "dpo"


def _expected(message: str) -> str:
    """What pydantic's message expects, as our own messages say it."""
    for pattern, ours in _EXPECTED:
        message = re.sub(pattern, ours, message)
    return message


def _location(location: Sequence[str | int], raw: Mapping[str, Json]) -> Sequence[str | int]:
    """An error's place as the user wrote it: without a judge's kind, and without its number where there is no list."""
    if location[:1] != ("judge",):
        return location
    number = location[1:2] if isinstance(raw.get("judge"), list) else ()
    return ["judge", *number, *location[3:]]


def _keys_at(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Suite
    if location[:1] == ("judge",):
        model, location = JUDGE_KINDS[str(location[2])], location[3:]
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
    paths = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    definitions["DataFile"] = {"anyOf": [{"type": "string"}, paths, definitions["DataFile"]]}
    one = [{"type": "string"}, *({"$ref": f"#/$defs/{kind.__name__}"} for kind in JUDGE_KINDS.values())]
    schema["properties"]["judge"] = {
        "anyOf": [*one, {"type": "array", "items": {"anyOf": one}}, {"type": "null"}],
        "description": schema["properties"]["judge"]["description"],
    }
    schema["properties"]["extends"] = {"type": "string", "description": "a packaged suite's name or a path"}
    trained = definitions["TrainedJudge"]
    definitions["TrainedJudge"] = {"anyOf": [trained, {**trained, "required": ["holdout"]}]}
    # With `extends`, the parent may bring what is required.
    schema.pop("required", None)
    return schema
