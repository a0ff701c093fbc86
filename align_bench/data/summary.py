"""What a preference set holds, at a glance: counts, lengths and how often the longer answer is the preferred one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from align_bench.metrics.length import count_words
from align_bench.metrics.scripts import COUNTED_BY_CHARACTER, UNSPACED

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from align_bench.data.preferences import DataSource
    from align_bench.records import Preference, PreferenceSet

SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Lengths:
    """Length of some texts in words (a Han or kana character is a word): mean, median, 95th percentile, maximum."""

    mean: float
    median: float
    p95: int
    max: int
    n: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A preference set in numbers. Undefined is None.

    Attributes:
        shape: the recognised shape, in words.
        counts: reason → rows, as read.
        prompt: length of the prompts, all turns together.
        chosen, rejected: length of the answers.
        pairs: rows with both answers.
        longer_pairs: those whose chosen answer has more words.
        equally_long_pairs: those whose answers have the same number of words.
        chosen_longer: share of the pairs whose chosen answer has more words.
        equally_long: share of the pairs whose answers have the same number of words.
        gold_pairs: pairs of which exactly one answer is right by the gold judge.
        gold_agrees: share of these whose chosen answer is the right one.
        with_margin: pairs that say how much better the chosen answer is.
    """

    shape: str
    counts: dict[str, int]
    prompt: Lengths | None
    chosen: Lengths | None
    rejected: Lengths | None
    pairs: int
    longer_pairs: int
    equally_long_pairs: int
    chosen_longer: float | None
    equally_long: float | None
    gold_pairs: int
    gold_agrees: float | None
    with_margin: int


def summarise(preferences: PreferenceSet) -> Summary:
    """Count and measure a preference set."""
    rows = preferences.rows
    words = [(_words(row.chosen), _words(row.rejected)) for row in rows]
    margins = [chosen - rejected for chosen, rejected in words if chosen is not None and rejected is not None]
    gold = [row.gold_choice == 1 for row in rows if row.gold_choice is not None]
    return Summary(
        shape=preferences.shape,
        counts=dict(preferences.counts),
        prompt=_lengths([sum(count_words(turn.content) for turn in row.prompt) for row in rows]),
        chosen=_lengths([chosen for chosen, _ in words if chosen is not None]),
        rejected=_lengths([rejected for _, rejected in words if rejected is not None]),
        pairs=len(margins),
        longer_pairs=sum(margin > 0 for margin in margins),
        equally_long_pairs=margins.count(0),
        chosen_longer=_share([margin > 0 for margin in margins]),
        equally_long=_share([margin == 0 for margin in margins]),
        gold_pairs=len(gold),
        gold_agrees=_share(gold),
        with_margin=sum(row.margin is not None for row in rows),
    )


def _words(text: str | None) -> int | None:
    return None if text is None else count_words(text)


def _lengths(words: Sequence[int]) -> Lengths | None:
    if not words:
        return None
    # Nearest rank: the smallest length that at least 95% of the texts do not exceed.
    rank = -(-95 * len(words) // 100)
    return Lengths(fmean(words), median(words), sorted(words)[rank - 1], max(words), len(words))


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def rich_summary(
    source: DataSource,
    preferences: PreferenceSet,
    rows: int = 3,
    *,
    summary: Summary | None = None,
    checks: Sequence[RenderableType] = (),
) -> Group:
    """The summary and the first rows, to be printed by rich.

    Args:
        source: where the set came from.
        preferences: the set.
        rows: how many rows to show in full, long texts shortened to `SHOWN_CHARACTERS`.
        summary: the set's, where it is known already.
        checks: what stands between the numbers and the rows.
    """
    from rich.console import Group

    summary = summary or summarise(preferences)
    panels = [_row_panel(row) for row in preferences.rows[:rows]]
    head = [_shown(source.path), _shown(f"shape: {summary.shape}")]
    head += [_shown(line) for line in _unread(preferences)]
    texts = (text for row in preferences.rows for text in (row.chosen, row.rejected) if text is not None)
    if any(UNSPACED.search(text) for text in texts if not text.isascii()):
        head.append(_shown(f"words: {COUNTED_BY_CHARACTER}"))
    return Group(*head, _counts_table(summary), _lengths_table(summary), *_notes(summary), *checks, *panels)


def _unread(preferences: PreferenceSet) -> list[str]:
    """What is in the file and is not read."""
    columns, keys = (", ".join(names) for names in (preferences.unread, preferences.unread_keys))
    return [
        *([f"columns not read: {columns}"] if columns else []),
        *([f"keys of turns not read: {keys}"] if keys else []),
    ]


def _counts_table(summary: Summary) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("rows")
    table.add_column("count", justify="right")
    for reason, count in summary.counts.items():
        table.add_row(Text(reason, style="yellow" if reason.startswith("dropped") else ""), f"{count:,}")
    return table


def _lengths_table(summary: Summary) -> Table:
    from rich.table import Table

    table = Table("length in words")
    for name in ("mean", "median", "95%", "max"):
        table.add_column(name, justify="right")
    for name, lengths in {"prompt": summary.prompt, "chosen": summary.chosen, "rejected": summary.rejected}.items():
        if lengths is None:
            table.add_row(name, *["n/a"] * 4)
        else:
            table.add_row(name, f"{lengths.mean:.1f}", f"{lengths.median:g}", str(lengths.p95), str(lengths.max))
    return table


def _notes(summary: Summary) -> list[Text]:
    from rich.text import Text

    notes = []
    if summary.chosen_longer is not None:
        notes.append(
            f"The chosen answer is longer in {summary.chosen_longer:.1%} of {summary.pairs:,} pairs "
            f"(as long: {summary.equally_long:.1%})."
        )
    if summary.with_margin:
        notes.append(
            f"{summary.with_margin:,} of {summary.pairs:,} pairs say how much better the chosen answer is. "
            "Methods that read this margin need it in every row."
        )
    if summary.gold_agrees is not None:
        notes.append(
            f"Of {summary.gold_pairs:,} pairs with one right answer, {summary.gold_agrees:.1%} have it as the chosen."
        )
    return [Text(note) for note in notes]


def _row_panel(row: Preference) -> Panel:
    from rich.panel import Panel
    from rich.text import Text

    parts = [(turn.role, turn.content, "cyan") for turn in row.prompt]
    parts += [
        (name, answer, style)
        for name, answer, style in (("chosen", row.chosen, "green"), ("rejected", row.rejected, "red"))
        if answer is not None
    ]
    body = Text()
    for name, content, style in parts:
        body.append_text(Text(f"{_printable(name)}: ", style=f"bold {style}")).append_text(_shown(content)).append("\n")
    body.rstrip()
    return Panel(body, title=f"row {row.pair}", title_align="left")


def _shown(text: str) -> Text:
    from rich.text import Text

    left = len(text) - SHOWN_CHARACTERS
    if left <= 0:
        return Text(_printable(text))
    return Text(_printable(text[:SHOWN_CHARACTERS])).append(f" … ({left:,} more characters)", style="dim")


def _printable(text: str) -> str:
    """The text without the control characters by which data could steer a terminal."""
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs") else "�"
        for char in text.replace("\r\n", "\n").replace("\t", "    ")
    )
