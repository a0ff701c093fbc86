"""Remarks that a reader of the numbers needs, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from align_bench.metrics.finite import is_finite
from align_bench.records import Comparison, Outcome
from align_bench.report.cells import Cell
from align_bench.report.naming import method_of
from align_bench.stats.seeds import MIN_SEEDS

MANY_TIES = 0.05


def write_notes(
    cells: Sequence[Cell],
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    detectable: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """The notes: unusual parameters, remarks, seeds, gold accuracy, detectable effects, ties, missing numbers."""
    done = [cell for cell in cells if cell.outcome.status == "done"]
    return [
        *_said(cells, lambda outcome: outcome.warnings),
        *_said(cells, lambda outcome: outcome.remarks),
        *_seeds(done),
        *_gold(done, comparisons),
        *_detectable(detectable),
        *_ties(results),
        *(note for cell in done for note in _missing(cell)),
    ]


def _said(cells: Sequence[Cell], lines: Callable[[Outcome], Sequence[str]]) -> list[str]:
    """Each line of the outcomes once, whatever the number of seeds."""
    return list(dict.fromkeys(f"{method_of(cell.name)}: {line}." for cell in cells for line in lines(cell.outcome)))


def _seeds(cells: Sequence[Cell]) -> Iterator[str]:
    trained = [cell for cell in cells if cell.outcome.kind != "base"]
    seeds: dict[str, set[int]] = {}
    for cell in trained:
        seeds.setdefault(method_of(cell.name), set()).add(cell.outcome.seed)
    few = {method: len(own) for method, own in seeds.items() if len(own) < MIN_SEEDS}
    for count, words in ((1, "one seed"), (2, "two seeds")):
        methods = [method for method, own in few.items() if own == count]
        if methods:
            yield (
                f"{words.capitalize()} for {_names(methods, seeds)}: the tests compare these checkpoints and allow no "
                f"claim about methods, which needs at least {MIN_SEEDS} seeds."
            )


def _gold(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> Iterator[str]:
    policies = {cell.name for cell in cells if cell.outcome.kind == "policy"}
    bases = {cell.name for cell in cells if cell.outcome.kind == "base"}
    against = [
        found
        for found in comparisons
        if found.level == "checkpoint" and found.metric == "gold_accuracy" and found.a in policies and found.b in bases
    ]
    flat = [found for found in against if found.low is None or found.low <= 0]
    if flat:
        shown = "; ".join(f"{found.a} {_interval(found)}" for found in flat)
        yield (
            "No rise of gold accuracy over the base was shown (95% interval of the gain not wholly above 0) "
            f"for {len(flat)} of {len(against)} policies: {shown}."
        )


def _detectable(detectable: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for what, found in detectable.items():
        if found.get("dz") is None:
            continue
        strict = "" if found["dz_holm"] is None else f", {found['dz_holm']:.3f} at Holm's first step"
        yield (
            f"Smallest difference that {found['n']} {what} show with 80% power: dz {found['dz']:.3f} in a single test"
            f"{strict} ({found['tests']} tests)."
        )


def _ties(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for result in results:
        rate = result["metrics"]["tie_rate"]["value"]
        if rate is not None and rate > MANY_TIES:
            yield f"{result['cell']} scores both answers of {rate:.1%} of its pairs equally; each counts ½."


def _missing(cell: Cell) -> Iterator[str]:
    lacking = sum(not (is_finite(row["chosen_reward"]) and is_finite(row["rejected_reward"])) for row in cell.scores)
    if lacking:
        yield (
            f"{cell.name} has no finite reward for {lacking} of {len(cell.scores)} pairs; "
            "they are left out of its metrics."
        )
    unscored = sum(not all(map(is_finite, answer.scores.values())) for answer in cell.generations)
    if unscored:
        yield (
            f"{cell.name} has no finite judge score for {unscored} of {len(cell.generations)} generations; "
            "they are left out of its judged metrics."
        )


def _interval(found: Comparison) -> str:
    if found.difference is None or found.low is None or found.high is None:
        return "(undefined)" if found.difference is None else f"{found.difference:+.3f}"
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _names(methods: Sequence[str], every: Mapping[str, Any]) -> str:
    return "every method" if len(methods) == len(every) else ", ".join(methods)
