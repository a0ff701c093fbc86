"""A report's files: written whole or not at all, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from align_bench.errors import StoreError
from align_bench.records import Generation, Outcome, PairTexts, TrainingText
from align_bench.report.claims import claims
from align_bench.report.files import json_line, uncollected, write_pieces, write_text
from align_bench.report.findings import find
from align_bench.report.leaderboard import leaderboard, reward_leaderboard
from align_bench.report.rows import (
    CHECKSUMS,
    REBUILD,
    AuditRow,
    ScoreRow,
    TrainingRow,
    existing,
    first_of,
    read_rows,
    write_rows,
)
from align_bench.report.schema import VERSION, Header, Report, Result
from align_bench.report.verdict import summarise
from align_bench.store.keys import file_digest

REPORT, MARKDOWN, PAGE, FIGURES = "report.json", "report.md", "report.html", "figures"
SCORES, GENERATIONS, TRAINING = "scores.parquet", "generations.jsonl", "training.parquet"
AUDIT, PAIRS, TEXTS = "audit.parquet", "pairs.parquet", "training_texts.parquet"
TESTED = "test_scores.parquet"  # of suites with test pairs
WRITTEN = (REPORT, MARKDOWN, PAGE, SCORES, GENERATIONS, TRAINING, AUDIT, PAIRS, TEXTS)


@dataclass(frozen=True, slots=True)
class ReportRows:
    """The rows that a report is computed from.

    Attributes:
        scores: of `scores.parquet`.
        generations: lines of `generations.jsonl`.
        training: of `training.parquet`.
        audits: of `audit.parquet`.
        pairs: of `pairs.parquet`; without them the course's file of marks is left out.
        texts: of `training_texts.parquet`.
        tested: of `test_scores.parquet`, which is written where there are any.
    """

    scores: Sequence[ScoreRow]
    generations: Sequence[Generation]
    training: Sequence[TrainingRow] = ()
    audits: Sequence[AuditRow] = ()
    pairs: Sequence[PairTexts] = ()
    texts: Sequence[TrainingText] = ()
    tested: Sequence[ScoreRow] = ()


@uncollected()
def write_report(folder: Path, report: Report, rows: ReportRows) -> None:
    """Write a report's folder, each file atomically, `report.json` and the checksums last.

    The rows come first (`scores.parquet`, `pairs.parquet`, `generations.jsonl`, `training.parquet`, `audit.parquet`,
    `training_texts.parquet`), then the course's files and what people read: `tables/`, `figures/`, `report.html` and
    `report.md`.

    Args:
        folder: made if it does not exist.
        report: what `build_report` returned.
        rows: what it was built from.
    """
    from align_bench.report.course_files import write_course_files
    from align_bench.report.render.csv import write_tables

    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / SCORES, rows.scores, ScoreRow)
    write_rows(folder / TRAINING, rows.training, TrainingRow)
    write_rows(folder / AUDIT, rows.audits, AuditRow)
    write_rows(folder / PAIRS, rows.pairs, PairTexts)
    write_rows(folder / TEXTS, rows.texts, TrainingText)
    if rows.tested:
        write_rows(folder / TESTED, rows.tested, ScoreRow)
    else:
        (folder / TESTED).unlink(missing_ok=True)  # of an earlier report
    write_pieces(folder / GENERATIONS, map(json_line, rows.generations))
    write_course_files(folder, report, rows.scores, rows.generations, rows.pairs)
    write_tables(folder, report)
    _write_page(folder, report, rows)
    write_text(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    names = [*WRITTEN, *([TESTED] if rows.tested else [])]
    write_text(folder / CHECKSUMS, json.dumps({name: file_digest(folder / name) for name in names}, indent=1) + "\n")


def _write_page(folder: Path, report: Report, rows: ReportRows) -> None:
    # Drawing and computing take long to import, which reading a report need not wait for.
    from align_bench.report.cells import gather
    from align_bench.report.figures import all_figures
    from align_bench.report.figures.base import Material
    from align_bench.report.plots import standalone
    from align_bench.report.render.html import render_page
    from align_bench.report.render.markdown import render

    cells = gather([outcome_of(result) for result in report.results], rows.scores, rows.generations)
    drawn = all_figures(Material(report, cells, rows.training))
    (folder / FIGURES).mkdir(exist_ok=True)
    for figure in drawn:
        write_text(folder / FIGURES / f"{figure.name}.svg", standalone(figure.svg, figure.alternative))
    for path in (folder / FIGURES).glob("*.svg"):
        if path.stem not in {figure.name for figure in drawn}:  # of an earlier report
            path.unlink()
    write_text(folder / PAGE, render_page(report, cells, drawn, right_answers(rows.pairs)))
    write_text(folder / MARKDOWN, render(report, drawn))


def right_answers(pairs: Iterable[PairTexts]) -> dict[int, str]:
    """Pair → the right answer to its prompt, where the data knows it."""
    return {pair.pair: pair.gold for pair in pairs if pair.gold is not None}


def read_report(folder: Path) -> Report:
    """`report.json` of a report's folder.

    Raises:
        MissingResultError: no report there.
        StoreError: it is damaged, or a report of another version.
    """
    path = existing(folder / REPORT)
    content = path.read_bytes()
    try:
        report = Report.model_validate_json(content, strict=True)
    except ValidationError as error:
        found = _version(content)
        if found == VERSION:
            raise StoreError(f"{path} is damaged: {first_of(error)}", fix=REBUILD) from error
        if found is None:
            raise StoreError(f"{path} is not a report, or is damaged: {first_of(error)}", fix=REBUILD) from error
        which = f"format version {found!r}" if found else "the format before version 1"
        raise StoreError(f"{path} is of {which}, expected {VERSION}", fix=REBUILD) from error
    return report if report.leaderboard or report.reward_leaderboard else _with_leaderboard(report)


def _with_leaderboard(report: Report) -> Report:
    """A report from before there was one, with what its results and comparisons say of it and of its summary."""
    claimed = report.claims or claims(report.results, report.comparisons)
    found = report.model_copy(
        update={
            "claims": claimed,
            "leaderboard": leaderboard(report.results, claimed, report.policies.win_rates),
            "reward_leaderboard": reward_leaderboard(report.results, report.against_longer),
        }
    )
    return found.model_copy(update={"summary": summarise(find(found))})


def _version(content: bytes) -> int | str | None:
    """The version that a report says it is of, `0` where it says none; None where this is no report."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "results" not in found:
        return None
    version: int | str = found.get("version", 0)
    return version


def read_scores(folder: Path) -> list[ScoreRow]:
    """Rows of `scores.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return read_rows(folder / SCORES, ScoreRow)


def read_training(folder: Path) -> list[TrainingRow]:
    """Rows of `training.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return read_rows(folder / TRAINING, TrainingRow)


def read_audits(folder: Path) -> list[AuditRow]:
    """Rows of `audit.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return read_rows(folder / AUDIT, AuditRow)


def read_pairs(folder: Path) -> list[PairTexts]:
    """Rows of `pairs.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return read_rows(folder / PAIRS, PairTexts)


def read_texts(folder: Path) -> list[TrainingText]:
    """Rows of `training_texts.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return read_rows(folder / TEXTS, TrainingText)


def read_generations(folder: Path) -> list[Generation]:
    """Lines of `generations.jsonl`. A null score was not finite, and is read as NaN.

    Raises:
        MissingResultError: no such file.
        StoreError: a line cannot be read.
    """
    path = existing(folder / GENERATIONS)
    adapter = TypeAdapter(Generation)
    answers = []
    with path.open("rb") as lines:
        for count, line in enumerate(lines, start=1):
            try:
                answers.append(adapter.validate_python(_with_nan(json.loads(line))))
            except ValidationError as error:
                raise StoreError(f"{path}, line {count}, is damaged: {first_of(error)}", fix=REBUILD) from error
            except (ValueError, AttributeError, TypeError) as error:
                raise StoreError(f"{path}, line {count}, is damaged: {error}", fix=REBUILD) from error
    return answers


def _with_nan(line: dict[str, object]) -> dict[str, object]:
    return {**line, **{name: _nan_for_null(line[name]) for name in ("scores", "proxies") if name in line}}


def _nan_for_null(scores: object) -> object:
    if not isinstance(scores, dict):
        return scores
    return {judge: float("nan") if score is None else score for judge, score in scores.items()}


def read_tested(folder: Path) -> list[ScoreRow]:
    """Rows of `test_scores.parquet`; none of a suite without test pairs, which has no such file.

    Raises:
        StoreError: it cannot be read.
    """
    return read_rows(folder / TESTED, ScoreRow) if (folder / TESTED).is_file() else []


def read_report_rows(folder: Path) -> ReportRows:
    """All rows of a report's folder.

    Raises:
        MissingResultError: a file is missing.
        StoreError: a file cannot be read.
    """
    return ReportRows(
        scores=read_scores(folder),
        generations=read_generations(folder),
        training=read_training(folder),
        audits=read_audits(folder),
        pairs=read_pairs(folder),
        texts=read_texts(folder),
        tested=read_tested(folder),
    )


def recompute(folder: Path) -> Report:
    """The report, built anew from the exported rows; of `report.json` only what no row holds is taken.

    Equal to `read_report(folder)` unless a file was changed.
    """
    from align_bench.report.build import build_report
    from align_bench.report.course import training_keywords

    report, rows = read_report(folder), read_report_rows(folder)
    header = Header(**{name: getattr(report, name) for name in Header.model_fields})
    if rows.texts:
        header = header.model_copy(update={"training_keywords": training_keywords(rows.texts)})
    outcomes = [outcome_of(result) for result in report.results]
    return build_report(header, outcomes, rows.scores, rows.generations, rows.audits, rows.pairs, tested=rows.tested)


def outcome_of(result: Result) -> Outcome:
    """A cell's outcome, from its result."""
    return Outcome(**{each.name: getattr(result, each.name) for each in fields(Outcome)})
