"""The report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align_bench.data.counts import counts_in_words
from align_bench.report.formatting import clipped, one_line
from align_bench.report.report_sections import report_sections
from align_bench.report.section import Section

if TYPE_CHECKING:
    from align_bench.report.figures.base import Figure

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(report: Mapping[str, Any], figures: Sequence[Figure] = ()) -> str:
    """The report's verdict, tables and notes with what they were made from: command, base, data, judge, environment.

    Args:
        report: what `build_report` returns or `report.json` holds.
        figures: shown from the files `figures/<name>.svg` beside it.
    """
    parts = [f"# Report: {literal(_title(report))}"]
    if report.get("verdict"):
        parts.append("## Verdict\n\n" + "\n".join(f"- {literal(sentence)}" for sentence in report["verdict"]))
    parts += _made_from(report)
    parts += [table(section) for section in report_sections(report)]
    parts += [_figure(figure) for figure in figures]
    if report["notes"]:
        parts.append("## Notes\n\n" + "\n".join(f"- {literal(note)}" for note in report["notes"]))
    environment = list(_bullets(report.get("environment"), "environment"))
    if environment:
        parts.append("## Environment\n\n" + "\n".join(environment))
    return "\n\n".join(parts) + "\n"


def literal(text: object) -> str:
    """Text on one line that Markdown shows as it is: no markup, no HTML, no cell borders.

    >>> literal("a|b <b> `c` snake_case *d*")
    'a\\\\|b &lt;b&gt; \\\\`c\\\\` snake_case \\\\*d\\\\*'
    """
    marked = re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", clipped(one_line(text)))
    return re.sub("[&<>]", lambda found: _ENTITIES[found.group()], marked)


def _made_from(report: Mapping[str, Any]) -> Iterator[str]:
    if command := report.get("command"):
        yield f"Made by\n\n{_code(one_line(command))}"
    made_from = {key: report.get(key) for key in ("base", "data", "judge")}
    if isinstance(data := made_from["data"], Mapping):
        made_from["data"] = {split: counts_in_words(facts) or facts for split, facts in data.items()}
    blocks = [line for key, block in made_from.items() for line in _bullets(block, key)]
    if blocks:
        yield "\n".join(blocks)


def _title(report: Mapping[str, Any]) -> object:
    suite = report.get("suite")
    return suite.get("name", "align-bench") if isinstance(suite, Mapping) else suite or "align-bench"


def _bullets(value: Any, name: str) -> Iterator[str]:
    """A block of the header as a flat list: `- data.counts.kept: 999`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _bullets(item, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(one, Mapping) for one in value):
        for index, item in enumerate(value):
            yield from _bullets(item, f"{name}.{index}")
    elif value is not None:
        shown = ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
        yield f"- {literal(name)}: {literal(shown)}"


def _code(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def table(section: Section) -> str:
    """One table under its title, with its captions."""
    lines = [
        _row([column.heading for column in section.columns]),
        "|" + "|".join("---:" if column.numeric else ":---" for column in section.columns) + "|",
        *map(_row, section.rows),
    ]
    captions = "".join(f"\n\n{literal(caption)}" for caption in section.captions)
    return f"## {literal(section.title)}\n\n" + "\n".join(lines) + captions


def _figure(figure: Figure) -> str:
    shown = f"![{literal(figure.alternative)}](figures/{figure.name}.svg)"
    return f"## {literal(figure.title)}\n\n{shown}\n\n{literal(figure.caption)}"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(map(literal, texts)) + " |"
