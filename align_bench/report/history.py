"""What has been run: a line for every suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from align_bench.records import Kind, Status
from align_bench.report.export import REPORT
from align_bench.report.formatting import UNDEFINED, number, one_line
from align_bench.report.leaderboard import tied
from align_bench.report.schema import VERSION
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Value, count
from align_bench.store.store import SUITES, Store
from align_bench.suite.names import JUDGE_CELL


class _Part(BaseModel):
    """What a line needs of a part of `report.json`, whatever else stands there."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Metric(_Part):
    value: float | None = None


class _Metrics(_Part):
    gold_accuracy: _Metric = _Metric()
    judge_reward_mean: _Metric = _Metric()
    accuracy_gold_choice: _Metric = _Metric()
    accuracy: _Metric = _Metric()


class _Result(_Part):
    name: str
    algorithm: str
    kind: Kind
    status: Status
    metrics: _Metrics


class _Version(_Part):
    version: int = 0


class _Report(_Version):
    results: list[_Result]


# How the line calls a metric, and which it is, by the kind of cell that it is looked up in.
BEST: Mapping[str, Mapping[str, Callable[[_Metrics], _Metric]]] = {
    "policy": {"gold": lambda metrics: metrics.gold_accuracy, "judge": lambda metrics: metrics.judge_reward_mean},
    "reward": {
        "acc. (gold)": lambda metrics: metrics.accuracy_gold_choice,
        "accuracy": lambda metrics: metrics.accuracy,
    },
}


@dataclass(frozen=True, slots=True)
class Past:
    """One suite that has been run.

    Attributes:
        suite: its name, which is that of its folders.
        when: when its report was last written; without a report, when its last run began.
        done, failed, skipped: cells by how they ended; None without a readable report.
        stored: artefacts that its last run rested on.
        best: the best policy by each metric, or reward model where no policy was judged; or why there is none.
        report: its report's folder; None without a report.
    """

    suite: str
    when: datetime
    done: int | None
    failed: int | None
    skipped: int | None
    stored: int
    best: str
    report: Path | None


def past_runs(runs: Path, reports: Path) -> list[Past]:
    """Every suite that was run or has a report, the latest first.

    Args:
        runs: folder of what has been computed.
        reports: folder of the reports.
    """
    store = Store(runs)
    noted = {name: note.needs if note else () for name, note in store.notes.readable().items()}
    stored = {name: sum(address in store for address in needs) for name, needs in noted.items()}
    reported = {path.parent.name for path in reports.glob(f"*/{REPORT}")}
    found = [
        _past(name, stored.get(name, 0), runs / SUITES / f"{name}.json", reports / name)
        for name in stored.keys() | reported
    ]
    return sorted(found, key=lambda one: (-one.when.timestamp(), one.suite))


def history_section(found: Sequence[Past]) -> Section:
    """The suites as a table."""
    rows: list[Sequence[Value]] = [
        (
            one_line(one.suite),
            f"{one.when:%Y-%m-%d %H:%M}",
            *map(count, (one.done, one.failed, one.skipped, one.stored)),
            one_line(one.best),
            one_line(one.report or UNDEFINED),
        )
        for one in found
    ]
    columns = [text("suite"), text("when", wraps=False)]
    columns += [Column("done"), Column("failed"), Column("skipped", optional=True), Column("artefacts", optional=True)]
    columns += [text("best"), text("report")]
    captions = [
        "done, failed, skipped: cells. artefacts: stored results that its last run rested on.",
        "best: the policy (or reward model) of the highest value, the base included; whether the difference was "
        "shown is in the report.",
    ]
    return Section(
        "Runs", columns, rows, captions if rows else ["Nothing has been run here: align-bench run assignment"]
    )


def _past(name: str, stored: int, noted: Path, folder: Path) -> Past:
    path = folder / REPORT
    if not path.is_file():
        return Past(name, _changed(noted), None, None, None, stored, "no report yet", None)
    try:
        content = path.read_bytes()
        version = _Version.model_validate_json(content).version
        if version != VERSION:
            older = "a report of an older version" if version < VERSION else "a report of a newer version"
            return Past(name, _changed(path), None, None, None, stored, older, folder)
        results = _Report.model_validate_json(content).results
    except (OSError, ValidationError):
        return Past(name, _changed(path), None, None, None, stored, "the report cannot be read", folder)
    ends = Counter(one.status for one in results)
    return Past(name, _changed(path), ends["done"], ends["failed"], ends["skipped"], stored, _best(results), folder)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone()


def _best(results: Sequence[_Result]) -> str:
    done = [one for one in results if one.status == "done" and one.algorithm != JUDGE_CELL]
    groups = {
        "policy": [one for one in done if one.kind != "reward"],
        "reward": [one for one in done if one.kind == "reward"],
    }
    for kind, measures in BEST.items():
        parts = []
        for called, measure in measures.items():
            values = {one.name: measure(one.metrics).value for one in groups[kind]}
            known = {name: value for name, value in values.items() if value is not None}
            if known:
                most = max(known.values())
                first, *others = (name for name, value in known.items() if tied(value, most))
                also = f" (and {len(others)} tied)" if others else ""
                parts.append(f"{first}{also}: {called} {number(most)}")
        if parts:
            return "; ".join(parts)
    return UNDEFINED
