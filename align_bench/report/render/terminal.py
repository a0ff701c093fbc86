"""The report as tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.containers import Lines
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from align_bench.report.formatting import clipped, one_line
from align_bench.report.tables import report_sections
from align_bench.report.tables.leaderboard import OPENING
from align_bench.report.tables.pairwise import pairwise
from align_bench.report.tables.section import Column, Section
from align_bench.report.verdict import headline

if TYPE_CHECKING:
    from align_bench.report.schema import Report

# A column of text is not squeezed below this, nor below its longest word, however narrow the terminal.
TEXT_WIDTH = 10
# Where there is room for it at this width, a column of long texts is shown; a longer word is broken.
WRAPPED = 40


def comparison_tables(report: Report) -> list[RenderableType]:
    """The verdict with its numbers, the tables of a report and its notes, ready for `Console.print`.

    The leaderboard is the last of the tables.

    All text is set as `rich.text.Text`, which knows no markup: what stands in a suite or an answer stays literal.
    """
    first, behind = headline(report), report.verdict
    made: list[RenderableType] = [_bullets("Verdict", first), Text()] if first else []
    made += [_bullets("The numbers behind it", behind), Text()] if behind else []
    made += map(section_table, sorted(report_sections(report), key=lambda section: section.chapter == OPENING))
    if report.notes:
        made += [_bullets("Notes", report.notes), Text()]
    return made


def pairwise_table(report: Report, a: str, b: str) -> RenderableType:
    """Two methods against each other on every metric they were compared on, as `a − b`.

    Args:
        report: a report.
        a, b: names of methods or cells.

    Raises:
        MissingResultError: no such method or cell, or it has no result.
    """
    return section_table(pairwise(report, a, b))


def section_table(section: Section) -> RenderableType:
    """One table with its captions; in blocks where there is no room for all columns."""
    captions = [Text(clipped(one_line(caption)), style="dim") for caption in section.captions]
    return Group(_Fitted(section), *captions, Text())


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A table with all its columns where there is room for them; else in blocks, one below the other.

    Every block begins with the first column, which says whose row it is. So none is cut off, however narrow.
    """

    section: Section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.section.title, style="bold")
        for block in self.blocks(options.max_width):
            yield _of_columns(self.section, block, options.max_width)

    def blocks(self, room: int) -> Sequence[Sequence[int]]:
        """The columns that are shown, table by table."""
        rows, columns = self.section.texts(), self.section.columns
        texts = [[clipped(row[index]) for row in rows] for index in range(len(columns))]
        if sum(map(_width, columns, texts, repeat(WRAPPED))) <= room:
            return [list(range(len(columns)))]
        return _blocks(dict(enumerate(map(_width, columns, texts, repeat(TEXT_WIDTH)))), room)


def _blocks(widths: Mapping[int, int], room: int) -> list[list[int]]:
    """The columns, each with its width, in as few blocks as have room, of like widths; the first one stands in all."""
    found = _filled(widths, room)
    for narrower in range(room - 1, 0, -1):
        alike = _filled(widths, narrower)
        if len(alike) > len(found):
            break
        found = alike
    return found


def _filled(widths: Mapping[int, int], room: int) -> list[list[int]]:
    """The columns in blocks, each as full as it has room."""
    first, *others = widths
    blocks = [[first]]
    for index in others:
        if len(blocks[-1]) > 1 and sum(widths[one] for one in (*blocks[-1], index)) > room:
            blocks.append([first])
        blocks[-1].append(index)
    return blocks


def _width(column: Column, texts: Sequence[str], wrapped: int) -> int:
    """Columns of the terminal that a table's column needs, when texts that may break do so at a width of `wrapped`."""
    heading = column.heading.split(" ") if column.numeric else [column.heading]
    longest = max(map(cell_len, [*heading, *texts]))
    return 2 + (max(min(longest, wrapped), _longest_word(texts)) if column.wraps else longest)


def _longest_word(texts: Sequence[str]) -> int:
    """Columns of the terminal that the longest part of a text needs that does not break; none takes too many."""
    parts = (part for text in texts for word in text.split() for part in _parts(word))
    return min(WRAPPED, max(map(cell_len, parts), default=0))


def _text_widths(columns: Mapping[int, Column], texts: Mapping[int, Sequence[str]], room: int) -> dict[int, int]:
    """The width of each column whose cells may break: what the others leave is shared out, the least first.

    Nothing where there is no room for all of them.
    """
    least = {index: _width(column, texts[index], TEXT_WIDTH) for index, column in columns.items()}
    wanted = {index: _width(column, texts[index], room) - least[index] for index, column in columns.items()}
    left = room - sum(least.values())
    wrapping = sorted((index for index, column in columns.items() if column.wraps), key=wanted.__getitem__)
    found: dict[int, int] = {}
    for place, index in enumerate(wrapping if left >= 0 else ()):
        more = min(wanted[index], left // (len(wrapping) - place))
        found[index], left = least[index] - 2 + more, left - more
    return found


def _of_columns(section: Section, shown: Sequence[int], room: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rows = section.texts()
    texts = {index: [clipped(row[index]) for row in rows] for index in shown}
    widths = _text_widths({index: section.columns[index] for index in shown}, texts, room)
    for index in shown:
        column = section.columns[index]
        heading = Text(column.heading.replace(" ", "\n") if column.numeric else column.heading)
        side: JustifyMethod = "right" if column.numeric else "left"
        table.add_column(
            heading, justify=side, vertical="top", overflow="fold", no_wrap=not column.wraps, width=widths.get(index)
        )
    for row in rows:
        table.add_row(*(_Cell(clipped(row[index])) for index in shown))
    return table


class _Cell(Text):
    """Text whose words, where they are too long for a line, break before a bracket or after a comma or an equals sign.

    So `ppo[kl_coef=0.05,reward=rm]` becomes `ppo[kl_coef=` and `0.05,reward=rm]`, and not `ppo[kl_coe` and so on.
    """

    def wrap(self, console: Console, width: int, **more: Any) -> Lines:
        """The lines of at most `width` columns, as `rich.text.Text.wrap` makes them."""
        words = re.split(r"(\s+)", self.plain)
        text = "".join(_broken(word, width) if cell_len(word) > width else word for word in words)
        return Text(text, style=self.style).wrap(console, width, **more)


def _broken(word: str, width: int) -> str:
    """A word in lines, each as full as the places where it may break allow."""
    lines = [""]
    for part in _parts(word):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _parts(word: str) -> list[str]:
    """A word in the parts between which it may break."""
    return re.split(r"(?=\[)|(?<=,)|(?<==)", word)


def _bullets(title: str, sentences: Sequence[str]) -> RenderableType:
    bullets = [Padding(Text(f"• {clipped(one_line(sentence))}"), (0, 0, 0, 1)) for sentence in sentences]
    return Group(Text(title, style="bold"), *bullets)
