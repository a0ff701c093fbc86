"""The page docs/methods.md: every built-in method by family, written from what the methods declare.

`python -c "from align_bench.plugins.methods_page import page; print(page(), end='')" > docs/methods.md` renews it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.api import OfflineAlgorithm
from align_bench.api.docstrings import elsewhere, held_equal, section
from align_bench.plugins.registry import load_registry

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Parameter
    from align_bench.plugins.registry import Plugin
    from align_bench.records import Json

ORDER = (
    "Pairs, against a reference",
    "Pairs, without a reference",
    "Single answers",
    "Chosen answers",
    "Reward models",
    "Online, against a reward",
    "Choice among answers",
    "Trainings of other libraries",
)
_DATA = {
    "pairs": "pairs",
    "chosen": "chosen answers",
    "unpaired": "single answers",
    "scores": "pairs, scalar head",
    "rollouts": "prompts",
    "candidates": "none: nothing is trained",
}


@dataclass(frozen=True)
class Curve:
    """One training of a method on the embedded rows.

    Attributes:
        settings: what the suite says of the method.
        log: by column (`loss`, `accuracy`, `margin`, `reward`, `kl`, as far as the training logs it), a number for each
            optimizer step; None where it was not finite.
    """

    settings: Mapping[str, Json]
    log: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Curves:
    """What docs/method_curves.json holds.

    Attributes:
        command: what made it.
        commit: of the code.
        machine: processor and threads, in words.
        libraries: distribution → version.
        suite: settings that all trainings share.
        curves: method → its training.
        without: method → why it has none.
    """

    command: str
    commit: str
    machine: str
    libraries: Mapping[str, str]
    suite: Mapping[str, Json]
    curves: Mapping[str, Curve]
    without: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Curves:
        """The content of the file."""
        found = json.loads(path.read_text(encoding="utf-8"))
        curves = {name: Curve(**one) for name, one in found["curves"].items()}
        return cls(**{**found, "curves": curves})

    def text(self) -> str:
        """The file's content: a column of a log in one line."""
        spread = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), spread) + "\n"


def data_in_words(algorithm: Algorithm) -> str:
    """What a method learns from."""
    more = []
    if isinstance(algorithm, OfflineAlgorithm):
        reading = algorithm.reading
        held = {
            "a margin": reading.margin,
            "mismatched answers": reading.mismatched,
            "first tokens": reading.prefix,
            "the policy's confidence": reading.confidence,
            "the whole batch": reading.batch,
        }
        more = [words for words, there in held.items() if there]
    return _DATA[algorithm.data] + (f", with {' and '.join(more)}" if more else "")


def by_family(plugins: Iterable[Plugin]) -> dict[str, list[Plugin]]:
    """Family → its methods, both in order."""
    found: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        found.setdefault(plugin.algorithm.family, []).append(plugin)
    return {family: found[family] for family in ORDER if family in found}


def page() -> str:
    """The page, as Markdown."""
    return "\n\n".join(_parts([each for each in load_registry().plugins.values() if each.origin == "built-in"])) + "\n"


def _parts(plugins: Sequence[Plugin]) -> Iterator[str]:
    families = by_family(plugins)
    yield "# Methods"
    yield (
        f"{len(plugins)} methods in {len(families)} families. This page is written by "
        "[align_bench/plugins/methods_page.py](../align_bench/plugins/methods_page.py) from what the methods' files "
        "declare. `align-bench show METHOD` prints the same of one method, with its source and how it differs from it; "
        "[algorithms/README.md](../algorithms/README.md) writes a new one. Sums of their losses are methods too: "
        "`sum: {dpo: 0.8, bco: 0.2, sft: 1.0}`."
    )
    yield (
        "Notation: `s` is the log-probability of an answer, summed over its tokens, in nats; `ρ = s_policy − s_ref`; "
        "`|y|` its tokens; `s̄ = s / |y|`; `w` and `l` stand for the chosen and the rejected answer. `π = ref` is where "
        "training starts."
    )
    for family, methods in families.items():
        yield f"## {family}"
        yield _table(
            ("method", "what it is", "paper", "data", "reference", "also in", "held equal to, by tests"),
            (_row(plugin.algorithm) for plugin in methods),
        )
        for plugin in methods:
            yield from _method(plugin)


def _row(algorithm: Algorithm) -> tuple[str, ...]:
    return (
        f"[`{algorithm.name}`](#{algorithm.name})",
        algorithm.summary.split(":")[0].rstrip("."),
        _paper(algorithm.paper),
        data_in_words(algorithm),
        algorithm.reference_in_words,
        elsewhere(algorithm.doc),
        held_equal(algorithm.doc),
    )


def _method(plugin: Plugin) -> Iterator[str]:
    algorithm = plugin.algorithm
    yield f"### {algorithm.name}"
    yield algorithm.summary
    if equation := section(algorithm.doc, "Equation"):
        yield f"```text\n{equation}\n```"
    facts: Mapping[str, str] = {
        "file": f"[algorithms/{plugin.path.name}](../algorithms/{plugin.path.name})",
        "its reward": algorithm.reward,
        "learning rate": "" if algorithm.learning_rate is None else f"{algorithm.learning_rate:g}{_range(algorithm)}",
    }
    yield "; ".join(f"{name}: {value}" for name, value in facts.items() if value) + "."
    if algorithm.parameters:
        yield _table(
            ("parameter", "type", "default", "bounds", "range", "meaning"),
            map(_parameter, algorithm.parameters.values()),
        )


def _range(algorithm: Algorithm) -> str:
    found = algorithm.learning_rate_range
    return "" if found is None else f", from {found.low:g} to {found.high:g}"


def _parameter(parameter: Parameter) -> tuple[str, ...]:
    default = f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default)
    bounds = parameter.bounds or "any"
    return (
        f"`{parameter.name}`",
        parameter.type.__name__,
        default,
        bounds,
        str(parameter.range or ""),
        parameter.description,
    )


def _paper(paper: str) -> str:
    number = paper.removeprefix("arXiv:")
    return f"[{paper}](https://arxiv.org/abs/{number})" if paper.startswith("arXiv:") else paper


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
