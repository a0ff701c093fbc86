"""Compare two `report.json` of the same suite, number by number: `python benchmarks/compare_reports.py OLD NEW`.

What may differ is left out: costs and what follows from seconds (`cost`, `shared`, `pareto`), the machine
(`environment`), and how the report came about (`command`, `state`). Everything else has to be equal, and is named by
its path where it is not. Of sentences (`verdict`, `notes`) the numbers are compared, not the words. Exit code 1 when
anything differs.

A report of the first format, which said no version, is compared with the layout that a report of today would have had
in it (`unversioned`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align_bench.records import Comparison, Estimate
from align_bench.report.schema import Agreement, Audit, JudgeFacts, Metrics, Policies, Ranking, Report, Result, Tuning

SENTENCES = ("verdict", "notes")
LEFT_OUT = frozenset({"command", "cost", "environment", "pareto", "shared", "state"})


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every place where two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in LEFT_OUT:
                continue
            where = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                yield f"{where}: only in the {'new' if key in new else 'old'} report"
            else:
                yield from differences(old[key], new[key], where)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{path}: {len(old)} entries, then {len(new)}"
        for place, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from differences(one, other, f"{path}[{place}]")
    elif old != new or type(old) is not type(new):
        yield f"{path}: {old!r}, then {new!r}{_apart(old, new)}"


def unversioned(report: Report) -> dict[str, Any]:
    """A report as the first format laid it out: ids as texts, metrics by name."""
    found: dict[str, Any] = report.model_dump(mode="json")
    for name in ("version", "judges"):
        found.pop(name)
    for name in ("training_keywords", "tuning"):
        if found[name] is None:
            found.pop(name)
    if report.base.template_date is None:
        found["base"].pop("template_date")
    if report.tuning is not None:
        found["tuning"] = _tuning(report.tuning)
    return found | {
        "judge": _judges(report.judges),
        "results": [_result(result, found["results"][place]) for place, result in enumerate(report.results)],
        "comparisons": [_comparison(one) for one in report.comparisons],
        "rankings": [_ranking(one) for one in report.rankings],
        "policies": _policies(report.policies),
        "agreement": [_agreement(one) for one in report.agreement],
        "audit": [_audit(one) for one in report.audit],
        "course": found["course"]
        | {
            "scores": [
                {**own, "cell": str(one.cell), "test": {"name": "Welch t", **own["test"]}}
                for one, own in zip(report.course.scores, found["course"]["scores"], strict=True)
            ]
        },
        "pareto": [
            {**own, "cells": list(map(str, one.cells))} for one, own in zip(report.pareto, found["pareto"], strict=True)
        ],
        "detectable": {name: own for name, own in found["detectable"].items() if own is not None},
    }


def _judges(panel: list[JudgeFacts]) -> dict[str, Any] | None:
    if not panel:
        return None
    old = []
    for judge in panel:
        known = judge.model_dump(mode="json", include={"name", "status"})
        known |= {"cell": ", ".join(map(str, judge.cells)), "trained": list(map(str, judge.rewarded))}
        known |= {} if judge.overlap is None else {"overlap": judge.overlap.model_dump()}
        old.append(known | ({} if judge.loaded is None else judge.loaded.model_dump()))
    return {key: old[0][key] for key in ("name", "cell", "status", "trained")} | {"panel": old}


def _result(result: Result, dumped: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in dumped.items() if key != "name"}
    return own | {"cell": result.name, "metrics": _metrics(result.metrics)}


def _metrics(metrics: Metrics) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Metrics.model_fields:
        value = getattr(metrics, name)
        if isinstance(value, Estimate):
            found[name] = asdict(value)
    for attack in metrics.attacked:
        found[f"accuracy_attacked[{attack.epsilon:g}]"] = asdict(attack.accuracy)
    for judge in metrics.other_judges:
        found[f"judge_reward_mean[{judge.judge}]"] = asdict(judge.mean)
        found[f"judge_reward_std[{judge.judge}]"] = asdict(judge.std)
    for proxy in metrics.proxies:
        found[f"proxy_reward_mean[{proxy.reward}]"] = asdict(proxy.mean)
    return found


def _comparison(found: Comparison) -> dict[str, Any]:
    return asdict(found) | {"a": str(found.a), "b": str(found.b), "metric": str(found.metric)}


def _ranking(found: Ranking) -> dict[str, Any]:
    methods = [{"name": str(one.method), **one.model_dump(exclude={"method"})} for one in found.methods]
    return found.model_dump(mode="json") | {"metric": str(found.metric), "methods": methods}


def _policies(found: Policies) -> dict[str, Any]:
    rates = [{"a": str(one.a), "b": str(one.b), "level": one.level, **asdict(one.rate)} for one in found.win_rates]
    return {
        "judge": found.judge,
        "win_rates": rates,
        "frontier": [one.model_dump(mode="json") | {"cell": str(one.cell)} for one in found.frontier],
        "gold_against_judge": [
            one.model_dump(mode="json") | {"cell": str(one.cell)} for one in found.gold_against_judge
        ],
    }


def _agreement(found: Agreement) -> dict[str, Any]:
    pairs = [{"higher": str(one.higher), "lower": str(one.lower), "shown": one.shown} for one in found.reversed]
    return found.model_dump(mode="json") | {"reversed": pairs}


def _audit(found: Audit) -> dict[str, Any]:
    own = found.model_dump(mode="json")
    metrics = {name: value for name, value in own["metrics"].items() if name not in ("effects", "edits")}
    metrics |= {f"effect_{name}": value for name, value in own["metrics"]["effects"].items()}
    for edit in own["metrics"]["edits"]:
        metrics |= {f"shift_{edit['edit']}": edit["shift"], f"flips_{edit['edit']}": edit["flips"]}
    return own | {"metrics": metrics}


def _tuning(found: Tuning) -> dict[str, Any]:
    own = found.model_dump(mode="json")
    methods = {}
    for tuned, dumped in zip(found.methods, own["methods"], strict=True):
        trials = [{**trial, "cell": str(one.cell)} for one, trial in zip(tuned.trials, dumped["trials"], strict=True)]
        methods[str(tuned.method)] = {**dumped, "trials": trials}
        methods[str(tuned.method)].pop("method")
    return own | {"methods": methods}


def _read(path: Path, *, as_old: bool) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    if as_old and "version" in content:
        content = unversioned(Report.model_validate(content))
    return content | {
        name: [re.findall(r"\d[\d.,]*(?:e[+-]?\d+)?", line) for line in content[name]] for name in SENTENCES
    }


def numbers(value: Any) -> int:
    """How many numbers a JSON value holds, those that are left out aside."""
    if isinstance(value, dict):
        return sum(numbers(item) for key, item in value.items() if key not in LEFT_OUT)
    if isinstance(value, list):
        return sum(map(numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _apart(old: Any, new: Any) -> str:
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (old, new)):
        return ""
    return f" (by {abs(old - new):.3g})"


def main() -> int:
    """Print the differences and how many numbers were compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="a report.json, or the folder that holds it")
    parser.add_argument("new", type=Path, help="the other one")
    given = parser.parse_args()
    files = [path / "report.json" if path.is_dir() else path for path in (given.old, given.new)]
    as_old = not all("version" in json.loads(path.read_bytes()) for path in files)
    old, new = (_read(path, as_old=as_old) for path in files)
    found = list(differences(old, new))
    for line in found:
        print(line)
    print(f"{old['suite']['name']}: {numbers(old):,} numbers compared, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
