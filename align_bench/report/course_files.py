"""The course's own two result files, each a JSON list.

`Rm_model_mark_on_val_1k.json`, an object a validation pair, by the suite's first reward model (its judge, if it has no
other; not written without either): `pair`, `question`, `chosen`, `rejected` (the answer that the data prefers, and the
other), `chosen_score`, `rejected_score`, `choice` (`chosen`, `rejected` or `tie`: which the model scores higher; null
without both scores), `correct` (whether the choice is the data's; null for a tie), `higher_score` (the pair's entry in
the group of correct or of wrong scores), `model` (the cell).

`Response_of_<METHOD>_n_Ori_val_with_rm.json`, an object a prompt (and sample), for every policy: `prompt_id`,
`sample`, `question`, `response` and `score` (the method's answer and the judge's score of it), `ori_response` and
`ori_score` (the base's), `judge`, `model` (the cell). Scores are null without a judge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align_bench.metrics.finite import is_finite
from align_bench.records import Generation, PairTexts
from align_bench.report.cells import judges_of
from align_bench.report.files import json_ready, write_text
from align_bench.suite.names import JUDGE_CELL

MARKS = "Rm_model_mark_on_val_1k.json"
RESPONSES = "Response_of_{}_n_Ori_val_with_rm.json"


def write_course_files(
    folder: Path,
    report: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    generations: Sequence[Generation],
    pairs: Sequence[PairTexts],
) -> None:
    """Write both kinds of files, each atomically, and remove those that only an earlier report had."""
    made: dict[str, list[dict[str, Any]]] = {}
    if (model := marked_by(report["results"])) is not None and pairs:
        made[MARKS] = marks(model, scores, pairs)
    for cell in dict.fromkeys(answer.cell for answer in generations):
        if cell not in _bases(report["results"]):
            made[_free_name(cell, made)] = responses(cell, _bases(report["results"]), generations)
    for name, rows in made.items():
        write_text(folder / name, json.dumps(json_ready(rows), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    for path in [*folder.glob(MARKS), *folder.glob(RESPONSES.format("*"))]:
        if path.name not in made:
            path.unlink()


def marked_by(results: Sequence[Mapping[str, Any]]) -> str | None:
    """The cell of the first finished reward model of the suite's methods, else of its judge; None without either."""
    done = [one for one in results if one["kind"] == "reward" and one["status"] == "done"]
    return next((one["cell"] for one in sorted(done, key=lambda one: one["algorithm"] == JUDGE_CELL)), None)


def marks(model: str, scores: Sequence[Mapping[str, Any]], pairs: Sequence[PairTexts]) -> list[dict[str, Any]]:
    """A model's scores of every validation pair, in the pairs' order."""
    own = {row["pair"]: row for row in scores if row["cell"] == model}
    return [_mark(model, pair, own[pair.pair]) for pair in pairs if pair.pair in own]


def responses(cell: str, bases: Sequence[str], generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """A policy's answers beside the base's, by the first judge; without an answer of the base its columns are null."""
    judge = next(iter(judges_of(generations)), None)
    original = {(one.prompt_id, one.sample): one for one in generations if one.cell in bases}
    rows = []
    for answer in generations:
        if answer.cell != cell:
            continue
        other = original.get((answer.prompt_id, answer.sample))
        rows.append(
            {
                "prompt_id": answer.prompt_id,
                "sample": answer.sample,
                "question": answer.prompt,
                "response": answer.text,
                "score": answer.scores.get(judge) if judge else None,
                "ori_response": other.text if other else None,
                "ori_score": other.scores.get(judge) if other and judge else None,
                "judge": judge,
                "model": cell,
            }
        )
    return rows


def _mark(model: str, pair: PairTexts, row: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = row["chosen_reward"], row["rejected_reward"]
    known = is_finite(chosen) and is_finite(rejected)
    choice = ("tie" if chosen == rejected else "chosen" if chosen > rejected else "rejected") if known else None
    return {
        "pair": pair.pair,
        "question": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "chosen_score": chosen,
        "rejected_score": rejected,
        "choice": choice,
        "correct": None if choice in (None, "tie") else choice == "chosen",
        "higher_score": None if choice in (None, "tie") else max(chosen, rejected),
        "model": model,
    }


def _bases(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one["cell"] for one in results if one["kind"] == "base"]


def _free_name(cell: str, taken: Mapping[str, Any]) -> str:
    """A file name for a cell: the method in capitals, then what tells its cells apart; safe on every file system."""
    method, bracket, rest = cell.partition("[") if "[" in cell else cell.partition("#")
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "_", method.upper() + bracket + rest).strip("_")
    name = RESPONSES.format(safe[:120])
    if len(safe) <= 120 and name not in taken:
        return name
    return RESPONSES.format(f"{safe[:100]}_{hashlib.sha256(cell.encode('utf-8', 'replace')).hexdigest()[:8]}")
