"""Which column of a file is which, and how its rows are read: found from the columns, from a look at their values, and
from what the user says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from align_bench.data.choices import (
    LABELS,
    NUMBERED,
    Choice,
    Side,
    choice_of,
    count_values,
    line,
    parsed,
    proposal,
    usual,
    usual_winners,
    value_text,
    winner,
)
from align_bench.data.fields import DropError
from align_bench.data.known_sets import KnownSet, known_set
from align_bench.data.shapes import (
    CANONICAL,
    CHOICE,
    IMPLIED_CHOICE_SHAPE,
    OPTIONAL,
    PAIR_SHAPE,
    PREFERRED,
    QUESTION_SHAPE,
    SHAPES,
    STRENGTH,
    Answered,
    Shape,
    answered,
    choice_column,
    used_beside,
)
from align_bench.data.written import ENOUGH, columns_of_lists, read_written
from align_bench.errors import DataError, nearest

if TYPE_CHECKING:
    from align_bench.data.preferences import DataSource
    from align_bench.data.tables import Cells, Table

LOOKED_AT = 200  # rows whose cells say whether a column writes lists as text, and whether a hint fits
_SAY = "say which column is which, for example "
_ALIASES = {
    "question": ("query", "instruction", "prompt", "input"),
    "response_1": ("response_a", "response_0", "answer_1", "answer_a", "output_1", "output_a", "response1"),
    "response_2": ("response_b", "answer_2", "answer_b", "output_2", "output_b", "response2"),
    "overall_response": ("preference", "choice", "winner", "preferred", "better_response_id", "label"),
    "prompt": ("question", "query", "instruction", "input"),
    "chosen": ("preferred", "better", "winner", "positive", "accepted"),
    "rejected": ("dispreferred", "worse", "loser", "negative"),
    "completion": ("response", "answer", "output"),
    "label": ("desirable", "thumbs_up", "is_good"),
}


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are read.

    Attributes:
        words: the recognised shape, with the public set that it is.
        shape: what a row is.
        names: standard name → the file's column.
        columns: the file's columns that are read.
        unread: the others.
        choice: what the values of its choice or label column stand for; None where there is no such column.
        winners: column → what a 1 in it stands for, where several columns tell the winner.
        lists: standard names whose cells may be lists that are written as text.
        adapt: brings a raw row into the columns of `names`.
    """

    words: str
    shape: Shape
    names: Mapping[str, str]
    columns: tuple[str, ...]
    unread: tuple[str, ...] = ()
    choice: Choice | None = None
    winners: Mapping[str, Side] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    adapt: Callable[[Cells], Cells] | None = None

    def cells(self, raw: Cells) -> dict[str, object]:
        """A raw row under standard names.

        Raises:
            DropError: a cell of it has no meaning.
        """
        row = self.adapt(raw) if self.adapt else raw
        cells = {name: row.get(column) for name, column in self.names.items()}
        return cells | {name: read_written(cells[name]) for name in self.lists}

    def preferred(self, raw: Cells, cells: Cells) -> dict[str, object]:
        """Which answer a row prefers, and how strongly; nothing in a shape that says so by its columns.

        Raises:
            DropError: neither of them, or the row does not say.
        """
        if self.winners:
            return {PREFERRED: winner(raw, self.winners)}
        if self.choice is None:
            return {}
        value = cells[choice_column(self.shape) or CHOICE]
        return {PREFERRED: self.choice.decide(value), STRENGTH: self.choice.margin(value)}

    def read(self, raw: Cells) -> Iterator[Answered | DropError]:
        """The pairs (or the labelled answer) of a raw row.

        Raises:
            DropError: the row cannot be used.
            DataError: no row of this kind can.
        """
        cells = self.cells(raw)
        yield from answered(self.shape, {**cells, **self.preferred(raw, cells)})


def layout_of(source: DataSource, table: Table) -> Layout:
    """How the rows of a table are read.

    Args:
        source: what the user says of it.
        table: its columns and rows.

    Raises:
        DataError: it has no known shape, or the values of its choice or label column are none of those expected.
    """
    _check_columns(source, table.columns)
    known = known_set(table.columns, lambda columns: next(iter(table.rows(tuple(columns))), None))
    asked = set(source.columns) - set(OPTIONAL)
    if known is not None and asked <= {*known.shape.columns, *known.names}:
        return _layout(source, table, known.shape, known)
    names = {name for name in CANONICAL if name in table.columns} | set(source.columns)
    told = {CHOICE} if _winners(source.choice, source.columns, table) else set()
    # Two whole conversations with a choice look like answers without their question, unless the user names them.
    shapes = (*SHAPES, IMPLIED_CHOICE_SHAPE) if {"response_1", "response_2"} <= asked else SHAPES
    # A shape that uses every column named by the user goes first.
    for shape in sorted(shapes, key=lambda shape: not asked <= set(shape.columns)):
        if set(shape.columns) <= names | told:
            return _layout(source, table, shape, None)
    accepted = "; ".join(" + ".join(shape.columns) for shape in SHAPES)
    raise DataError(
        f"{source.path}: its columns ({', '.join(table.columns)}) have no known shape. Accepted: {accepted}.",
        fix=columns_edit(source, table),
    )


def _check_columns(source: DataSource, found: Sequence[str]) -> None:
    for name, column in source.columns.items():
        if name not in CANONICAL:
            hint = nearest(name, CANONICAL, what="name")
            raise DataError(f"{source.path}: `columns` names {name!r}, which no shape has. {hint}")
        if column not in found:
            hint = nearest(column, found, what="column")
            raise DataError(f"{source.path}: `columns: {{{name}: {column}}}` names a column that is not there. {hint}")


def _winners(spelled: Mapping[str, str], names: Mapping[str, str], table: Table) -> Mapping[str, str]:
    """A `choice:` whose keys are columns that are each 1 for one outcome; nothing where they are a column's values."""
    has_column = names.get(CHOICE, CHOICE) in table.columns
    return spelled if not has_column and set(spelled) <= set(table.columns) else {}


def _layout(source: DataSource, table: Table, shape: Shape, known: KnownSet | None) -> Layout:
    said = dict(known.names if known else {}) | dict(source.columns)
    names = {name: said.get(name, name) for name in shape.columns}
    spelled = source.choice or (known.choice if known and CHOICE not in source.columns else {})
    if source.choice and choice_column(shape) is None:
        raise DataError(
            f"{source.path}: `choice` is given, and rows of {shape.words} have no column that it is about.",
            fix="leave `choice` out, or name the column: `columns: {overall_response: COLUMN}` or "
            "`columns: {label: COLUMN}`",
        )
    told = _winners(spelled, names, table) if CHOICE in shape.columns else {}
    if told:
        del names[CHOICE]
    names |= used_beside(names, table.columns, said)
    used = dict.fromkeys([*names.values(), *told, *(known.reads if known else ())])
    columns = tuple(column for column in used if column in table.columns)
    adapt = known.adapt if known else None
    answers = tuple(names[name] for name in shape.answers) if choice_column(shape) == CHOICE else ()
    written = frozenset() if adapt else _written(table, shape, names)
    return Layout(
        words=known.words if known else shape.words,
        shape=shape,
        names=names,
        columns=columns,
        unread=tuple(column for column in table.columns if column not in columns),
        choice=None if told else _looked_at(source, table, shape, names, spelled, answers),
        winners=parsed(told, answers, source.path).sides if told else {},
        lists=written | frozenset(known.lists if known else ()),
        adapt=adapt,
    )


def _written(table: Table, shape: Shape, names: Mapping[str, str]) -> frozenset[str]:
    """The standard names whose columns write lists as text."""
    texts = {name: names[name] for name in (shape.prompt, *shape.answer_names) if name is not None}
    columns = tuple(dict.fromkeys(texts.values()))
    rows = islice(table.rows(columns), LOOKED_AT)
    found = columns_of_lists(rows, columns, names[shape.prompt] if shape.prompt else None)
    return frozenset(name for name, column in texts.items() if column in found)


def _looked_at(
    source: DataSource,
    table: Table,
    shape: Shape,
    names: Mapping[str, str],
    spelled: Mapping[str, str],
    answers: Sequence[str],
) -> Choice | None:
    """What the values of the choice or label column stand for."""
    name = choice_column(shape)
    if name is None:
        return None
    column = names[name]
    counts = count_values(raw.get(column) for raw in table.rows((column,)))
    return choice_of(spelled, answers, column, counts, source.path)


def columns_edit(source: DataSource, table: Table) -> str:
    """The `columns:` line (and the `choice:` line) that makes a known shape out of a table's columns.

    If none was tried and found to fit, the line that comes nearest leaves open what is not known.
    """
    if (edit := tried_columns(source, table)) is not None:
        return edit
    guesses, ordered = _guesses(source, table)
    best, name = ordered[0], choice_column(ordered[0])
    guess = guesses[best]
    if len(guess) < len(best.columns):
        return _SAY + f"`columns: {_edit(best.columns, guess)}`"
    if name is None:  # the names suggest it, and the cells do not bear it out
        return _SAY + f"`columns: {_edit(best.columns, {})}`"
    counts = count_values(raw.get(guess[name]) for raw in table.rows((guess[name],)))
    answers = tuple(guess[answer] for answer in best.answers)
    return (
        _SAY + f"`columns: {_edit(best.columns, guess)}`; and what each value stands for, {proposal(counts, answers)}"
    )


def tried_columns(source: DataSource, table: Table) -> str | None:
    """The line that makes a known shape out of a table's columns, if more than 95% of the first rows then are read."""
    guesses, ordered = _guesses(source, table)
    whole = (shape for shape in ordered if len(guesses[shape]) == len(shape.columns))
    edits = (_tried(source, table, shape, guesses[shape]) for shape in whole)
    return next(filter(None, edits), None) or _tried_winners(table, guesses[QUESTION_SHAPE])


def _tried_winners(table: Table, guess: Mapping[str, str]) -> str | None:
    """The edit for a file whose winner is told by several columns, if more than 95% of its first rows have one."""
    names = {name: guess[name] for name in QUESTION_SHAPE.columns if name in guess and name != CHOICE}
    if len(names) < len(QUESTION_SHAPE.columns) - 1:
        return None
    rows = list(islice(table.rows(table.columns), LOOKED_AT))
    free = [column for column in table.columns if column not in names.values()]
    flags = [column for column in free if {value_text(row.get(column)) for row in rows} <= {"0", "1", "true", "false"}]
    answers = tuple(names[answer] for answer in QUESTION_SHAPE.answers)
    if (told := usual_winners(flags, answers)) is None:
        return None
    columns = tuple(dict.fromkeys([*names.values(), *told]))
    sides = parsed(told, answers, "").sides
    layout = Layout(QUESTION_SHAPE.words, QUESTION_SHAPE, names, columns, winners=sides)
    if _usable_share(layout, table) <= ENOUGH:
        return None
    return _SAY + f"`columns: {_edit(tuple(names), names)}` and `choice: {line(told)}`"


def _guesses(source: DataSource, table: Table) -> tuple[Mapping[Shape, Mapping[str, str]], Sequence[Shape]]:
    """Of each shape, which columns its names may mean; and the shapes, those first that miss the least.

    Where nothing is known of the columns, the plainest of all is the first: prompt + chosen + rejected.
    """
    guesses = {shape: _guess(shape.columns, source.columns, table.columns) for shape in SHAPES}

    def nearness(shape: Shape) -> tuple[float, int]:
        known = len(guesses[shape])
        return known / len(shape.columns), len(shape.columns) if known else shape == PAIR_SHAPE

    return guesses, sorted(SHAPES, key=nearness, reverse=True)


def _edit(names: Sequence[str], guess: Mapping[str, str]) -> str:
    wanted = {name: guess.get(name, "COLUMN") for name in names}
    return line({name: column for name, column in wanted.items() if name != column})


def _guess(names: Sequence[str], columns: Mapping[str, str], found: Sequence[str]) -> dict[str, str]:
    guess = {name: columns.get(name, name) for name in names if columns.get(name, name) in found}
    for name in names:
        free = {column.casefold(): column for column in found if column not in guess.values()}
        alias = [known for known in (name, *_ALIASES.get(name, ())) if known in free]
        close = alias or get_close_matches(name, free, n=1, cutoff=0.6)
        if name not in guess and close:
            guess[name] = free[close[0]]
    return guess


def _tried(source: DataSource, table: Table, shape: Shape, guess: Mapping[str, str]) -> str | None:
    """The edit that a guess stands for, if more than 95% of the first rows can then be read."""
    choice: Choice | None = None
    sides: Mapping[str, str] | None = None
    if (name := choice_column(shape)) is not None:
        counts = count_values(raw.get(guess[name]) for raw in table.rows((guess[name],)))
        answers = tuple(guess[answer] for answer in shape.answers)
        choice = next((each for each in ((NUMBERED,) if answers else LABELS) if each.fits(counts)), None)
        if choice is None and (sides := usual(counts, answers)) is not None:
            choice = parsed(sides, answers, source.path)
        if choice is None:
            return None
    layout = Layout(shape.words, shape, guess, tuple(guess.values()), choice=choice)
    if _usable_share(layout, table) <= ENOUGH:
        return None
    edit = _SAY + f"`columns: {_edit(shape.columns, guess)}`"
    return f"{edit} and `choice: {line(sides)}`" if sides else edit


def _usable_share(layout: Layout, table: Table) -> float:
    """Share of the first rows that can be read; a tie is read."""
    read, usable = 0, 0
    for raw in islice(table.rows(tuple(dict.fromkeys(layout.columns))), LOOKED_AT):
        read += 1
        try:
            usable += any(isinstance(each, Answered) for each in layout.read(raw))
        except DropError as drop:
            usable += str(drop) == "tie"
        except DataError:
            return 0.0
    return usable / read if read else 0.0
