"""Remarks that a reader of the numbers needs, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized

from align_bench.metrics.finite import is_finite
from align_bench.records import CellId, Comparison, Estimate, MetricKey, Outcome
from align_bench.report.cells import Cell
from align_bench.report.decision import decision
from align_bench.report.schema import Audit, Baselines, Block, Detectable, Policies, Result
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import JUDGE_CELL

MANY_TIES = 0.05


def write_notes(
    cells: Sequence[Cell], results: Sequence[Result], comparisons: Sequence[Comparison], detectable: Detectable
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


def heavy_tail_notes(
    results: Sequence[Result], audits: Sequence[Audit], baselines: Baselines, policies: Policies
) -> list[str]:
    """A line for each cell, judge or comparison of which an interval covers less than 95% (`Estimate.wanted`)."""
    known: list[tuple[str, Block]] = [
        *((result.name, result.metrics) for result in results),
        *((f"Audit of {one.scorer}", one.metrics) for one in audits),
        ("Baselines", baselines),
        *((f"{one.a} over {one.b}", one) for one in policies.win_rates),
        *((f"{one.cell} against the base", one) for one in policies.gold_against_judge),
    ]
    found = [
        (name, [f"{metric} (n {one.n:,}, wanted {one.wanted:,})" for metric, one in _marked(block)])
        for name, block in known
    ]
    return [
        f"{name}: too few or too skewed values for a 95% interval, which covers less often than that: {', '.join(own)}."
        for name, own in found
        if own
    ]


def _marked(block: Block, before: str = "") -> Iterator[tuple[str, Estimate]]:
    """Every estimate of a block that wants more observations, those of blocks within it included."""
    for field, value in block:
        name = before + field.replace("_", " ")
        if isinstance(value, Estimate) and value.wanted is not None:
            yield name, value
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Block):
                of = next((f"{own}: " for _, own in one if isinstance(own, (str, float))), "")
                yield from _marked(one, f"{name} {of}")


def _said(cells: Sequence[Cell], lines: Callable[[Outcome], Sequence[str]]) -> list[str]:
    """Each line of the outcomes once, whatever the number of seeds."""
    return list(dict.fromkeys(f"{cell.id.method}: {line}." for cell in cells for line in lines(cell.outcome)))


def _seeds(cells: Sequence[Cell]) -> Iterator[str]:
    seeds: dict[CellId, set[int]] = {}
    for cell in cells:
        if cell.outcome.kind != "base" and cell.outcome.algorithm != JUDGE_CELL:  # a judge is compared with none
            seeds.setdefault(cell.id.method, set()).add(cell.outcome.seed)
    for count, words in ((1, "One seed"), (2, "Two seeds")):
        methods = [method for method, own in seeds.items() if len(own) == count]
        if methods:
            yield (
                f"{words} for {_names(methods, seeds)}: the tests compare these checkpoints; a claim about methods "
                f"needs at least {MIN_SEEDS} seeds."
            )


def _gold(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> Iterator[str]:
    policies = {cell.id for cell in cells if cell.outcome.kind == "policy"}
    bases = {cell.id for cell in cells if cell.outcome.kind == "base"}
    against = [
        found
        for found in comparisons
        if found.level == "checkpoint"
        and found.metric == MetricKey("gold_accuracy")
        and found.a in policies
        and found.b in bases
    ]
    flat = [found for found in against if decision(found) != "higher"]
    if flat:
        shown = "; ".join(f"{found.a} {_interval(found)}" for found in flat)
        yield (
            "No gain in gold accuracy over the base was shown (after Holm's adjustment) "
            f"for {len(flat)} of {len(against)} checkpoints: {shown}."
        )


def _detectable(detectable: Detectable) -> Iterator[str]:
    for what, found in (("pairs", detectable.pairs), ("prompts", detectable.prompts)):
        if found is None or found.dz is None:
            continue
        strict = "" if found.dz_holm is None else f", {found.dz_holm:.3f} at Holm's first step"
        yield (
            f"Minimum detectable effect with {found.n} {what} at 80% power: dz {found.dz:.3f} in a single test"
            f"{strict} ({found.tests} tests)."
        )
    if detectable.seeds is not None and detectable.seeds.d is not None:
        seeds = detectable.seeds
        strict = "" if seeds.d_holm is None else f", {seeds.d_holm:.3f} at Holm's first step"
        yield (
            f"Minimum detectable difference between methods of {seeds.n} seeds at 80% power: {seeds.d:.3f} × the "
            f"standard deviation over seeds in a single test{strict} ({seeds.tests} tests)."
        )


def _ties(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        rate = result.metrics.tie_rate.value
        if rate is not None and rate > MANY_TIES:
            yield f"{result.cell} gives both answers the same score on {rate:.1%} of its pairs; each tie counts as ½."


def _missing(cell: Cell) -> Iterator[str]:
    lacking = sum(not (is_finite(row.chosen_reward) and is_finite(row.rejected_reward)) for row in cell.scores)
    if lacking:
        yield (
            f"{cell.name} has no finite reward for {lacking} of {len(cell.scores)} pairs; "
            "they are excluded from its metrics."
        )
    scores = [[*answer.scores.values(), *answer.proxies.values()] for answer in cell.generations]
    unscored = sum(not all(map(is_finite, own)) for own in scores)
    if unscored:
        yield (
            f"{cell.name} has no finite judge score for {unscored} of {len(cell.generations)} generations; "
            "they are excluded from its judged metrics."
        )


def _interval(found: Comparison) -> str:
    if found.difference is None or found.low is None or found.high is None:
        return "(undefined)" if found.difference is None else f"{found.difference:+.3f}"
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _names(methods: Sequence[CellId], every: Sized) -> str:
    return "every method" if len(methods) == len(every) else ", ".join(map(str, methods))
