"""The report as one page that needs nothing else: tables, figures and every example."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from align_bench.data.counts import counts_in_words
from align_bench.records import Generation
from align_bench.report.cells import GOLD, Cell
from align_bench.report.formatting import one_line
from align_bench.report.report_sections import report_sections
from align_bench.report.section import Section

if TYPE_CHECKING:
    from jinja2 import Environment

    from align_bench.report.figures.base import Figure

# What the page holds of the answers, in characters: enough for every example of a usual run, and never a page that a
# browser cannot open. The rest is in generations.jsonl.
MAX_TEXT = 3_000_000
MAX_ANSWER = 20_000

CHAPTERS = {
    "verdict": "Verdict",
    "leaderboard": "Leaderboard",
    "differences": "Differences",
    "training": "Training",
    "scores": "Scores",
    "length": "Length",
    "audit": "Audit",
    "drift": "Drift",
    "keywords": "Keywords",
    "cost": "Cost",
    "more": "More",
    "examples": "Examples",
    "made": "How it was made",
}


@dataclass(frozen=True, slots=True)
class Examples:
    """What the page's browser of examples holds: see `examples_of`."""

    policies: Sequence[str]
    cells: Sequence[str]
    judges: Sequence[str]
    data: Mapping[str, Any]
    remark: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """One part of the page; an empty one is left out."""

    name: str
    title: str
    points: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Section] = ()
    examples: Examples | None = None
    remarks: Sequence[str] = ()
    listings: Sequence[tuple[str, str]] = field(default=())

    def __bool__(self) -> bool:
        return any((self.points, self.figures, self.tables, self.examples, self.remarks, self.listings))


def render_page(report: Mapping[str, Any], cells: Sequence[Cell], figures: Sequence[Figure]) -> str:
    """`report.html`: one file that asks the network for nothing.

    Every foreign text goes through Jinja's escaping, or as JSON without `<` into a block that no browser runs; the
    page's policy of content allows its own script alone.

    Args:
        report: what `build_report` returns or `report.json` holds.
        cells: every cell with its rows.
        figures: what `figures` draws of them.
    """
    tables = report_sections(report)
    own: dict[str, dict[str, Any]] = {
        "verdict": {
            "points": [one_line(sentence) for sentence in report["verdict"]],
            "remarks": [one_line(note) for note in report["notes"]],
        },
        "examples": {"examples": examples_of(cells)},
        "made": {"listings": list(_made(report))},
    }
    return page(one_line(_name(report)), _subtitle(report), _chapters(tables, figures, own))


def comparison_page(
    title: str,
    report: Mapping[str, Any],
    cells: Sequence[Cell],
    *,
    verdicts: Sequence[str],
    tables: Sequence[Section],
    figures: Sequence[Figure],
    against: tuple[str, str] | None,
) -> str:
    """The same page for some methods of a report alone.

    Args:
        title: who is compared.
        report, cells: of these methods and the base.
        verdicts: a sentence a pair and level.
        tables, figures: each in its chapter.
        against: the two cells that the browser of examples holds against each other first.
    """
    own: dict[str, dict[str, Any]] = {
        "verdict": {"points": verdicts},
        "examples": {"examples": examples_of(cells, against)},
        "made": {"listings": list(_made(report))},
    }
    return page(title, _subtitle(report), _chapters(tables, figures, own))


def _chapters(
    tables: Sequence[Section], figures: Sequence[Figure], own: Mapping[str, Mapping[str, Any]]
) -> list[Chapter]:
    chapters = (
        Chapter(
            name,
            title,
            figures=[figure for figure in figures if figure.chapter == name],
            tables=[table for table in tables if table.chapter == name],
            **own.get(name, {}),
        )
        for name, title in CHAPTERS.items()
    )
    return [chapter for chapter in chapters if chapter]


def page(title: str, subtitle: str, chapters: Sequence[Chapter]) -> str:
    """A page of chapters under a title."""
    environment = _environment()
    script = _source("page.js")
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        chapters=chapters,
        style=_source("page.css"),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def examples_of(cells: Sequence[Cell], against: tuple[str, str] | None = None) -> Examples | None:
    """The prompts with every cell's answers and their scores, as far as `MAX_TEXT` allows; None without answers.

    The page gets whole prompts, in the order of the data. An answer longer than `MAX_ANSWER` is cut, which is said.
    """
    answering = [cell for cell in cells if cell.generations]
    answering.sort(key=lambda cell: cell.outcome.kind != "base")
    if not answering:
        return None
    texts: dict[int, str] = {}
    answers: dict[str, dict[int, list[Generation]]] = {cell.name: {} for cell in answering}
    for cell in answering:
        for answer in cell.generations:
            texts.setdefault(answer.prompt_id, answer.prompt)
            answers[cell.name].setdefault(answer.prompt_id, []).append(answer)
    judges = list(dict.fromkeys(name for cell in answering for answer in cell.generations for name in answer.scores))
    judges.sort(key=lambda name: name == GOLD)
    kept: list[int] = []
    size = 0
    for prompt in sorted(texts):
        own = [answer for found in answers.values() for answer in found.get(prompt, [])]
        size += len(texts[prompt][:MAX_ANSWER]) + sum(len(answer.text[:MAX_ANSWER]) for answer in own)
        if size > MAX_TEXT and kept:
            break
        kept.append(prompt)
    policies = [cell.name for cell in answering if cell.outcome.kind != "base"] or [answering[0].name]
    whole = (
        f"{len(kept)} prompts, all that were answered."
        if len(kept) == len(texts)
        else (f"The first {len(kept)} of {len(texts)} prompts; the others are in generations.jsonl.")
    )
    data = {
        "judges": judges,
        "cells": [{"name": cell.name} for cell in answering],
        "prompts": [texts[prompt][:MAX_ANSWER] for prompt in kept],
        "answers": {
            name: [[_answer(answer, judges) for answer in found.get(prompt, [])] for prompt in kept]
            for name, found in answers.items()
        },
    }
    names = [cell.name for cell in answering]
    if against is not None and set(against) <= set(names):  # the first option of each list is the selected one
        policies, names = _first(against[0], policies), _first(against[1], names)
    return Examples(policies, names, judges, data, whole)


def _first(name: str, names: Sequence[str]) -> list[str]:
    return [name, *(other for other in names if other != name)]


def _answer(answer: Generation, judges: Sequence[str]) -> dict[str, Any]:
    left = len(answer.text) - MAX_ANSWER
    return {
        "text": answer.text[:MAX_ANSWER],
        "tokens": answer.tokens,
        "finished": answer.finished,
        "scores": [answer.scores.get(judge) for judge in judges],
        **({"left": left} if left > 0 else {}),
    }


def embedded(value: Any) -> str:
    """JSON that stands safely inside a `script` element: no `<`, `>` or `&`, no lone surrogate; few digits.

    >>> embedded({"a": ["</script>", 0.123456789, float("nan")]})
    '{"a":["\\\\u003c/script\\\\u003e",0.12346,null]}'
    """
    text = json.dumps(_short(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


def _short(value: Any) -> Any:
    """Numbers to five significant digits, which is more than a figure shows; None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value


def inline(figure: Figure) -> str:
    """The figure's drawing with its alternative text, and ids that no other figure has."""
    from markupsafe import escape

    ids = set(re.findall(r' id="([^"]*)"', figure.svg))
    svg = figure.svg
    for one in ids:
        svg = svg.replace(f'id="{one}"', f'id="{figure.name}-{one}"').replace(f"#{one}", f"#{figure.name}-{one}")
    (width,) = re.findall(r'^<svg [^>]* width="(\d+)"', svg)
    words = escape(one_line(figure.alternative))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{words}" style="--width: {width}px" ', 1)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("align_bench.report", "page"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["inline"] = lambda figure: Markup(inline(figure))  # its text is escaped where it is drawn
    environment.filters["embedded"] = lambda value: Markup(embedded(value))
    return environment


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _name(report: Mapping[str, Any]) -> object:
    suite = report.get("suite")
    return suite.get("name", "align-bench") if isinstance(suite, Mapping) else suite or "align-bench"


def _subtitle(report: Mapping[str, Any]) -> str:
    base, environment = report.get("base"), report.get("environment")
    done = [found for found in report["results"] if found["status"] == "done" and found["kind"] != "base"]
    methods = len({found["algorithm"] for found in done})
    parts = [f"{methods} methods, {len(done)} trained models"]
    if isinstance(base, Mapping):
        parts.append(f"on {base.get('name')}, {base.get('precision')}")
    if isinstance(environment, Mapping) and "align_bench" in environment:
        parts.append(f"align-bench {environment['align_bench']}")
    return one_line(" · ".join(parts))


def _made(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The command, what went in with its hashes, the versions, and the settings."""
    if command := report.get("command"):
        yield "Command", one_line(command)
    inputs = {key: report.get(key) for key in ("base", "data", "judge")}
    if isinstance(inputs["data"], Mapping):
        inputs["data"] = {split: counts_in_words(facts) or facts for split, facts in inputs["data"].items()}
    lines = [line for key, block in inputs.items() for line in _lines(block, key)]
    if lines:
        yield "Base, data and judge", "\n".join(lines)
    if cells := list(_cells(report)):
        yield "Cells", "\n".join(cells)
    if environment := list(_lines(report.get("environment"), "")):
        yield "Environment", "\n".join(environment)
    suite = report.get("suite")
    if isinstance(suite, Mapping) and "settings" in suite:
        yield "Settings", json.dumps(suite["settings"], indent=1, ensure_ascii=False)


def _cells(report: Mapping[str, Any]) -> Iterator[str]:
    for found in report["results"]:
        parameters = ", ".join(f"{name}={value}" for name, value in found["parameters"].items())
        reward = f"; reward {found['reward']}" if found["reward"] else ""
        yield one_line(f"{found['cell']}: seed {found['seed']}{'; ' if parameters else ''}{parameters}{reward}")


def _lines(value: Any, name: str) -> Iterator[str]:
    """A block as a flat list: `base.digest: 5c61…`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else str(key))
    elif value not in (None, "", []):
        yield one_line(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
