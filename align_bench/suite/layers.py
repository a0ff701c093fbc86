"""The files that a suite is made of: which of them says a key, and keys that may not be inherited."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from align_bench.errors import SuiteError
from align_bench.records import Json

SET = "--set"
# What suits one base and one data set and, in silence, spoils another: answers are cut, or a judge has other rows.
BOUND = ("judge", "judge.data", "train.max_length", "generate", "generate.max_new_tokens")
CHANGES = ("base", "data.train", "data.val")

Expand = Callable[[Json], Json]


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a suite, or all that `--set` says.

    Attributes:
        path: the file; None for `--set`.
        said: the keys that it says itself.
        merged: these over the keys of all layers below.
    """

    path: Path | None
    said: Mapping[str, Json]
    merged: Mapping[str, Json]

    @property
    def name(self) -> str:
        """The file's name, or `--set`."""
        return SET if self.path is None else self.path.name

    def place_of(self, key: str) -> str:
        """Where it says a key, for messages: file and line, or the option."""
        if self.path is None:
            return f"{SET} {key}"
        line = _line(self.path, key)
        return f"{self.path}, line {line}" if line else str(self.path)


def value_at(raw: Json, key: str) -> Json:
    """The value of a dotted key; None where there is none."""
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return raw


def origin(layers: Sequence[Layer], key: str) -> Layer | None:
    """The uppermost layer that says a key, or a part of it; None where none does."""
    *parents, last = key.split(".")

    def says(layer: Layer) -> bool:
        here: Json = dict(layer.said)
        for part in parents:
            here = here.get(part) if isinstance(here, Mapping) else None
        return isinstance(here, Mapping) and last in here

    return next((layer for layer in reversed(layers) if says(layer)), None)


def nearest_origin(layers: Sequence[Layer], location: Sequence[str | int]) -> Layer | None:
    """The uppermost layer that says a value, which may be in a list or a part of what it says; None where none does."""
    keys = (".".join(map(str, location[:length])) for length in range(len(location), 0, -1))
    return next((found for key in keys if (found := origin(layers, key)) is not None), None)


def refuse_bound(layers: Sequence[Layer], expand: Expand) -> None:
    """Refuse keys that are bound to a base or to data which a layer above has changed.

    Args:
        layers: all of the suite, the lowest first.
        expand: fills in environment variables, as far as they are set.

    Raises:
        SuiteError: naming every such key, where it comes from, and what changed.
    """
    whole = layers[-1].merged
    found: dict[str, tuple[Layer, str]] = {}
    for key in BOUND:
        below = origin(layers, key)
        if below is None or value_at(whole, key) is None or key.rpartition(".")[0] in found:
            continue
        for changed in CHANGES:
            then, now = (_identity(expand(value_at(raw, changed))) for raw in (below.merged, whole))
            if then is not None and now is not None and then != now:
                found[key] = (below, changed)
                break
    if found:
        raise _refusal(layers, found, expand)


def _refusal(layers: Sequence[Layer], found: Mapping[str, tuple[Layer, str]], expand: Expand) -> SuiteError:
    whole = layers[-1].merged
    below, changed = next(iter(found.values()))
    above = origin(layers, changed)
    assert above is not None, "it was changed somewhere"
    then, now = (_identity(expand(value_at(raw, changed))) for raw in (below.merged, whole))
    lines = [f"{above.place_of(changed)}: {changed} is {now}, but these settings were made for {then}:"]
    lines += [
        f"  {key}: got {_short(value_at(whole, key))}, from {layer.place_of(key)}" for key, (layer, _) in found.items()
    ]
    lines.append(f"  expected: your own {', '.join(found)}, since they depend on the base and on the data")
    first = "set them with --set" if above.path is None else f"write them into {above.path}"
    real = any(layer.path is not None and layer.path.name == "real.yaml" for layer in layers)
    other = "" if real else ", or write `extends: real`, which suits most real models and data"
    return SuiteError("\n".join(lines), fix=f"{first}{other}")


def _identity(value: Json) -> str | None:
    """What base, or which file, is meant; None where it is left open."""
    if isinstance(value, Mapping):
        value = value.get("path")
    return ", ".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else None


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _line(path: Path, key: str) -> int | None:
    """The line, counted from 1, on which a file says a dotted key; that of the key above where it says no more."""
    line = None
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for part in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((name, value) for name, value in pairs if name.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
