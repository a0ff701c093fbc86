"""The last screen of a run: verdict, leaderboard and where the report is, in as many lines as a terminal shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from align_bench.report.formatting import UNDEFINED, one_line
from align_bench.report.tables.leaderboard import beside_longer, mark, over_seeds, percent, tenths, with_margin
from align_bench.report.tables.values import Spread
from align_bench.report.verdict import headline

if TYPE_CHECKING:
    from align_bench.report.schema import LeaderboardRow, Report, Result, RewardModelRow

LINES = 22  # of a terminal of 24, below the command and above the prompt
SENTENCE = 3  # lines of a sentence, on average
NOTES = 4  # lines of notes
NAME = 12  # columns below which no name is cut
LEAST_ROWS = 4  # of the leaderboard, whatever else there is to say
NAMED = 4  # failed cells that a note names
WITHOUT = 3  # cells without a result that a note names
REPORTED = "align-bench report "  # how a command begins that computes nothing; run takes all of its options
ALWAYS = 3  # columns with a `need` up to this are there at 80 columns; the others, where there is room
Row = TypeVar("Row", bound="LeaderboardRow | RewardModelRow")


@dataclass(frozen=True, slots=True)
class _Field(Generic[Row]):
    """One column of the leaderboard.

    Attributes:
        heading: its heading.
        shown: the text of a row, given the decimals of numbers with ±.
        numeric: whether it is set flush right.
        need: 0 where it stands on every screen; of the others, those with the highest number go first.
    """

    heading: str
    shown: Callable[[Row, int], str]
    numeric: bool = True
    need: int = 0


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows as lines, best first.

    Attributes:
        heading: the line of headings.
        lines: a line per row.
        left: rows that it has no room for.
    """

    heading: str
    lines: Sequence[str]
    left: int


def last_screen(report: Report, where: str, console: Console) -> list[Text]:
    """At most 22 lines, none of them wider than the terminal: verdict, leaderboard, notes, and where the report is.

    Of more methods than it has room for, the best and the base are shown.

    Args:
        report: a report.
        where: path of its page.
        console: where it will be printed.
    """
    width = console.width
    notes = [Text(line, style="dim") for note in _notes(report) for line in _wrapped(note, console, width, 2)][:NOTES]
    path = list(map(Text, _folded(f"report: {one_line(where)}", width)))
    below = LEAST_ROWS + 1 + len(notes) + len(path)
    told = headline(report, short=True)
    said = _verdict(told[: len(told) - len(report.summary)], report.summary, LINES - below, console)
    table = _leaderboard(report, LINES - len(said) - 1 - len(notes) - len(path), width)
    made: list[list[Text]] = [said]
    if table is not None:
        left = [] if not table.left else [f"… and {table.left} more in report.html"]
        heading = Text(table.heading, style="bold")
        made.append([heading, *map(Text, table.lines), *(_one_line(line, width) for line in left)])
    made += [[*notes, *path]]
    return _spaced([part for part in made if part])


def _spaced(parts: Sequence[Sequence[Text]]) -> list[Text]:
    """The parts one below the other, with an empty line between them where there is room."""
    spare = LINES - sum(map(len, parts))
    lines: list[Text] = []
    for part in parts:
        if lines and spare > 0:
            lines.append(Text())
            spare -= 1
        lines += part
    return lines


def _leaderboard(report: Report, room: int, width: int) -> _Table | None:
    """That of policies; of a report without any, that of reward models."""
    if report.leaderboard:
        return _table(report.leaderboard, _policy_fields(report.leaderboard), room, width)
    if report.reward_leaderboard:
        return _table(report.reward_leaderboard, _reward_fields(report.reward_leaderboard), room, width)
    return None


def _policy_fields(rows: Sequence[LeaderboardRow]) -> list[_Field[LeaderboardRow]]:
    around = over_seeds(rows)
    return [
        _Field("judge", lambda row, decimals: str(with_margin(row.judge, around, decimals))),
        _Field("gold", lambda row, decimals: str(with_margin(row.gold, around, decimals))),
        _Field("win rate", lambda row, decimals: str(Spread(row.win_rate, even=True, decimals=decimals)), need=1),
        _Field(
            "LC win", lambda row, decimals: str(with_margin(row.win_rate_length_controlled, around, decimals)), need=4
        ),
        _Field("words", lambda row, _: str(tenths(row.words)), need=2),
        _Field("unfin.", lambda row, _: str(percent(row.unfinished)), need=3),
        _Field("KL", lambda row, decimals: str(with_margin(row.kl, around, decimals)), need=5),
        _Field("seconds", lambda row, _: str(tenths(row.seconds)), need=6),
        _Field("vs base", lambda row, _: mark(row), numeric=False),
    ]


def _reward_fields(rows: Sequence[RewardModelRow]) -> list[_Field[RewardModelRow]]:
    around = over_seeds(rows)
    return [
        _Field("accuracy", lambda row, decimals: str(with_margin(row.accuracy, around, decimals))),
        _Field("gold", lambda row, decimals: str(with_margin(row.accuracy_gold, around, decimals))),
        _Field(
            "right shorter",
            lambda row, decimals: str(with_margin(row.accuracy_right_shorter, around, decimals)),
            need=1,
        ),
        _Field("ties", lambda row, _: str(percent(row.ties)), need=4),
        _Field("seconds", lambda row, _: str(tenths(row.seconds)), need=5),
        _Field("vs longer", lambda row, _: beside_longer(row), numeric=False),
    ]


@dataclass(frozen=True, slots=True)
class _Fit:
    """One way to set the columns; the widest that fits is taken.

    Attributes:
        decimals: of numbers with ±.
        gap: between columns.
        need: up to which columns are there.
        name: room that names must have.
    """

    decimals: int
    gap: int
    need: int
    name: int


def _table(rows: Sequence[Row], fields: Sequence[_Field[Row]], room: int, width: int) -> _Table:
    shown = _chosen(rows, max(LEAST_ROWS, room))
    known = [field for field in fields if any(field.shown(row, 2) != UNDEFINED for row in rows)]
    names = [one_line(row.label) for row in shown]
    longest = max(map(cell_len, names))
    for fit in _fits({field.need for field in known}, longest):
        kept = [field for field in known if field.need <= fit.need]
        columns = _columns(kept, shown, fit.decimals)
        left = width - (fit.gap - 1) - sum(fit.gap + max(map(cell_len, column)) for column in columns)
        if left >= fit.name:
            break
    name = max(1, min(longest, left))
    lines = [
        _fitting(_joined(cut, name, fit.gap, [field.numeric for field in kept], columns, place), width)
        for place, cut in enumerate(["", *_cut(names, name)])
    ]
    return _Table(lines[0], lines[1:], len(rows) - len(shown))


def _fits(needs: Iterable[int], longest: int) -> Iterator[_Fit]:
    """The ways to set the columns, the widest first; the last ones are for terminals of less than 80 columns."""
    ordered = sorted({*needs, ALWAYS, 0}, reverse=True)
    yield from (_Fit(3, 2, need, longest) for need in ordered if need >= ALWAYS)
    yield from (_Fit(2, gap, ALWAYS, longest) for gap in (2, 1))
    yield from (_Fit(2, 1, need, min(longest, NAME)) for need in ordered if need <= ALWAYS)


def _chosen(rows: Sequence[Row], room: int) -> Sequence[Row]:
    """As many of the best as there is room for with a line that counts the others, and the base among them."""
    if len(rows) <= room:
        return rows
    best = list(rows[: room - 1])
    base = [row for row in rows if getattr(row, "kind", "") == "base" and row not in best]
    return [*best[: len(best) - len(base)], *base]


def _columns(fields: Sequence[_Field[Row]], rows: Sequence[Row], decimals: int) -> list[list[str]]:
    """The texts of each field, its heading first."""
    return [[field.heading, *(field.shown(row, decimals) for row in rows)] for field in fields]


def _joined(
    name: str, room: int, gap: int, numeric: Sequence[bool], columns: Sequence[Sequence[str]], place: int
) -> str:
    """One line: a name, and the columns' texts of that place."""
    line = " " * (gap - 1) + name + " " * (room - cell_len(name))
    for flush_right, column in zip(numeric, columns, strict=True):
        padding = " " * (max(map(cell_len, column)) - cell_len(column[place]))
        line += " " * gap + (padding + column[place] if flush_right else column[place] + padding)
    return line.rstrip()


def _cut(names: Sequence[str], room: int) -> list[str]:
    """Names that are too long without a part in their middle; it is chosen so that as many as can be stay distinct."""

    def at(head: int) -> list[str]:
        return [name if cell_len(name) <= room else _without_middle(name, head, room) for name in names]

    heads = sorted(range(room), key=lambda head: abs(head - room // 2))
    return max(map(at, heads), key=lambda found: len(set(found)))


def _without_middle(name: str, head: int, room: int) -> str:
    """So many columns of its start, `…`, and as much of its end as there is room for."""
    start = _fitting(name, head)
    return f"{start}…{_fitting(name[::-1], room - 1 - cell_len(start))[::-1]}"


def _fitting(name: str, room: int) -> str:
    """Its first letters that fit into so many columns."""
    taken = ""
    for letter in name:
        if cell_len(taken + letter) > room:
            break
        taken += letter
    return taken


def _notes(report: Report) -> Iterator[str]:
    """What the numbers are, and which cells have no result."""
    ended = Counter(found.status for found in report.results)
    ended_badly = [found for found in report.results if found.status == "failed"]
    waited = [found for found in ended_badly if _waited(found, ended_badly)]
    lost = [found for found in ended_badly if found not in waited]
    if lost:
        skipped = f", {ended['skipped']} skipped" if ended["skipped"] else ""
        names = ", ".join(one_line(found.name) for found in lost[:NAMED])
        others = "" if len(lost) == 1 else f"{names}{' and more' if len(lost) > NAMED else ''}; "
        yield f"{len(lost)} of {len(report.results)} cells failed{skipped}: {others}{_why(lost[0])}"
        if waited:
            names = ", ".join(one_line(found.name) for found in waited[:NAMED])
            more = " and more" if len(waited) > NAMED else ""
            yield f"{len(waited)} never ran, as what they start from failed: {names}{more}"
    elif missing := [found for found in report.results if found.status == "skipped"]:
        names = ", ".join(one_line(found.name) for found in missing[:WITHOUT])
        others = "" if len(missing) == 1 else f"{names}{' and more' if len(missing) > WITHOUT else ''}; "
        yield f"{len(missing)} of {len(report.results)} cells have no result: {others}{_why(missing[0])}"
        typed = report.command.removeprefix(REPORTED)
        if typed != report.command:  # a run makes what it can by itself
            yield f"go on: {one_line(f'align-bench run {typed}')}"
    rows = report.leaderboard or report.reward_leaderboard
    if rows:
        around = "sd over seeds, of win rates 95%" if over_seeds(rows) else "95% interval"
        yield f"±: {around} (not adjusted); ↑ ↓: above, below (Holm 5%)"


def _waited(found: Result, failed: Sequence[Result]) -> bool:
    """Whether a failed cell never ran: what failed is of a cell that it starts from, or of one before that."""
    failed_in = (found.reason or "").partition(": ")[0]
    return found.start is not None and any(str(one.cell) == failed_in != str(found.cell) for one in failed)


def _why(lost: Result) -> str:
    return f"{one_line(lost.name)} ({one_line(lost.reason or UNDEFINED)})"


def _verdict(alarms: Sequence[str], summary: Sequence[str], room: int, console: Console) -> list[Text]:
    """Alarms, then the summary, which needs its room first; what does not fit of the alarms is counted."""
    said = _bulleted(summary, console)
    left = max(1, room - len(said))
    warned = _bulleted(alarms, console)
    if len(warned) > left:  # a line each, and the last line for how many more there are
        warned = [line for alarm in alarms for line in _bulleted([alarm], console, most=1)]
    if len(warned) > left:
        more = f"• and {len(warned) - left + 1} more alarms in report.html"
        warned = [*warned[: left - 1], Text(_fitting(more, console.width))]
    lines = [*warned, *said]
    if len(lines) <= room:
        return lines
    return (
        [*lines[: max(0, room - 1)], Text(_fitting(lines[room - 1].plain, console.width - 1) + "…")] if room > 0 else []
    )


def _bulleted(sentences: Sequence[str], console: Console, most: int = SENTENCE) -> list[Text]:
    """Sentences after bullets: so many lines each, more where others need less; a longer one is cut off."""
    width = console.width - 2
    needed = [len(_wrapped(sentence, console, width, LINES)) for sentence in sentences]
    spare = most * len(needed) - sum(min(count, most) for count in needed)
    lines: list[Text] = []
    for sentence, count in zip(sentences, needed, strict=True):
        more = min(spare, max(0, count - most))
        spare -= more
        found = _wrapped(sentence, console, width, most + more)
        lines += [Text(("• " if place == 0 else "  ") + line) for place, line in enumerate(found)]
    return lines


def _wrapped(text: str, console: Console, width: int, most: int) -> list[str]:
    """The text in lines; what would be below the last one is cut off."""
    lines = [line.plain.rstrip() for line in Text(one_line(text)).wrap(console, max(1, width), overflow="fold")]
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], _fitting(lines[most - 1], width - 1) + "…"]


def _folded(text: str, width: int) -> Iterator[str]:
    """All of a text, in lines that are full: a path that is put together again is whole."""
    while text:
        line = _fitting(text, width) or text[0]
        yield line
        text = text[len(line) :]


def _one_line(text: str, width: int) -> Text:
    return Text(_fitting(text, width), style="dim")
