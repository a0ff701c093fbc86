"""What has been run: a line for every suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from align_bench.report.export import REPORT
from align_bench.report.formatting import UNDEFINED, number, one_line
from align_bench.report.section import Column, Section, text
from align_bench.store.keys import Address
from align_bench.store.store import SUITES, Store
from align_bench.suite.names import JUDGE_CELL

# Metric → how the line calls it, by the kind of cell that it is looked up in.
BEST = {
    "policy": {"gold_accuracy": "gold", "judge_reward_mean": "judge"},
    "reward": {"accuracy_gold_choice": "gold choice", "accuracy": "accuracy"},
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
    stored = {
        name: sum(Address.parse(text) in store for text in note.get("needs", ()))
        for name, note in store.notes().items()
    }
    reported = {path.parent.name for path in reports.glob(f"*/{REPORT}")}
    found = [
        _past(name, stored.get(name, 0), runs / SUITES / f"{name}.json", reports / name)
        for name in stored.keys() | reported
    ]
    return sorted(found, key=lambda one: (-one.when.timestamp(), one.suite))


def history_section(found: Sequence[Past]) -> Section:
    """The suites as a table."""
    rows = [
        (
            one_line(one.suite),
            f"{one.when:%Y-%m-%d %H:%M}",
            *(UNDEFINED if count is None else str(count) for count in (one.done, one.failed, one.skipped)),
            str(one.stored),
            one_line(one.best),
            one_line(one.report or UNDEFINED),
        )
        for one in found
    ]
    columns = [text("suite"), text("when", wraps=False)]
    columns += [Column(heading) for heading in ("done", "failed", "skipped", "artefacts")]
    columns += [text("best"), text("report")]
    captions = [
        "done, failed, skipped: cells. artefacts: stored results that its last run rested on.",
        "best: the policy (or reward model) of the highest value, the base among them; whether the difference was "
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
        results = json.loads(path.read_bytes())["results"]  # of any version
        ends = Counter(one["status"] for one in results)
        done, failed, skipped = (ends[status] for status in ("done", "failed", "skipped"))
        return Past(name, _changed(path), done, failed, skipped, stored, _best(results), folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Past(name, _changed(path), None, None, None, stored, "the report cannot be read", folder)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone()


def _best(results: Sequence[Mapping[str, Any]]) -> str:
    done = [one for one in results if one["status"] == "done" and one["algorithm"] != JUDGE_CELL]
    groups = {
        "policy": [one for one in done if one["kind"] != "reward"],
        "reward": [one for one in done if one["kind"] == "reward"],
    }
    for kind, metrics in BEST.items():
        parts = []
        for metric, called in metrics.items():
            values = {one["cell"]: one["metrics"].get(metric, {}).get("value") for one in groups[kind]}
            known = {cell: value for cell, value in values.items() if value is not None}
            if known:
                cell = max(known, key=lambda one: known[one])
                parts.append(f"{cell}: {called} {number(known[cell])}")
        if parts:
            return "; ".join(parts)
    return UNDEFINED
