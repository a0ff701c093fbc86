"""Readers of prompts with answers, to be scored: any JSONL or Parquet file, in one of several shapes.

The shape is recognised by the columns:

* `messages` (or `conversation`, `conversations`): whole conversations that end with the assistant's turn;
* a prompt (`prompt`, `question`, `query`, `instruction`) with two answers: `response_1` and `response_2`, or `chosen`
  and `rejected`;
* `chosen` and `rejected` alone: whole conversations, two per row;
* a prompt with one answer (`response`, `completion`, `answer`, `output`, or `text`, as in `generations.jsonl`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_bench.data.fields import (
    DropError,
    continued_answer,
    gold_answer,
    gold_candidates,
    prompt_turns,
    whole_conversation,
)
from align_bench.data.tables import read_table
from align_bench.errors import DataError, nearest
from align_bench.records import Conversation
from align_bench.store.files import replacing

PROMPTS = ("prompt", "question", "query", "instruction")
CONVERSATIONS = ("messages", "conversation", "conversations")
PAIRS = (("response_1", "response_2"), ("chosen", "rejected"))
ANSWERS = ("response", "completion", "answer", "output", "text")
STANDARD = ("prompt", "messages", "response", *PAIRS[0], *PAIRS[1])

Row = Mapping[str, object]

_SUFFIXES = (".jsonl", ".parquet")  # whose rows can be written again as they were


@dataclass(frozen=True, slots=True)
class Gold:
    """What the gold judge knows of a row: the right answer, and its rivals."""

    answer: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file of prompts with answers.

    Attributes:
        path: the file.
        rows: its rows, all columns.
        answers: column of answers → the conversation of each row; None where the row cannot be used.
        gold: what the gold judge knows of each row; None where there is nothing.
        dropped: reason → conversations that cannot be used.
    """

    path: Path
    rows: Sequence[Row]
    answers: Mapping[str, Sequence[Conversation | None]]
    gold: Sequence[Gold | None]
    dropped: Mapping[str, int]


def read_answers(path: Path, columns: Mapping[str, str] | None = None) -> AnswerFile:
    """Read prompts with answers; a row that cannot be used is kept, and counted under its reason.

    Args:
        path: a `.jsonl` or `.parquet` file.
        columns: standard column (`prompt`, `messages`, `response`, `response_1`, …) → the file's name for it.

    Raises:
        DataError: the file is missing, unreadable, of no known shape, or holds no usable row.
    """
    rows = _rows(path)
    found = list(dict.fromkeys(name for row in rows for name in row))
    readers = _readers(path, found, columns or {})
    dropped: Counter[str] = Counter()

    def read(reader: Callable[[Row], Conversation], row: Row) -> Conversation | None:
        try:
            return reader(row)
        except DropError as drop:
            dropped[str(drop)] += 1
            return None

    answers = {name: [read(reader, row) for row in rows] for name, reader in readers.items()}
    if not any(one is not None for column in answers.values() for one in column):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(f"{path}: none of its {len(rows)} rows can be scored: {reasons}.")
    return AnswerFile(path, rows, answers, [_gold_of(row) for row in rows], dict(dropped))


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


def _rows(path: Path) -> Sequence[Row]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path}: got the suffix {path.suffix or '(none)'}; expected .jsonl or .parquet")
    table = read_table(path, str(path))
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

    if file.path.suffix == ".parquet":  # types stay as they are
        table = pyarrow.parquet.read_table(file.path)
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


def _readers(path: Path, found: Sequence[str], columns: Mapping[str, str]) -> dict[str, Callable[[Row], Conversation]]:
    """Column of answers → what reads it from a row."""
    for standard, own in columns.items():
        if standard not in STANDARD:
            raise DataError(f"--column {standard}={own}: {nearest(standard, STANDARD, what='column')}")
        if own not in found:
            raise DataError(f"{path}: no column {own!r}. {nearest(own, found, what='column')}")
    whole = [columns["messages"]] if "messages" in columns else [name for name in CONVERSATIONS if name in found]
    if whole:
        return {whole[0]: lambda row: _whole(row.get(whole[0]))}
    prompts = [columns["prompt"]] if "prompt" in columns else [name for name in PROMPTS if name in found]
    if len(prompts) > 1:
        raise DataError(
            f"{path}: {' and '.join(prompts)} could each be the prompt", fix=f"--column prompt={prompts[0]}"
        )
    pairs = [(columns.get(a, a), columns.get(b, b)) for a, b in PAIRS]
    both = next((pair for pair in pairs if set(pair) <= set(found)), None)
    if both is not None and not prompts:
        return {name: _whole_in(name) for name in both}
    answers = [columns["response"]] if "response" in columns else [name for name in ANSWERS if name in found]
    if not prompts or not (both or answers):
        raise DataError(
            f"{path}: its columns ({', '.join(found)}) hold no prompts with answers. Accepted: messages; a prompt with "
            f"{' or '.join(ANSWERS)}; a prompt with response_1 and response_2, or chosen and rejected",
            fix="say which column is which, for example --column prompt=COLUMN --column response=COLUMN",
        )
    if "response" not in columns and both is not None:
        return {name: _answer_in(prompts[0], name) for name in both}
    if len(answers) > 1:
        raise DataError(
            f"{path}: {' and '.join(answers)} could each be the answer", fix=f"--column response={answers[0]}"
        )
    return {answers[0]: _answer_in(prompts[0], answers[0])}


def _whole_in(name: str) -> Callable[[Row], Conversation]:
    return lambda row: _whole(row.get(name))


def _whole(value: object) -> Conversation:
    if value is None:
        raise DropError("null cell")
    try:
        return Conversation(*whole_conversation(value))
    except DataError:
        raise DropError("not a list of turns") from None


def _answer_in(prompt: str, answer: str) -> Callable[[Row], Conversation]:
    def read(row: Row) -> Conversation:
        turns, value = prompt_turns(row.get(prompt)), row.get(answer)
        finished = row.get("finished") is not False  # as `generations.jsonl` marks an answer that was cut off
        if isinstance(value, str) and not value.strip():  # a policy may answer with nothing
            return Conversation(turns, value, finished)
        return Conversation(*continued_answer(value, turns), finished)

    return read


def _gold_of(row: Row) -> Gold | None:
    answer = gold_answer(row.get("gold"))
    return None if answer is None else Gold(answer, gold_candidates(row.get("candidates")))
