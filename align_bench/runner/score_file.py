"""`align-bench score`: any file of prompts with answers, scored by a judge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from align_bench.data.answers import AnswerFile, check_free, read_answers, write_scores
from align_bench.data.planted import is_right
from align_bench.errors import DataError, ModelError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import load_judge
from align_bench.judge.reward_model import Scorer
from align_bench.metrics.accuracy import accuracy
from align_bench.models.precision import resolve_precision
from align_bench.records import Tick
from align_bench.report.formatting import number, one_line, with_spread
from align_bench.runner.stored_judge import find_run, stored_scorer
from align_bench.suite.models import GOLD, LoadedJudge

Scores = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring a file came to.

    Attributes:
        file: the file.
        out: where it was written with its scores.
        judge: the judge, in words.
        scores: new column → one score per row; None where the row could not be scored.
        cut: answers that were cut because they are too long.
    """

    file: AnswerFile
    out: Path
    judge: str
    scores: Scores
    cut: int


def score_file(
    path: Path,
    judge: str,
    *,
    runs: Path,
    out: Path | None,
    columns: Mapping[str, str],
    name: str,
    revision: str | None,
    template: Literal["chat", "pair"] | None,
    precision: str | None,
    max_tokens: int,
    tick: Tick,
) -> Scored:
    """Score every answer of a file, and write the file with its scores beside it.

    Args:
        path: a `.jsonl` or `.parquet` file.
        judge: `gold`; a suite that was run, as `SUITE` or `SUITE:JUDGE`; or a hub id or folder of a model.
        runs: the folder of what has been computed.
        out: where to write; None for `FILE.scored.SUFFIX` beside the file.
        columns: standard column → the file's own.
        name: the new column; where a row has two answers, `NAME_COLUMN`.
        revision, template: of a hub model or folder, as in a suite's judge.
        precision: `auto`, `fp32`, `bf16` or `nf4`; None for the run's own, and `auto` for other models.
        max_tokens: padded tokens per forward pass; it changes no score.
        tick: progress, in answers.

    Raises:
        AlignBenchError: for anything that the user has to mend first.
    """
    file = read_answers(path, columns)
    names = {column: name if len(file.answers) == 1 else f"{name}_{column}" for column in file.answers}
    check_free(file, list(names.values()))
    out = out or path.with_name(f"{path.stem}.scored{path.suffix}")
    if judge == GOLD:
        scores: Scores = {names[column]: _gold(file, column) for column in file.answers}
        cut, called = 0, GOLD
    else:
        scorer, called = _find(judge, runs, revision, template, precision)
        scores, cut = _scored(file, names, scorer, max_tokens, tick)
    write_scores(file, out, scores)
    return Scored(file, out, called, scores, cut)


def summary(scored: Scored) -> list[RenderableType]:
    """What is printed of it."""
    table = Table(title=Text(f"{scored.file.path.name}, scored by {one_line(scored.judge)}"), title_justify="left")
    for heading in ("column", "scored", "mean", "std", "least", "median", "most"):
        table.add_column(heading, justify="left" if heading == "column" else "right")
    for name, values in scored.scores.items():
        known = [value for value in values if value is not None]
        spread = statistics.stdev(known) if len(known) > 1 else None
        shown = [statistics.fmean(known), spread, min(known), statistics.median(known), max(known)] if known else []
        table.add_row(Text(one_line(name)), f"{len(known):,} of {len(values):,}", *map(number, shown))
    lines: list[RenderableType] = [table]
    if {"chosen", "rejected"} == set(scored.file.answers):
        right = accuracy(*scored.scores.values())
        lines.append(Text(f"chosen above rejected: {with_spread(asdict(right))} (n = {right.n}; a tie counts ½)"))
    if scored.file.dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(scored.file.dropped.items()))
        lines.append(Text(f"not scored: {reasons}"))
    if scored.cut:
        lines.append(Text(f"cut because they are too long: {scored.cut:,}"))
    return [*lines, Text(f"written: {scored.out}")]


def _find(
    judge: str, runs: Path, revision: str | None, template: Literal["chat", "pair"] | None, precision: str | None
) -> tuple[Scorer, str]:
    """The judge, and what it is called."""
    if (found := find_run(judge, runs)) is not None:
        stored = stored_scorer(*found, precision)
        return stored, f"{stored.name} of {stored.run.suite}"
    try:
        base = find_judge(LoadedJudge(model=judge, revision=revision, template=template))
    except ModelError as error:
        raise ModelError(
            f"{error.message}; nor is there a run of this name in {runs}",
            fix="name a suite that was run (or SUITE:JUDGE), a hub id, a model's folder, or gold",
        ) from None
    return load_judge(base, resolve_precision(precision or "auto"), template), base.name


def _scored(
    file: AnswerFile, names: Mapping[str, str], scorer: Scorer, max_tokens: int, tick: Tick
) -> tuple[Scores, int]:
    places = [
        (column, row) for column, answers in file.answers.items() for row, one in enumerate(answers) if one is not None
    ]
    texts = [one for answers in file.answers.values() for one in answers if one is not None]
    found, cut = scorer(texts, max_tokens=max_tokens, tick=tick)
    scores: dict[str, list[float | None]] = {names[column]: [None] * len(file.rows) for column in file.answers}
    for (column, row), value in zip(places, found, strict=True):
        scores[names[column]][row] = value if math.isfinite(value) else None
    return scores, cut


def _gold(file: AnswerFile, column: str) -> list[float | None]:
    """1 for a right answer, 0 for a wrong one, None where the row has no gold answer."""
    if not any(file.gold):
        raise DataError(
            f"{file.path}: the judge gold needs a column gold (and candidates), and there is none", fix="name a model"
        )
    return [
        None if gold is None or one is None else float(is_right(one.answer, gold.answer, gold.candidates))
        for one, gold in zip(file.answers[column], file.gold, strict=True)
    ]
