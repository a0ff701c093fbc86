"""How far the judges agree: on the ranking of methods, and prompt by prompt on which of two answers is better."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from align_bench.metrics.agreement import kendall_tau, preference_agreement
from align_bench.records import CellId, MetricKey
from align_bench.report.cells import Cell, judge_metric
from align_bench.report.claims import Claim
from align_bench.report.labels import judge_in_words
from align_bench.report.schema import Agreement, JudgeFacts, Reversal
from align_bench.suite.names import GOLD

Order = tuple[CellId, CellId]  # two methods, the higher one first


def agreements(cells: Sequence[Cell], judges: Sequence[str], claims: Sequence[Claim]) -> list[Agreement]:
    """How far each two judges agree, gold among them where every answer has its verdict.

    Args:
        cells: the finished and unfinished cells.
        judges: names, the main one first.
        claims: tells which differences were shown.
    """
    answered = [cell for cell in cells if cell.generations]
    answers = [answer for cell in answered for answer in cell.generations]
    names = [judge for judge in judges if any(judge in answer.scores for answer in answers)]
    if answers and GOLD not in judges and all(GOLD in answer.scores for answer in answers):
        names.append(GOLD)
    metrics = {judge: judge_metric("judge_reward", judge, judges) for judge in judges}
    shown = {name: _shown(metrics.get(name, MetricKey("gold_accuracy")), claims) for name in names}
    return [_agreement(a, b, answered, shown) for a, b in combinations(names, 2)]


def agreement_notes(found: Sequence[Agreement], claims: Sequence[Claim]) -> list[str]:
    """A warning for each two judges that rank methods, or checkpoints where seeds allow no more, differently.

    Args:
        found: the report's.
        claims: as in `agreements`; where some are of checkpoints, so is what both judges showed.
    """
    few = any(one.level == "checkpoint" for one in claims if one.kind == "policy")
    return [note for one in found for note in _note(one, "checkpoints" if few else "methods")]


def shared_rows_notes(panel: Sequence[JudgeFacts]) -> list[str]:
    """A warning for each judge that learned from rows or prompts of the policies."""
    return [
        f"Judge {judge.name}: {judge.overlap.same_rows:,} of its {judge.overlap.rows:,} training rows are also "
        f"training rows of the policies, and {judge.overlap.same_prompts:,} share a prompt with them."
        for judge in panel
        if judge.overlap is not None and judge.overlap.same_prompts
    ]


def _agreement(a: str, b: str, cells: Sequence[Cell], shown: Mapping[str, Collection[Order]]) -> Agreement:
    left, right = ({cell.name: cell.judged_by_prompt(judge) for cell in cells} for judge in (a, b))
    by_a, by_b = _means(cells, a), _means(cells, b)
    common = [method for method in by_a if method in by_b]
    turned = [
        (one, other) if by_a[one] > by_a[other] else (other, one)
        for one, other in combinations(common, 2)
        if (by_a[one] - by_a[other]) * (by_b[one] - by_b[other]) < 0
    ]
    return Agreement(
        a=a,
        b=b,
        methods=len(common),
        kendall_tau=kendall_tau([by_a[method] for method in common], [by_b[method] for method in common]),
        agreement=preference_agreement(left, right),
        reversed=[
            Reversal(
                higher=high,
                lower=low,
                shown=(high, low) in shown[a] and (low, high) in shown[b],
            )
            for high, low in turned
        ],
    )


def _means(cells: Sequence[Cell], judge: str) -> dict[CellId, float]:
    """Method → mean score over prompts, then over seeds."""
    seeds: dict[CellId, list[float]] = {}
    for cell in cells:
        if own := cell.judged_by_prompt(judge):
            seeds.setdefault(cell.id.method, []).append(sum(own.values()) / len(own))
    return {method: sum(means) / len(means) for method, means in seeds.items()}


def _shown(metric: MetricKey, claims: Sequence[Claim]) -> set[Order]:
    """The methods of which one was shown to be higher: over their seeds, or else of some two of their checkpoints."""
    found = {
        (one.a.method, one.b.method)
        for one in claims
        if (one.metric, one.kind, one.decision) == (metric, "policy", "higher")
    }
    return {(high, low) for high, low in found if (low, high) not in found}


def _note(found: Agreement, what: str) -> Iterator[str]:
    if not found.reversed:
        return
    pairs = found.methods * (found.methods - 1) // 2
    named = "; ".join(
        f"{one.higher} over {one.lower}{' (shown by both)' if one.shown else ''}" for one in found.reversed
    )
    a, b = judge_in_words(found.a), judge_in_words(found.b)
    yield (
        f"The ranking of {what} depends on the judge: {a} and {b} differ on {len(found.reversed)} of {pairs} "
        f"{'pair' if pairs == 1 else 'pairs'}. By {a}, not by {b}: {named}."
    )
