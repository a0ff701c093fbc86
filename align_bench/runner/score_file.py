"""`align-bench score`: any file of prompts with answers, scored by a judge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from align_bench.data.answers import AnswerFile, check_free, scored_path, write_scores
from align_bench.data.planted import is_right
from align_bench.errors import DataError, ModelError, SuiteError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import load_judge
from align_bench.judge.reward_model import Scorer
from align_bench.metrics.accuracy import accuracy
from align_bench.models.base import template_inputs
from align_bench.models.micro_batches import scoring_tokens
from align_bench.models.precision import find_device, resolve_precision
from align_bench.records import Json, Update
from align_bench.report.formatting import number, one_line, with_spread
from align_bench.runner.results import only_tried_out
from align_bench.runner.stored_judge import find_run, stored_scorer
from align_bench.store.store import Store
from align_bench.suite.models import GOLD, LoadedJudge
from align_bench.suite.names import TRIED_OUT

Scores = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Scored:
    """A scored file.

    Attributes:
        file: the file.
        out: where it was written with its scores.
        judge: what the judge is called.
        scores: new column → one score per row; None where the row could not be scored.
        truncated: answers that were truncated because they are too long.
    """

    file: AnswerFile
    out: Path
    judge: str
    scores: Scores
    truncated: int


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """Which judge scores, and how it is loaded.

    Attributes:
        judge: `gold`; a suite that was run, as `SUITE` or `SUITE:JUDGE`; or a hub id or folder of a model.
        revision, template, chat_template_kwargs, date: of a hub model or folder, as in a suite's judge.
        precision: `auto`, `fp32`, `bf16` or `nf4`; None for the run's own, and `auto` for other models.
        max_tokens: padded tokens per forward pass, None for the device's default; it changes no score.
    """

    judge: str
    revision: str | None = None
    template: Literal["chat", "pair"] | None = None
    precision: str | None = None
    max_tokens: int | None = None
    chat_template_kwargs: Mapping[str, Json] = field(default_factory=dict)
    date: str | None = None


def score_file(
    file: AnswerFile, choice: JudgeChoice, *, runs: Path, out: Path | None, name: str, update: Update
) -> Scored:
    """Score every answer of a file, and write the file with its scores beside it.

    Args:
        file: from `data.answers.read_answers`.
        choice: the judge.
        runs: the folder of what has been computed.
        out: where to write; None for `FILE.scored.jsonl` (or `.parquet`) beside the file.
        name: the new column; where a row has two answers, `NAME_COLUMN`.
        update: progress, in answers.

    Raises:
        AlignBenchError: for anything that the user has to mend first.
    """
    names = {column: name if len(file.answers) == 1 else f"{name}_{column}" for column in file.answers}
    check_free(file, list(names.values()))
    out = out or scored_path(file)
    if choice.judge == GOLD:
        scores: Scores = {names[column]: _gold(file, column) for column in file.answers}
        truncated, called = 0, GOLD
    else:
        scorer, called = _find(choice, runs)
        scores, truncated = _scored(file, names, scorer, scoring_tokens(choice.max_tokens, find_device()), update)
    write_scores(file, out, scores)
    return Scored(file, out, called, scores, truncated)


def summary(scored: Scored) -> list[RenderableType]:
    """What is printed about it."""
    table = Table(title=Text(f"{scored.file.path.name}, scored by {one_line(scored.judge)}"), title_justify="left")
    for heading in ("column", "scored", "mean", "std", "min", "median", "max"):
        table.add_column(heading, justify="left" if heading == "column" else "right")
    for name, values in scored.scores.items():
        known = [value for value in values if value is not None]
        spread = statistics.stdev(known) if len(known) > 1 else None
        shown = [statistics.fmean(known), spread, min(known), statistics.median(known), max(known)] if known else []
        table.add_row(Text(one_line(name)), f"{len(known):,} of {len(values):,}", *map(number, shown))
    lines: list[RenderableType] = [table]
    if {"chosen", "rejected"} == set(scored.file.answers):
        right = accuracy(*scored.scores.values())
        lines.append(Text(f"chosen above rejected: {with_spread(right)} (n = {right.n}; a tie counts as ½)"))
    if scored.file.dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(scored.file.dropped.items()))
        lines.append(Text(f"not scored: {reasons}"))
    if scored.truncated:
        lines.append(Text(f"truncated because they are too long: {scored.truncated:,}"))
    return [*lines, Text(f"written: {scored.out}")]


def _find(choice: JudgeChoice, runs: Path) -> tuple[Scorer, str]:
    """The judge, and what it is called."""
    if (found := find_run(choice.judge, runs)) is not None:
        stored = stored_scorer(*found, choice.precision)
        if choice.chat_template_kwargs or choice.date:
            raise SuiteError(
                f"{choice.judge}: a judge of a run reads texts as in that run",
                fix="leave --chat-template-kwargs and --date out",
            )
        return stored, f"{stored.name} of {stored.run.suite}"
    judge = _entry(choice)
    try:
        base = find_judge(judge)
    except ModelError as error:
        if Path(choice.judge).exists():
            raise
        suite = choice.judge.partition(":")[0]
        tried = f"{suite}{TRIED_OUT}, " if only_tried_out(Store(runs), suite) else ""
        raise ModelError(
            f"{error.message}; nor is there a run of this name in {runs}",
            fix=f"name {tried}a suite that was run (or SUITE:JUDGE), a hub id, a model's folder, or gold",
        ) from None
    inputs = template_inputs(base, judge.chat_template_kwargs, judge.date)
    return load_judge(base, resolve_precision(choice.precision or "auto"), choice.template, inputs), base.name


def _entry(choice: JudgeChoice) -> LoadedJudge:
    """The judge as a suite would say it."""
    said = {
        "model": choice.judge,
        "revision": choice.revision,
        "template": choice.template,
        "chat_template_kwargs": choice.chat_template_kwargs,
        "date": choice.date,
    }
    try:
        return LoadedJudge.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise SuiteError(f"--{option}: got {first['input']!r}; {first['msg'].removeprefix('Value error, ')}") from None


def _scored(
    file: AnswerFile, names: Mapping[str, str], scorer: Scorer, max_tokens: int, update: Update
) -> tuple[Scores, int]:
    places = [
        (column, row) for column, answers in file.answers.items() for row, one in enumerate(answers) if one is not None
    ]
    texts = [one for answers in file.answers.values() for one in answers if one is not None]
    found, truncated = scorer(texts, max_tokens=max_tokens, update=update)
    scores: dict[str, list[float | None]] = {names[column]: [None] * len(file.rows) for column in file.answers}
    for (column, row), value in zip(places, found, strict=True):
        scores[names[column]][row] = value if math.isfinite(value) else None
    return scores, truncated


def _gold(file: AnswerFile, column: str) -> list[float | None]:
    """1 for a right answer, 0 for a wrong one, None where the row has no gold answer."""
    if not any(file.gold):
        raise DataError(
            f"{file.path}: the judge gold needs a column gold (and candidates), which is missing", fix="name a model"
        )
    return [
        None if gold is None or one is None else float(is_right(one.answer, gold.answer, gold.candidates))
        for one, gold in zip(file.answers[column], file.gold, strict=True)
    ]
