"""The pages of the built-in methods: docs/methods.md lists them by family, docs/methods has a page for each.

They are written from what the methods declare, and from the curves that `benchmarks/method_curves.py` leaves in
docs/method_curves.json. `python docs/fill_pages.py` writes them anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.api import OfflineAlgorithm
from align_bench.api.docstrings import elsewhere, held_equal, section, sections_of
from align_bench.plugins.registry import load_registry
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Parameter
    from align_bench.plugins.registry import Plugin
    from align_bench.records import Scalar

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
WIDTH = 90  # characters of a line of a snippet
REWARD = "reward"  # the parameter that names what scores the answers of a method
# What is drawn beside the loss, the first of these that a log has: column → its name, and what it is.
BESIDE = {
    "accuracy": (
        "accuracy",
        "the share of the step's pairs whose chosen answer has the higher reward (dashed: chance)",
    ),
    "reward": ("mean reward", "the mean reward of the step's answers"),
    "margin": ("margin", "the mean reward of the step's chosen answers less that of its rejected ones"),
}
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

    settings: Mapping[str, Scalar]
    log: Mapping[str, Sequence[float | None]]

    @property
    def beside(self) -> str | None:
        """The column that is drawn beside the loss."""
        return next((column for column in BESIDE if column in self.log), None)


@dataclass(frozen=True)
class Curves:
    """What docs/method_curves.json holds.

    Attributes:
        command: what made it.
        commit: of the code.
        machine: processor and threads, in words.
        libraries: distribution → version.
        suite: `base`, `train`, `pairs` of it, `seed`, and the settings of training that all share.
        curves: method → its training.
        without: method → why it has none.
    """

    command: str
    commit: str
    machine: str
    libraries: Mapping[str, str]
    suite: Mapping[str, Scalar]
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
    """The page of all methods, as Markdown."""
    return _text(_overview(_built_in()))


def pages(curves: Curves) -> dict[str, str]:
    """A page for each method: its name → Markdown.

    Args:
        curves: what docs/method_curves.json holds.
    """
    return {plugin.algorithm.name: _text(_page(plugin, curves)) for plugin in _built_in()}


def navigation() -> list[str]:
    """The lines of mkdocs.yml that lead to the pages, by family."""
    lines = []
    for family, methods in by_family(_built_in()).items():
        lines.append(f"      - {json.dumps(family)}:")
        lines += [f"          - {plugin.algorithm.name}: methods/{plugin.algorithm.name}.md" for plugin in methods]
    return lines


def _built_in() -> list[Plugin]:
    return [each for each in load_registry().plugins.values() if each.origin == "built-in"]


def _text(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _overview(plugins: Sequence[Plugin]) -> Iterator[str]:
    families = by_family(plugins)
    yield "# Methods"
    yield (
        f"{len(plugins)} methods in {len(families)} families, each with a page of its own: equation, parameters, what "
        "differs from its source, and the curves of a small training. The pages are written by "
        "[align_bench/plugins/methods_page.py](../align_bench/plugins/methods_page.py) from what the methods' files "
        "declare. `align-bench show METHOD` prints the same in a terminal; "
        "[algorithms/README.md](../algorithms/README.md) writes a new one. Sums of their losses are methods too: "
        "`sum: {dpo: 0.8, bco: 0.2, sft: 1.0}`."
    )
    yield "## Notation"
    yield (
        "`s` is the log-probability of an answer, summed over its tokens, in nats; `ρ = s_policy − s_ref`; "
        "`|y|` its tokens; `s̄ = s / |y|`; `w` and `l` stand for the chosen and the rejected answer. `π = ref` is where "
        "training starts."
    )
    for family, methods in families.items():
        yield f"## {family}"
        yield _table(
            ("method", "what it is", "paper", "data", "reference", "also in", "held equal to, by tests"),
            (_row(plugin.algorithm) for plugin in methods),
        )


def _row(algorithm: Algorithm) -> tuple[str, ...]:
    return (
        f"[`{algorithm.name}`](methods/{algorithm.name}.md)",
        algorithm.summary.split(":")[0].rstrip("."),
        _paper(algorithm.paper),
        data_in_words(algorithm),
        algorithm.reference_in_words,
        elsewhere(algorithm.doc),
        held_equal(algorithm.doc),
    )


def _page(plugin: Plugin, curves: Curves) -> Iterator[str]:
    algorithm = plugin.algorithm
    yield f"# {algorithm.name}"
    yield algorithm.summary
    yield _facts(plugin)
    yield "## Equation"
    yield f"```text\n{section(algorithm.doc, 'Equation')}\n```"
    yield "Letters are explained under [notation](../methods.md#notation)."
    yield "## Parameters"
    if algorithm.parameters:
        yield _table(
            ("parameter", "type", "default", "bounds", "range", "meaning"),
            map(_parameter, algorithm.parameters.values()),
        )
    else:
        yield "It has none of its own."
    yield "## In a suite"
    yield f"```yaml\n{_snippet(algorithm)}\n```"
    if algorithm.parameters:
        yield f"These are the defaults, so that `- {algorithm.name}` alone says the same."
    for heading in sections_of(algorithm.doc):
        if heading not in ("Equation", "Args", "Returns"):
            yield f"## {heading}"
            yield section(algorithm.doc, heading)
    yield "## On the embedded set"
    yield from _curve(algorithm.name, curves)


def _facts(plugin: Plugin) -> str:
    algorithm = plugin.algorithm
    rate = algorithm.learning_rate
    facts: Mapping[str, str] = {
        "Family": f"[{algorithm.family}](../methods.md#{_anchor(algorithm.family)})",
        "Paper": _paper(algorithm.paper),
        "Learns from": data_in_words(algorithm),
        "Reference": algorithm.reference_in_words,
        "Its reward": algorithm.reward,
        "Learning rate": "" if rate is None else f"{rate:g}{_range(algorithm)}, for LoRA adapters",
        "Also in": elsewhere(algorithm.doc),
        "Held equal to, by tests": held_equal(algorithm.doc),
        "File": f"[algorithms/{plugin.path.name}](../../algorithms/{plugin.path.name})",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _snippet(algorithm: Algorithm) -> str:
    """`methods:` of a suite that has the method with its defaults, after the reward model that it names."""
    given = [f"{name}: {_yaml(each.default)}" for name, each in algorithm.parameters.items()]
    lines = [f"  - {algorithm.name}" + (f": {{{', '.join(given)}}}" if given else "")]
    if len(lines[0]) > WIDTH:
        lines = [f"  - {algorithm.name}:", *(f"      {one}" for one in given)]
    reward = algorithm.parameters.get(REWARD)
    needed = [] if reward is None or reward.default == GOLD else [f"  - {reward.default}"]
    return "\n".join(["methods:", *needed, *lines])


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _curve(name: str, curves: Curves) -> Iterator[str]:
    if name in curves.without:
        yield f"No curve: {curves.without[name]}."
        return
    if name not in curves.curves:
        yield f"No curve yet: `{curves.command}` trains it."
        return
    curve = curves.curves[name]
    settings = ", ".join(f"{each}: {_yaml(value)}" for each, value in curve.settings.items())
    drawn = {"loss": "loss"} | ({} if curve.beside is None else {curve.beside: BESIDE[curve.beside][0]})
    ends = "; ".join(f"{words} {_ends(curve.log[column])}" for column, words in drawn.items())
    yield f"![Line plots over {len(curve.log['loss'])} optimizer steps: {ends}](../pictures/methods/{name}.svg)"
    beside = "" if curve.beside is None else f", and beside it {BESIDE[curve.beside][1]}"
    suite = curves.suite
    yield (
        f"The loss of each of {len(curve.log['loss'])} optimizer steps{beside}; thick lines are moving averages. It is "
        f"one training from `{suite['base']}` on {suite['pairs']} pairs of `{suite['train']}` with seed "
        f"{suite['seed']}, `{name}: {{{settings}}}` and the settings of "
        "[benchmarks/method_curves.yaml](../../benchmarks/method_curves.yaml). It shows how the numbers of the method "
        "move; so few steps of one seed cannot say how good it is."
    )
    libraries = ", ".join(f"{library} {version}" for library, version in curves.libraries.items())
    yield (
        f"Made by `{curves.command}` with the code of commit {curves.commit}, on {curves.machine}, {libraries}. The "
        "numbers are in [method_curves.json](../method_curves.json)."
    )


def _ends(values: Sequence[float | None]) -> str:
    """Means of the first and of the last fifth of the steps."""
    known = [value for value in values if value is not None]
    part = max(1, len(known) // 5)
    return f"from {sum(known[:part]) / part:.3g} to {sum(known[-part:]) / part:.3g}"


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
