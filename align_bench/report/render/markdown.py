"""The report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align_bench.report import provenance
from align_bench.report.formatting import clipped, one_line
from align_bench.report.tables import report_sections
from align_bench.report.tables.leaderboard import OPENING
from align_bench.report.verdict import headline

if TYPE_CHECKING:
    from align_bench.report.figures.base import Figure
    from align_bench.report.schema import Report
    from align_bench.report.tables.section import Section

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(report: Report, figures: Sequence[Figure] = ()) -> str:
    """The report's verdict, leaderboard, the numbers behind both, tables and notes, with what they were made from.

    Args:
        report: a report.
        figures: shown from the files `figures/<name>.svg` beside it.
    """
    parts = [f"# Report: {literal(report.suite.name)}"]
    sections = report_sections(report)
    parts += _listed("Verdict", headline(report))
    parts += [table(section) for section in sections if section.chapter == OPENING]
    parts += _listed("The numbers behind it", report.verdict)
    parts += _made_from(report)
    parts += [table(section) for section in sections if section.chapter != OPENING]
    parts += [_figure(figure) for figure in figures]
    parts += _listed("Notes", report.notes)
    parts.append("## Environment\n\n" + "\n".join(map(_bullet, provenance.environment(report))))
    return "\n\n".join(parts) + "\n"


def literal(text: object) -> str:
    """Text on one line that Markdown shows as it is: no markup, no HTML, no cell borders.

    >>> literal("a|b <b> `c` snake_case *d*")
    'a\\\\|b &lt;b&gt; \\\\`c\\\\` snake_case \\\\*d\\\\*'
    """
    marked = re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", clipped(one_line(text)))
    return re.sub("[&<>]", lambda found: _ENTITIES[found.group()], marked)


def _listed(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"## {title}\n\n" + "\n".join(f"- {literal(sentence)}" for sentence in sentences)


def _made_from(report: Report) -> Iterator[str]:
    yield f"Reproduce with\n\n{_code(one_line(report.command))}"
    yield "\n".join(map(_bullet, provenance.inputs(report)))


def _bullet(line: provenance.Line) -> str:
    name, text = line
    return f"- {literal(name)}: {literal(text)}"


def _code(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def table(section: Section) -> str:
    """One table under its title, with its captions."""
    lines = [
        _row([column.heading for column in section.columns]),
        "|" + "|".join("---:" if column.numeric else ":---" for column in section.columns) + "|",
        *map(_row, section.texts()),
    ]
    captions = "".join(f"\n\n{literal(caption)}" for caption in section.captions)
    return f"## {literal(section.title)}\n\n" + "\n".join(lines) + captions


def _figure(figure: Figure) -> str:
    shown = f"![{literal(figure.alternative)}](figures/{figure.name}.svg)"
    return f"## {literal(figure.title)}\n\n{shown}\n\n{literal(figure.caption)}"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(map(literal, texts)) + " |"
