"""The rows that a report is computed from, as its folder holds them: one type per file, which writes and reads it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from align_bench.errors import MissingResultError, StoreError
from align_bench.report.files import unicode
from align_bench.store.files import replacing
from align_bench.store.keys import file_digest

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import ValidationError

Side = Literal["chosen", "rejected"]
Row = TypeVar("Row")
CHECKSUMS = "checksums.json"
REBUILD = "rebuild it with `align-bench run`"
ROWS_AT_ONCE = 2**16  # that are columns in memory while they are written


@dataclass(frozen=True, slots=True)
class AttackedScores:
    """A reward model's scores of a pair under an attack on the input embeddings.

    Attributes:
        epsilon: norm of the attack's step, × the norm of the embeddings.
        chosen_reward, rejected_reward: the scores, no unit.
    """

    epsilon: float
    chosen_reward: float | None
    rejected_reward: float | None


class ScoredAnswer(NamedTuple):
    """One answer of a validation pair under one cell: `ScoreRow`'s columns of its side.

    A report makes each of them a dozen times, which is why it is no dataclass.
    """

    reward: float | None
    tokens: int | None
    words: int | None
    grade: float | None
    logp: float | None
    ref_logp: float | None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A validation pair under one cell: a row of `scores.parquet`.

    Attributes:
        cell, algorithm, seed: whose: the result's `name`, `algorithm` and `seed`.
        pair: the row's number in its source.
        chosen_reward, rejected_reward: the cell's own reward of both answers, in its unit.
        chosen_tokens, rejected_tokens: response tokens.
        gold_choice: 1 when the chosen answer alone is right, 2 when the rejected one is, else None.
        chosen_logp, rejected_logp: sums of response log-probabilities, nats; None of a reward model.
        ref_chosen_logp, ref_rejected_logp: the same under the base; None of a reward model.
        chosen_words, rejected_words: words.
        prompt_id: number of the first pair with the same prompt.
        chosen_grade, rejected_grade: Flesch–Kincaid grades; None where undefined.
        attacked: scores under attack, by the size of the attack.
    """

    cell: str
    algorithm: str
    seed: int
    pair: int
    chosen_reward: float | None
    rejected_reward: float | None
    chosen_tokens: int | None = None
    rejected_tokens: int | None = None
    gold_choice: int | None = None
    chosen_logp: float | None = None
    rejected_logp: float | None = None
    ref_chosen_logp: float | None = None
    ref_rejected_logp: float | None = None
    chosen_words: int | None = None
    rejected_words: int | None = None
    prompt_id: int | None = None
    chosen_grade: float | None = None
    rejected_grade: float | None = None
    attacked: tuple[AttackedScores, ...] = ()

    @property
    def prompt(self) -> tuple[str, int]:
        """What pairs of one prompt share; a pair whose prompt is not known is its own."""
        return ("pair", self.pair) if self.prompt_id is None else ("prompt", self.prompt_id)

    @property
    def chosen(self) -> ScoredAnswer:
        """The preferred answer."""
        return ScoredAnswer(
            self.chosen_reward,
            self.chosen_tokens,
            self.chosen_words,
            self.chosen_grade,
            self.chosen_logp,
            self.ref_chosen_logp,
        )

    @property
    def rejected(self) -> ScoredAnswer:
        """The other answer."""
        return ScoredAnswer(
            self.rejected_reward,
            self.rejected_tokens,
            self.rejected_words,
            self.rejected_grade,
            self.rejected_logp,
            self.ref_rejected_logp,
        )


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An answer of a validation pair under one judge or reward model: a row of `audit.parquet`.

    Attributes:
        scorer: the reward model's name, or the judge's.
        pair, prompt: the row's number in its source, and that of the first one with the same prompt.
        side: which answer of the pair.
        score: its score.
        words, grade, list_items, headings, bold: its form.
        score_plain: its score once more, of the pairs that were scored with other texts: those of drawn prompts.
        score_shuffled, score_empty: its score under another prompt, and under none.
        score_filler, score_doubled, score_stripped: its score after an edit.
    """

    scorer: str
    pair: int
    prompt: int
    side: Side
    score: float | None
    words: float | None = None
    grade: float | None = None
    list_items: float | None = None
    headings: float | None = None
    bold: float | None = None
    score_plain: float | None = None
    score_shuffled: float | None = None
    score_empty: float | None = None
    score_filler: float | None = None
    score_doubled: float | None = None
    score_stripped: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """An optimizer step of one cell: a row of `training.parquet`.

    Attributes:
        cell, algorithm, seed: whose.
        step: 1 and up.
        loss: mean over the effective batch.
        learning_rate: of this step.
        gradient_norm: before clipping.
        seconds: since the training began.
        measures: whatever else the method measures, a column each.
    """

    cell: str
    algorithm: str
    seed: int
    step: int
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    seconds: float | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)


def write_rows(path: Path, rows: Sequence[Row], kind: type[Row]) -> None:
    """Write rows as a Parquet file, atomically; lone surrogates in texts are escaped.

    Args:
        path: the file.
        rows: of one type.
        kind: that type; its fields are the columns. A mapping's entries are columns of their own, after the others.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_field = _open_field(kind)
    types_of = {name: _arrow_type(hint) for name, hint in typing.get_type_hints(kind).items() if name != open_field}
    own = () if open_field is None else dict.fromkeys(name for row in rows for name in getattr(row, open_field))
    schema = pa.schema([*types_of.items(), *((name, pa.float64()) for name in own)])
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as file:
        for start in range(0, max(1, len(rows)), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            columns = [_column([getattr(row, name) for row in some], each) for name, each in types_of.items()]
            entries = [getattr(row, open_field) for row in some] if open_field else []
            columns += [pa.array([entry.get(name) for entry in entries], type=pa.float64()) for name in own]
            file.write_table(pa.table(columns, schema=schema))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a Parquet file that `write_rows` wrote.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read, or holds other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pydantic import TypeAdapter, ValidationError

    try:
        found = pq.read_table(existing(path)).to_pylist()
        if (open_field := _open_field(kind)) is not None:
            known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
            found = [_gathered(row, known, open_field) for row in found]
        return TypeAdapter(list[kind]).validate_python(found)  # type: ignore[valid-type]
    except ValidationError as error:
        raise StoreError(f"{path} is damaged, or of another version: {first_of(error)}", fix=REBUILD) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} is damaged: {error}", fix=REBUILD) from error


def first_of(error: ValidationError) -> str:
    """The first of pydantic's errors, on one line: where it is, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def existing(path: Path) -> Path:
    """The path of a file of a report, as it was written.

    Raises:
        MissingResultError: no such file.
        StoreError: it was changed since.
    """
    if not path.is_file():
        raise MissingResultError(f"There is no {path.name} in {path.parent}.", fix="align-bench run SUITE")
    known = checksums(path.parent).get(path.name)
    if known is not None and file_digest(path) != known:
        raise StoreError(f"{path} was changed after it was written: its checksum is another one", fix=REBUILD)
    return path


def checksums(folder: Path) -> Mapping[str, str]:
    """File → sha256 of a report's folder when it was written; nothing of a published report, which has none.

    Raises:
        StoreError: they cannot be read.
    """
    path = folder / CHECKSUMS
    try:
        found = json.loads(path.read_bytes())
        return {str(name): str(digest) for name, digest in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}", fix=REBUILD) from error


def _gathered(row: Mapping[str, float | None], known: Iterable[str], open_field: str) -> dict[str, object]:
    own = {name: value for name, value in row.items() if name in known}
    more = {name: value for name, value in row.items() if name not in own and value is not None}
    return {**own, open_field: more}


def _open_field(kind: type) -> str | None:
    """The field whose entries are columns of their own."""
    hints = typing.get_type_hints(kind)
    return next((name for name, hint in hints.items() if typing.get_origin(hint) is Mapping), None)


def _column(values: list[object], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array(values if pa.types.is_primitive(kind) else map(_plain, values), type=kind)


def _plain(value: object) -> object:
    if isinstance(value, str):
        return unicode(value)
    if isinstance(value, tuple):
        return [{each.name: getattr(item, each.name) for each in fields(item)} for item in value]
    return value


def _arrow_type(hint: object) -> pa.DataType:
    """A column's type; every column may hold nulls."""
    import pyarrow as pa

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (hint,) = (each for each in arguments if each is not type(None))
        return _arrow_type(hint)
    if origin is tuple:  # of records
        members = typing.get_type_hints(arguments[0])
        return pa.list_(pa.struct([(name, _arrow_type(member)) for name, member in members.items()]))
    if origin is Literal:
        return pa.string()
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[hint]  # type: ignore[index]
