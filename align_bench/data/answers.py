"""Readers of prompts with answers, to be scored: files of any kind that `tables` reads, in one of several shapes.

The shape is recognised by the columns:

* `messages` (or `conversation`, `conversations`): whole conversations that end with the assistant's turn;
* a prompt (`prompt`, `question`, `query`, `instruction`) with two answers: `response_1` and `response_2`, or `chosen`
  and `rejected`;
* `chosen` and `rejected` alone: whole conversations, two per row;
* a prompt with one answer (`response`, `completion`, `answer`, `output`, or `text`, as in `generations.jsonl`);
* the columns of a public set that is known, by the answers that it has.

Prompts and answers are read by the same rules as in training: a system text, an input and earlier turns belong to the
prompt, and a row with images or tools cannot be used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from align_bench.data.fields import (
    DropError,
    Turns,
    continued_answer,
    gold_answer,
    gold_candidates,
    prompt_turns,
    whole_conversation,
)
from align_bench.data.files import COMPRESSED, find_files, kind_of
from align_bench.data.known_sets import KnownSet, known_set
from align_bench.data.layout import LOOKED_AT
from align_bench.data.shapes import are_texts, check_readable, responses_to, used_beside, with_context
from align_bench.data.tables import arrow_table, read_files
from align_bench.data.written import columns_of_lists, read_written
from align_bench.errors import DataError, nearest
from align_bench.records import Conversation
from align_bench.store.files import replacing

PROMPTS = ("prompt", "question", "query", "instruction")
CONVERSATIONS = ("messages", "conversation", "conversations")
PAIRS = (("response_1", "response_2"), ("chosen", "rejected"))
ANSWERS = ("response", "completion", "answer", "output", "text")
STANDARD = ("prompt", "messages", "response", *PAIRS[0], *PAIRS[1])

Row = Mapping[str, object]

_SUFFIXES = (".jsonl", ".parquet")  # of what is written
_TYPED = (".parquet", ".arrow")


@dataclass(frozen=True, slots=True)
class Gold:
    """What the gold judge knows of a row: the right answer, and its rivals."""

    answer: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file of prompts with answers.

    Attributes:
        path: the file, or the first name that was given.
        files: all files, in reading order.
        rows: its rows, all columns.
        answers: column of answers → the conversation of each row; None where the row cannot be used.
        gold: what the gold judge knows of each row; None where there is nothing.
        dropped: reason → conversations that cannot be used.
    """

    path: Path
    files: tuple[Path, ...]
    rows: Sequence[Row]
    answers: Mapping[str, Sequence[Conversation | None]]
    gold: Sequence[Gold | None]
    dropped: Mapping[str, int]


def read_answers(
    names: Path | Sequence[str], columns: Mapping[str, str] | None = None, split: str | None = None
) -> AnswerFile:
    """Read prompts with answers; a row that cannot be used is kept, and counted under its reason.

    Args:
        names: a file; or files, patterns and folders, whose rows are read one after the other.
        columns: standard column (`prompt`, `messages`, `response`, `response_1`, …) → the file's name for it.
        split: of a folder or pattern whose file names tell splits apart.

    Raises:
        DataError: a file is missing, unreadable, of no known shape, or there is no usable row.
    """
    names = (str(names),) if isinstance(names, Path) else tuple(names)
    path, files = Path(names[0]), find_files(names, split)
    rows = _rows(path, files)
    found = list(dict.fromkeys(name for row in rows for name in row))
    layout = _layout(path, found, columns or {}, rows)
    dropped: Counter[str] = Counter()

    def read(answer: str, row: Row) -> Conversation | None:
        try:
            return layout.read(row, answer)
        except DropError as drop:
            dropped[str(drop)] += 1
            return None

    answers = {name: [read(name, row) for row in rows] for name in layout.answers}
    if not any(one is not None for column in answers.values() for one in column):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(f"{path}: none of its {len(rows)} rows can be scored: {reasons}.")
    return AnswerFile(path, files, rows, answers, [_gold_of(row) for row in rows], dict(dropped))


def write_scores(file: AnswerFile, out: Path, scores: Mapping[str, Sequence[float | None]]) -> None:
    """Write the file's rows with further columns, whole or not at all; Parquet or JSONL by the name of `out`.

    Args:
        file: from `read_answers`.
        out: where to.
        scores: new column → one number per row; None is null.

    Raises:
        DataError: `out` is of another kind, a column is there already, or it cannot be written.
    """
    if out.suffix not in _SUFFIXES:
        raise DataError(f"{out}: got the suffix {out.suffix or '(none)'}; expected .jsonl or .parquet")
    try:
        with replacing(out) as target:
            (_write_parquet if out.suffix == ".parquet" else _write_lines)(file, target, scores)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error


def check_free(file: AnswerFile, names: Sequence[str]) -> None:
    """Refuse to write over a column of the file.

    Raises:
        DataError: a name is taken.
    """
    taken = {name for row in file.rows for name in row} & set(names)
    if taken:
        raise DataError(f"{file.path}: it has a column {sorted(taken)[0]!r} already", fix="--name another")


def scored_path(file: AnswerFile) -> Path:
    """Where the scores of one file are written by default: Parquet beside Parquet, else JSONL.

    Raises:
        DataError: the rows are of several files, or of a folder or pattern.
    """
    if file.files != (file.path,):
        raise DataError(f"{file.path}: the rows are not of one file", fix="say where to write: --out FILE.jsonl")
    unpacked = file.path.with_suffix("") if file.path.suffix.lower() in COMPRESSED else file.path
    return file.path.with_name(f"{unpacked.stem}.scored{'.parquet' if kind_of(file.path) in _TYPED else '.jsonl'}")


def _rows(path: Path, files: Sequence[Path]) -> Sequence[Row]:
    table = read_files(files)
    rows = list(table.rows(table.columns))
    if not rows:
        raise DataError(f"{path}: it holds no rows.")
    return rows


def _write_lines(file: AnswerFile, target: Path, scores: Mapping[str, Sequence[float | None]]) -> None:
    with target.open("wb") as stream:
        for place, row in enumerate(file.rows):
            line = {**row, **{name: values[place] for name, values in scores.items()}}
            text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
            stream.write(text.encode("utf-8", "backslashreplace"))


def _write_parquet(file: AnswerFile, target: Path, scores: Mapping[str, Sequence[float | None]]) -> None:
    import pyarrow
    import pyarrow.parquet

    if kind_of(file.files[0]) in _TYPED:  # types stay as they are
        table = arrow_table(file.files)
    else:
        try:
            table = pyarrow.Table.from_pylist(list(file.rows))
        except pyarrow.ArrowException as error:
            raise DataError(
                f"{file.path}: its columns do not fit Parquet: {error}", fix="write .jsonl instead: --out FILE.jsonl"
            ) from error
    for name, values in scores.items():
        table = table.append_column(name, pyarrow.array(values, type=pyarrow.float64()))
    pyarrow.parquet.write_table(table, target)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column is which.

    Attributes:
        prompt: the prompt's column; None where the answers are whole conversations.
        answers: columns of answers.
        numbered: whether these are the numbered answers to a question, whose texts are never transcripts.
        beside: standard name → column of what belongs to the prompt, or shows that a row cannot be used.
        lists: columns whose cells may be lists that are written as text.
        adapt: brings a row of a public set into columns of texts.
    """

    prompt: str | None
    answers: tuple[str, ...]
    numbered: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    adapt: Callable[[Row], Row] | None = None

    def read(self, raw: Row, answer: str) -> Conversation:
        """The conversation that an answer's column of a row holds.

        Raises:
            DropError: it cannot be used.
        """
        row = self.adapt(raw) if self.adapt else raw
        beside = {name: row.get(column) for name, column in self.beside.items()}
        check_readable(beside)
        value = self._cell(row, answer)
        if self.prompt is None:
            prompt, text = _whole(value)
            return Conversation(with_context(prompt, beside), text)
        prompt, text = self._answered(self._cell(row, self.prompt), value)
        finished = raw.get("finished") is not False  # as `generations.jsonl` marks an answer that was cut off
        return Conversation(with_context(prompt, beside), text, finished)

    def _cell(self, row: Row, column: str) -> object:
        return read_written(row.get(column)) if column in self.lists else row.get(column)

    def _answered(self, prompt: object, value: object) -> tuple[Turns, str]:
        if isinstance(value, str) and not value.strip():  # a policy may answer with nothing
            return prompt_turns(prompt), value
        if self.numbered:
            return responses_to(prompt, value)[0]
        if are_texts(value):
            raise DropError("several answers in a cell")
        return continued_answer(value, prompt_turns(prompt))


def _layout(path: Path, found: Sequence[str], columns: Mapping[str, str], rows: Sequence[Row]) -> _Layout:
    known = None if columns else known_set(found, lambda names: rows[0])
    layout = _plain(path, found, columns) if known is None else _known(known)
    names = {"prompt": layout.prompt} if layout.prompt else {}
    looked_at = [column for column in (*names.values(), *layout.answers) if column in found and not layout.adapt]
    lists = layout.lists | columns_of_lists(rows[:LOOKED_AT], looked_at, layout.prompt)
    return replace(layout, lists=lists, beside=used_beside(names, found, {}) | dict(layout.beside))


def _known(known: KnownSet) -> _Layout:
    """A public set's own columns, or those that its rows are brought into."""
    names = {name: known.names.get(name, name) for name in known.shape.columns}
    return _Layout(
        prompt=names[known.shape.prompt] if known.shape.prompt else None,
        answers=tuple(names[name] for name in known.shape.answer_names),
        numbered=bool(known.shape.answers),
        lists=frozenset(names[name] for name in known.lists),
        adapt=known.adapt,
    )


def _plain(path: Path, found: Sequence[str], columns: Mapping[str, str]) -> _Layout:
    """The columns that the user names, or that have one of the usual names."""
    for standard, own in columns.items():
        if standard not in STANDARD:
            raise DataError(f"--column {standard}={own}: {nearest(standard, STANDARD, what='column')}")
        if own not in found:
            raise DataError(f"{path}: no column {own!r}. {nearest(own, found, what='column')}")
    whole = [columns["messages"]] if "messages" in columns else [name for name in CONVERSATIONS if name in found]
    if whole:
        return _Layout(None, (whole[0],))
    prompts = [columns["prompt"]] if "prompt" in columns else [name for name in PROMPTS if name in found]
    if len(prompts) > 1:
        raise DataError(
            f"{path}: {' and '.join(prompts)} could each be the prompt", fix=f"--column prompt={prompts[0]}"
        )
    pairs = [(columns.get(a, a), columns.get(b, b)) for a, b in PAIRS]
    both = next((pair for pair in pairs if set(pair) <= set(found)), None)
    if both is not None and not prompts:
        return _Layout(None, both)
    answers = [columns["response"]] if "response" in columns else [name for name in ANSWERS if name in found]
    if not prompts or not (both or answers):
        raise DataError(
            f"{path}: its columns ({', '.join(found)}) hold no prompts with answers. Accepted: messages; a prompt with "
            f"{' or '.join(ANSWERS)}; a prompt with response_1 and response_2, or chosen and rejected",
            fix="say which column is which, for example --column prompt=COLUMN --column response=COLUMN",
        )
    if "response" not in columns and both is not None:
        return _Layout(prompts[0], both, numbered=both == pairs[0])
    if len(answers) > 1:
        raise DataError(
            f"{path}: {' and '.join(answers)} could each be the answer", fix=f"--column response={answers[0]}"
        )
    return _Layout(prompts[0], (answers[0],))


def _whole(value: object) -> tuple[Turns, str]:
    if value is None:
        raise DropError("null cell")
    try:
        return whole_conversation(value)
    except DataError:
        raise DropError("not a list of turns") from None


def _gold_of(row: Row) -> Gold | None:
    answer = gold_answer(row.get("gold"))
    return None if answer is None else Gold(answer, gold_candidates(row.get("candidates")))
