"""The report as tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.containers import Lines
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from align_bench.report.formatting import clipped, one_line
from align_bench.report.report_sections import pairwise, report_sections
from align_bench.report.section import Section

# What a narrow terminal has no room for; a wide one and the Markdown report show it.
HIDDEN = {
    *(
        "test",
        "dz",
        "n",
        "bootstrap interval",
        "Wilcoxon p",
        "TOST Holm p",
        "answer tokens",
        "further keywords",
        "trained",
    ),
}
# A column of text is not squeezed below this, however narrow the terminal.
TEXT_WIDTH = 10
# Where there is room for it at this width, a column of long texts is shown.
WRAPPED = 40


def comparison_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """The verdict, the tables of a report and its notes, ready for `Console.print`.

    All text is set as `rich.text.Text`, which knows no markup: what stands in a suite or an answer stays literal.

    Args:
        report: what `build_report` returns or `report.json` holds.
    """
    made: list[RenderableType] = [_bullets("Verdict", report["verdict"]), Text()] if report.get("verdict") else []
    made += [section_table(section, hidden=HIDDEN) for section in report_sections(report)]
    if report["notes"]:
        made.append(_bullets("Notes", report["notes"]))
    return made


def pairwise_table(report: Mapping[str, Any], a: str, b: str) -> RenderableType:
    """Two methods against each other on every metric they were compared on, as `a − b`.

    Args:
        report: what `build_report` returns or `report.json` holds.
        a, b: names of methods or cells.

    Raises:
        MissingResultError: no such method or cell, or it has no result.
    """
    return section_table(pairwise(report, a, b), hidden=HIDDEN)


def section_table(section: Section, *, hidden: set[str]) -> RenderableType:
    """One table with its captions.

    Args:
        section: what it shows.
        hidden: headings of the columns that are left out where there is no room for all.
    """
    captions = [Text(clipped(one_line(caption)), style="dim") for caption in section.captions]
    return Group(_Fitted(section, hidden), *captions, Text())


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A table with all its columns where there is room for them; else without the hidden ones, in blocks if need be.

    Every block begins with the first column, which says whose row it is. So none is cut off, however narrow.
    """

    section: Section
    hidden: set[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = range(len(self.section.columns))
        if sum(_width(self.section, index, WRAPPED) for index in every) <= options.max_width:
            yield _of_columns(self.section, every)
            return
        widths = {
            index: _width(self.section, index, TEXT_WIDTH)
            for index in every
            if self.section.columns[index].heading not in self.hidden
        }
        for block in _blocks(widths, options.max_width):
            yield _of_columns(self.section, block)


def _blocks(widths: Mapping[int, int], room: int) -> list[list[int]]:
    """The columns, each with its width, in as few blocks as have room; the first one stands in all."""
    first, *others = widths
    blocks = [[first]]
    for index in others:
        if len(blocks[-1]) > 1 and sum(widths[one] for one in (*blocks[-1], index)) > room:
            blocks.append([first])
        blocks[-1].append(index)
    return blocks


def _width(section: Section, index: int, wrapped: int) -> int:
    """Columns of the terminal that a table's column needs, when texts that may break do so at a width of `wrapped`."""
    column = section.columns[index]
    heading = column.heading.split(" ") if column.numeric else [column.heading]
    longest = max(map(cell_len, [*heading, *(clipped(row[index]) for row in section.rows)]))
    return 2 + (min(longest, wrapped) if column.wraps else longest)


def _of_columns(section: Section, shown: Sequence[int]) -> Table:
    title = Text(section.title, style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index in shown:
        column = section.columns[index]
        heading = Text(column.heading.replace(" ", "\n") if column.numeric else column.heading)
        side: JustifyMethod = "right" if column.numeric else "left"
        longest = max((cell_len(row[index][:TEXT_WIDTH]) for row in section.rows), default=0)
        least = min(TEXT_WIDTH, longest) if column.wraps else None
        table.add_column(
            heading, justify=side, vertical="top", overflow="fold", no_wrap=not column.wraps, min_width=least
        )
    for row in section.rows:
        table.add_row(*(_Cell(clipped(row[index])) for index in shown))
    return table


class _Cell(Text):
    """Text whose words, where they are too long for a line, break before a bracket or after a comma or an equals sign.

    So `ppo[kl_weight=0.05,reward=rm]` becomes `ppo[kl_weight=` and `0.05,reward=rm]`, and not `ppo[kl_weig` and so on.
    """

    def wrap(self, console: Console, width: int, **more: Any) -> Lines:
        """The lines of at most `width` columns, as `rich.text.Text.wrap` makes them."""
        words = re.split(r"(\s+)", self.plain)
        text = "".join(_broken(word, width) if cell_len(word) > width else word for word in words)
        return Text(text, style=self.style).wrap(console, width, **more)


def _broken(word: str, width: int) -> str:
    """A word in lines, each as full as the places where it may break allow."""
    parts = re.split(r"(?=\[)|(?<=,)|(?<==)", word)
    lines = [""]
    for part in parts:
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _bullets(title: str, sentences: list[str]) -> RenderableType:
    bullets = [Padding(Text(f"• {clipped(one_line(sentence))}"), (0, 0, 0, 1)) for sentence in sentences]
    return Group(Text(title, style="bold"), *bullets)
