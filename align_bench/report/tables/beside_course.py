"""The report's figures beside those of the course's own report, where the suite asks for that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from align_bench.records import Estimate, MetricKey
from align_bench.report.formatting import number, one_line, p_value
from align_bench.report.tables.section import Section, done_results, text

if TYPE_CHECKING:
    from align_bench.report.schema import Report, Result, Tested

CHAPTER = "leaderboard"
# As the course's report published them, for its model and its data.
MODEL, DATA = "Qwen2.5-0.5B-Instruct", "align-anything, text to text: train_30k.parquet, val_1k.parquet"
REWARD_MODEL = {"accuracy": 0.758, "reward mean": -0.118, "reward std": 2.741}
SCORES_T, SCORES_P = 3.297, 0.00105
DPO = {"accuracy": 0.541, "reward mean": 0.111, "reward std": 1.449}
ANSWERS_T, ANSWERS_P = 12.41, 5.4e-33
BASE_TESTED = {"accuracy": 0.547, "reward mean": 0.734, "reward std": 1.407}
DPO_TESTED = {"accuracy": 0.551, "reward mean": -0.292, "reward std": 1.505}
SWEPT = "learning rate 2e-5, 4 accumulation steps (lowest training loss)"


class Line(NamedTuple):
    """A row: what it is, here, and in the course's report."""

    what: str
    here: str
    course: str


def beside_course(report: Report) -> Section:
    """A row for each figure that both have; nothing where the suite does not ask for it."""
    asked = report.suite.settings.get("report")
    wanted = isinstance(asked, Mapping) and bool(asked.get("course_figures"))
    rows = list(_lines(report)) if wanted else []
    captions = [
        "A sanity range, not a claim: models, data and settings differ, and neither column is a target for the other. "
        "Accuracy, reward mean and std: by each one's own reward, on the pairs named.",
    ]
    columns = [text("figure"), text("here"), text("the course's report")]
    return Section("Beside the course's report", columns, rows if len(rows) > 2 else [], captions, chapter=CHAPTER)


def _lines(report: Report) -> Iterator[Line]:
    yield Line("model", one_line(report.base.name), MODEL)
    yield Line("data", _data(report), DATA)
    yield from _sweep(report)
    model = next((found for found in done_results(report, "reward") if found.algorithm == "rm"), None)
    if model is not None:
        yield from _measures("rm, validation pairs", model, REWARD_MODEL)
        groups = next((found.test for found in report.course.scores if found.cell == model.cell), None)
        if groups is not None:
            course = _test(SCORES_T, SCORES_P)
            yield Line("rm, scores of correct against wrong choices: Welch's t", _test(groups.t, groups.p), course)
    policy = next((found for found in done_results(report, "policy") if found.algorithm == "dpo"), None)
    if policy is not None:
        yield from _measures("dpo, validation pairs", policy, DPO)
        yield from _answers(report, policy)
        tested = {found.cell: found for found in report.tested}
        base = next((found for found in done_results(report, "base")), None)
        if base is not None and base.cell in tested and policy.cell in tested:
            yield from _measures("base, test pairs", tested[base.cell], BASE_TESTED)
            yield from _measures("dpo, test pairs", tested[policy.cell], DPO_TESTED)


def _data(report: Report) -> str:
    """Paths of the rows, and how many there are."""
    settings = report.suite.settings.get("data")
    parts = []
    for split in ("train", "val", "test"):
        entry = settings.get(split) if isinstance(settings, Mapping) else None
        if split in report.data and isinstance(entry, Mapping):
            parts.append(f"{split} {report.data[split].tokens['kept']:,} of {entry.get('path')}")
    return one_line("; ".join(parts))


def _sweep(report: Report) -> Iterator[Line]:
    for method in report.tuning.methods if report.tuning else []:
        if method.method.name == "rm" and method.kept is not None and report.tuning is not None:
            kept = method.trials[method.kept].parameters
            names = [name for name in ("learning_rate", "batch_size") if name in kept]
            setting = ", ".join(f"{name.replace('_', ' ')} {kept[name]}" for name in names)
            by = "lowest held-out loss" if report.tuning.settings.choose_by == "loss" else "highest held-out accuracy"
            yield Line("rm, sweep: the choice", f"{setting} ({by})", SWEPT)


def _measures(what: str, found: Result | Tested, course: Mapping[str, float]) -> Iterator[Line]:
    own = found.metrics if hasattr(found, "metrics") else found
    here: Mapping[str, Estimate] = {
        "accuracy": own.accuracy,
        "reward mean": own.reward_mean,
        "reward std": own.reward_std,
    }
    for name, value in course.items():
        if here[name].value is not None:
            yield Line(f"{what}: {name}", number(here[name].value), number(value))


def _answers(report: Report, policy: Result) -> Iterator[Line]:
    for found in report.comparisons:
        against_base = found.a == policy.cell and found.b.name == "base" and found.level == "checkpoint"
        if against_base and found.metric == MetricKey("judge_reward") and found.effect is not None:
            prompts = f"{found.n} answers judged, dpo over base: paired t"
            yield Line(prompts, _test(found.effect * math.sqrt(found.n), found.p), _test(ANSWERS_T, ANSWERS_P))


def _test(t: float | None, p: float | None) -> str:
    return f"t {number(t)}, p {p_value(p)}"
