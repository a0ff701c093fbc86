"""A report's files: written whole or not at all, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_bench.errors import MissingResultError, StoreError
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.metrics.format_effects import FEATURES
from align_bench.records import Cost, Generation, Outcome, PairTexts
from align_bench.report.files import json_ready, unicode, write_text
from align_bench.store.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

REPORT, MARKDOWN, PAGE, FIGURES = "report.json", "report.md", "report.html", "figures"
SCORES, GENERATIONS, TRAINING = "scores.parquet", "generations.jsonl", "training.parquet"
AUDIT, PAIRS = "audit.parquet", "pairs.parquet"
WRITTEN = (REPORT, MARKDOWN, PAGE, SCORES, GENERATIONS, TRAINING, AUDIT, PAIRS)
COMPUTED = (
    "verdict",
    "results",
    "comparisons",
    "rankings",
    "policies",
    "baselines",
    "agreement",
    "audit",
    "course",
    "keywords",
    "pareto",
    "detectable",
    "notes",
)

# Column → pyarrow type, in the order of the file; log-probabilities are sums in nats, grades are Flesch–Kincaid's.
SCORE_COLUMNS = {
    "cell": "string",
    "algorithm": "string",
    "seed": "int64",
    "pair": "int64",
    "chosen_reward": "float64",
    "rejected_reward": "float64",
    "chosen_tokens": "int64",
    "rejected_tokens": "int64",
    "gold_choice": "int64",
    "chosen_logp": "float64",
    "rejected_logp": "float64",
    "ref_chosen_logp": "float64",
    "ref_rejected_logp": "float64",
    "chosen_words": "int64",
    "rejected_words": "int64",
    "prompt_id": "int64",
    "chosen_grade": "float64",
    "rejected_grade": "float64",
}
PAIR_COLUMNS = {"pair": "int64", "prompt": "string", "chosen": "string", "rejected": "string"}
# Of every optimizer step; a method's own measures (rewards, KL to the reference in nats an answer) follow as float64.
TRAINING_COLUMNS = {
    "cell": "string",
    "algorithm": "string",
    "seed": "int64",
    "step": "int64",
    "loss": "float64",
    "learning_rate": "float64",
    "gradient_norm": "float64",
    "seconds": "float64",
}
# Of every answer to a validation pair and every reward model or judge; `score_…` with changed texts, where scored.
AUDIT_COLUMNS = {
    "scorer": "string",
    "pair": "int64",
    "prompt": "int64",
    "side": "string",
    "score": "float64",
    **dict.fromkeys(FEATURES, "float64"),
    **{f"score_{version}": "float64" for version in VERSIONS},
}


def write_report(
    folder: Path,
    report: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    generations: Sequence[Generation],
    training: Sequence[Mapping[str, Any]] = (),
    audits: Sequence[Mapping[str, Any]] = (),
    pairs: Sequence[PairTexts] = (),
) -> None:
    """Write a report's folder, each file atomically and `report.json` last.

    The rows come first (`scores.parquet`, `pairs.parquet`, `generations.jsonl`, `training.parquet`, `audit.parquet`),
    then the course's files and what people read: `tables/`, `figures/`, `report.html` and `report.md`.

    Args:
        folder: made if it does not exist.
        report: what `build_report` returned.
        scores, generations: what it was built from. Absent score columns are null; columns beyond `SCORE_COLUMNS`
            follow them.
        training: a row per optimizer step: `TRAINING_COLUMNS`, then whatever the methods measure.
        audits: a row per reward model and answer: `AUDIT_COLUMNS`.
        pairs: a row per validation pair; without them the course's file of marks is left out.
    """
    import pyarrow.parquet as pq

    from align_bench.report.course_files import write_course_files
    from align_bench.report.csv_tables import write_tables

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / SCORES) as path:
        pq.write_table(_table(scores, SCORE_COLUMNS), path)
    with replacing(folder / TRAINING) as path:
        pq.write_table(_table(training, TRAINING_COLUMNS), path)
    with replacing(folder / AUDIT) as path:
        pq.write_table(_table(audits, AUDIT_COLUMNS), path)
    with replacing(folder / PAIRS) as path:
        pq.write_table(_table(_valid(pairs), PAIR_COLUMNS), path)
    lines = [_json(json_ready(asdict(answer))) + "\n" for answer in generations]
    write_text(folder / GENERATIONS, "".join(lines))
    report = json_ready(report)
    write_course_files(folder, report, scores, generations, pairs)
    write_tables(folder, report)
    _write_page(folder, report, scores, generations, training)
    write_text(folder / REPORT, _json(report, indent=2) + "\n")


def _write_page(
    folder: Path,
    report: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    generations: Sequence[Generation],
    training: Sequence[Mapping[str, Any]],
) -> None:
    # Drawing and computing take long to import, which reading a report need not wait for.
    from align_bench.report.cells import gather
    from align_bench.report.figures import all_figures
    from align_bench.report.figures.base import Material
    from align_bench.report.html import render_page
    from align_bench.report.markdown import render
    from align_bench.report.plots import standalone

    cells = gather([outcome_of(result) for result in report["results"]], scores, generations)
    drawn = all_figures(Material(report, cells, training))
    (folder / FIGURES).mkdir(exist_ok=True)
    for figure in drawn:
        write_text(folder / FIGURES / f"{figure.name}.svg", standalone(figure.svg, figure.alternative))
    for path in (folder / FIGURES).glob("*.svg"):
        if path.stem not in {figure.name for figure in drawn}:  # of an earlier report
            path.unlink()
    write_text(folder / PAGE, render_page(report, cells, drawn))
    write_text(folder / MARKDOWN, render(report, drawn))


def read_report(folder: Path) -> dict[str, Any]:
    """`report.json` of a report's folder.

    Raises:
        MissingResultError: no report there.
        StoreError: it is not JSON, or no report.
    """
    path = _existing(folder / REPORT)
    try:
        report = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}", fix="rebuild it with `align-bench run`") from error
    if not isinstance(report, dict) or not set(COMPUTED) <= set(report):
        raise StoreError(
            f"{path} is no report of this version: expected an object with {', '.join(COMPUTED)}",
            fix="rebuild it with `align-bench run`",
        )
    return report


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Rows of `scores.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return _read_table(folder / SCORES)


def read_training(folder: Path) -> list[dict[str, Any]]:
    """Rows of `training.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return _read_table(folder / TRAINING)


def read_audits(folder: Path) -> list[dict[str, Any]]:
    """Rows of `audit.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return _read_table(folder / AUDIT)


def read_pairs(folder: Path) -> list[PairTexts]:
    """Rows of `pairs.parquet`.

    Raises:
        MissingResultError: no such file.
        StoreError: it cannot be read.
    """
    return [PairTexts(**row) for row in _read_table(folder / PAIRS)]


def read_generations(folder: Path) -> list[Generation]:
    """Lines of `generations.jsonl`. A null score was not finite, and is read as NaN.

    Raises:
        MissingResultError: no such file.
        StoreError: a line cannot be read.
    """
    path = _existing(folder / GENERATIONS)
    answers = []
    with path.open("rb") as lines:
        for count, line in enumerate(lines, start=1):
            try:
                answers.append(_generation(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise StoreError(f"{path}, line {count}, is damaged: {error}") from error
    return answers


def recompute(folder: Path) -> dict[str, Any]:
    """The report, built anew from the exported rows; of `report.json` only what no row holds is taken.

    Equal to `read_report(folder)` unless a file was changed.
    """
    from align_bench.report.build import build_report

    report = read_report(folder)
    header = {key: value for key, value in report.items() if key not in COMPUTED}
    outcomes = [outcome_of(result) for result in report["results"]]
    rows = read_scores(folder), read_generations(folder), read_audits(folder), read_pairs(folder)
    return build_report(header, outcomes, *rows)


def _read_table(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _existing(path)
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} is damaged: {error}", fix="rebuild it with `align-bench run`") from error
    return rows


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pa.Table:
    """The rows with these columns, then all others that a row has."""
    import pyarrow as pa

    extra = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in columns]
    known = {name: pa.array([row.get(name) for row in rows], type=pa.type_for_alias(columns[name])) for name in columns}
    return pa.table({**known, **{name: pa.array([row.get(name) for row in rows]) for name in extra}})


def _valid(pairs: Sequence[PairTexts]) -> list[dict[str, Any]]:
    return [
        {name: unicode(value) if isinstance(value, str) else value for name, value in asdict(pair).items()}
        for pair in pairs
    ]


def _generation(line: Mapping[str, Any]) -> Generation:
    scores = {judge: float("nan") if score is None else score for judge, score in line["scores"].items()}
    return Generation(**{**line, "scores": scores})


def outcome_of(result: Mapping[str, Any]) -> Outcome:
    """A cell's outcome, from its result in `report.json`."""
    own = {field.name: result[field.name] for field in fields(Outcome) if field.name in result}
    return Outcome(**{**own, "cost": Cost(**own["cost"]) if own["cost"] else None})


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise MissingResultError(f"There is no {path.name} in {path.parent}.", fix="align-bench run SUITE")
    return path


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
