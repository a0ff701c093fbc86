"""The course's own two result files, each a JSON list.

`Rm_model_mark_on_val_1k.json`: one `Mark` per validation pair, by the suite's first reward model (its judge, if it has
no other; not written without either).

`Response_of_<METHOD>_n_Ori_val_with_rm.json`: one `Response` per prompt (and sample), for every policy, with its score
by the main judge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from align_bench.metrics.finite import is_finite
from align_bench.records import CellId, Generation, PairTexts
from align_bench.report.files import json_ready, unicode, write_pieces
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Report, Result
from align_bench.suite.names import JUDGE_CELL

MARKS = "Rm_model_mark_on_val_1k.json"
RESPONSES = "Response_of_{}_n_Ori_val_with_rm.json"
LONGEST = 120  # characters of what tells the files of responses apart


@dataclass(frozen=True, slots=True)
class Mark:
    """How a reward model scores a validation pair.

    Attributes:
        pair: the row's number in its source.
        question: the prompt.
        chosen, rejected: the answer that the data prefers, and the other.
        chosen_score, rejected_score: their scores; None where there is none.
        choice: which of them the model scores higher; None without both scores.
        correct: whether the choice is the data's; None for a tie.
        higher_score: the pair's entry in the group of correct or of wrong scores.
        model: the reward model's cell.
    """

    pair: int
    question: str
    chosen: str
    rejected: str
    chosen_score: float | None
    rejected_score: float | None
    choice: Literal["chosen", "rejected", "tie"] | None
    correct: bool | None
    higher_score: float | None
    model: str


@dataclass(frozen=True, slots=True)
class Response:
    """A policy's answer beside the base's.

    Attributes:
        prompt_id, sample: which answer to which prompt.
        question: the prompt.
        response, score: the policy's answer, and its score by the main judge; None without a judge.
        ori_response, ori_score: the same of the base; None without an answer of the base.
        judge: the judge's name; None without a judge.
        model: the policy's cell.
    """

    prompt_id: int
    sample: int
    question: str
    response: str
    score: float | None
    ori_response: str | None
    ori_score: float | None
    judge: str | None
    model: str


def write_course_files(
    folder: Path,
    report: Report,
    scores: Sequence[ScoreRow],
    generations: Sequence[Generation],
    pairs: Sequence[PairTexts],
) -> None:
    """Write both kinds of files, each atomically, and remove those that only an earlier report had."""
    made: dict[str, Sequence[Mark] | Sequence[Response]] = {}
    if (model := marked_by(report.results)) is not None and pairs:
        made[MARKS] = marks(model, scores, pairs)
    answers: dict[str, list[Generation]] = {}
    for answer in generations:
        answers.setdefault(unicode(answer.cell), []).append(answer)  # as a report calls it
    original = [answer for result in report.results if result.kind == "base" for answer in answers.get(result.name, [])]
    judge = report.policies.judge
    for result in report.results:
        if result.kind != "base" and result.name in answers:
            made[_free_name(result.cell, made)] = responses(result.name, answers[result.name], original, judge)
    for name, rows in made.items():
        write_pieces(folder / name, _list_of(rows))
    for path in [*folder.glob(MARKS), *folder.glob(RESPONSES.format("*"))]:
        if path.name not in made:
            path.unlink()


def _list_of(rows: Sequence[Mark] | Sequence[Response]) -> Iterator[str]:
    """The rows as a JSON list, which a row at a time is written of; as `json.dumps` writes it with an indent of 1.

    Asked for an indent it takes its slow encoder. No field holds a list or an object, so that a separator does as well.
    """
    encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",\n  ", ": ")).encode
    before = "[\n "
    for row in rows:
        fields_of_row = encoded(json_ready(row))[1:-1]
        yield f"{before}{{\n  {fields_of_row}\n }}"
        before = ",\n "
    yield "\n]\n" if rows else "[]\n"


def marked_by(results: Sequence[Result]) -> str | None:
    """The cell of the first finished reward model of the suite's methods, else of its judge; None without either."""
    done = [result for result in results if result.kind == "reward" and result.status == "done"]
    return next((result.name for result in sorted(done, key=lambda result: result.algorithm == JUDGE_CELL)), None)


def marks(model: str, scores: Sequence[ScoreRow], pairs: Sequence[PairTexts]) -> list[Mark]:
    """A model's scores of every validation pair, in the pairs' order."""
    own = {row.pair: row for row in scores if unicode(row.cell) == model}
    return [_mark(model, pair, own[pair.pair]) for pair in pairs if pair.pair in own]


def responses(
    cell: str, answers: Sequence[Generation], original: Sequence[Generation], judge: str | None
) -> list[Response]:
    """A policy's answers beside the base's.

    Args:
        cell: the policy.
        answers: its answers.
        original: those of the base.
        judge: whose scores are shown.
    """
    of_base = {(answer.prompt_id, answer.sample): answer for answer in original}
    rows = []
    for answer in answers:
        other = of_base.get((answer.prompt_id, answer.sample))
        rows.append(
            Response(
                prompt_id=answer.prompt_id,
                sample=answer.sample,
                question=answer.prompt,
                response=answer.text,
                score=answer.scores.get(judge) if judge else None,
                ori_response=other.text if other else None,
                ori_score=other.scores.get(judge) if other and judge else None,
                judge=judge,
                model=cell,
            )
        )
    return rows


def _mark(model: str, pair: PairTexts, row: ScoreRow) -> Mark:
    chosen, rejected = row.chosen_reward, row.rejected_reward
    choice: Literal["chosen", "rejected", "tie"] | None = None
    higher = None
    if chosen is not None and rejected is not None and is_finite(chosen) and is_finite(rejected):
        choice = "tie" if chosen == rejected else "chosen" if chosen > rejected else "rejected"
        higher = None if choice == "tie" else max(chosen, rejected)
    return Mark(
        pair=pair.pair,
        question=pair.prompt,
        chosen=pair.chosen,
        rejected=pair.rejected,
        chosen_score=chosen,
        rejected_score=rejected,
        choice=choice,
        correct=None if choice in (None, "tie") else choice == "chosen",
        higher_score=higher,
        model=model,
    )


def _free_name(cell: CellId, taken: Mapping[str, object]) -> str:
    """A file name for a cell: the method in capitals, then what tells its cells apart; safe on every file system."""
    parameters = [f"{name}={value}" for name, value in cell.parameters]
    seed = [] if cell.seed is None else [str(cell.seed)]
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "_", "_".join([cell.name.upper(), *parameters, *seed])).strip("_")
    name = RESPONSES.format(safe[:LONGEST])
    if len(safe) <= LONGEST and name not in taken:
        return name
    digest = hashlib.sha256(str(cell).encode("utf-8", "replace")).hexdigest()[:8]
    return RESPONSES.format(f"{safe[:100]}_{digest}")
