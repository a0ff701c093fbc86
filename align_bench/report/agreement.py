"""How far the judges agree: on the ranking of methods, and prompt by prompt on which of two answers is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from align_bench.metrics.agreement import kendall_tau, preference_agreement
from align_bench.records import Comparison
from align_bench.report.cells import GOLD, Cell, judge_metric
from align_bench.report.naming import method_of

ALPHA = 0.05


def agreements(cells: Sequence[Cell], judges: Sequence[str], comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A record for each two judges, gold among them where every answer has its verdict.

    Args:
        cells: the finished and unfinished cells.
        judges: names, the main one first.
        comparisons: tells which differences were shown.

    Returns:
        `a`, `b`: the judges; `methods`: how many were ranked, the base among them; `kendall_tau`: of their rankings by
        mean score (over seeds); `agreement`: an estimate, see `metrics.agreement`; `reversed`: pairs of methods that
        they rank the other way round, each with `higher` by a, `lower` by a, and whether both differences were `shown`
        between checkpoints.
    """
    answered = [cell for cell in cells if cell.generations]
    gold = all(GOLD in answer.scores for cell in answered for answer in cell.generations)
    scored = [
        judge for judge in judges if any(judge in answer.scores for cell in answered for answer in cell.generations)
    ]
    names = [*scored, *([GOLD] if answered and gold and GOLD not in judges else [])]
    return [_agreement(a, b, answered, judges, comparisons) for a, b in combinations(names, 2)]


def agreement_notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for each two judges that rank methods differently."""
    return [note for one in found for note in _note(one)]


def shared_rows_notes(panel: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for each judge that learned from rows or prompts of the policies."""
    return [
        f"Judge {judge['name']}: {shared['same_rows']:,} of its {shared['rows']:,} training rows are also training "
        f"rows of the policies, and {shared['same_prompts']:,} share a prompt with them."
        for judge in panel
        if (shared := judge.get("overlap")) and shared["same_prompts"]
    ]


def _agreement(
    a: str, b: str, cells: Sequence[Cell], judges: Sequence[str], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    by_judge = [{cell.name: cell.judged_by_prompt(judge) for cell in cells} for judge in (a, b)]
    left, right = (_means(scores) for scores in by_judge)
    common = [method for method in left if method in right]
    return {
        "a": a,
        "b": b,
        "methods": len(common),
        "kendall_tau": kendall_tau([left[name] for name in common], [right[name] for name in common]),
        "agreement": asdict(preference_agreement(*by_judge)),
        "reversed": [
            {"higher": high, "lower": low, "shown": _shown(high, low, (a, b), judges, comparisons)}
            for one, other in combinations(common, 2)
            for high, low in [(one, other) if left[one] > left[other] else (other, one)]
            if (left[one] - left[other]) * (right[one] - right[other]) < 0
        ],
    }


def _means(scores: Mapping[str, Mapping[Any, float]]) -> dict[str, float]:
    """Method → mean score over prompts, then over seeds."""
    seeds: dict[str, list[float]] = {}
    for cell, own in scores.items():
        if own:
            seeds.setdefault(method_of(cell), []).append(sum(own.values()) / len(own))
    return {method: sum(means) / len(means) for method, means in seeds.items()}


def _shown(
    high: str, low: str, pair: tuple[str, str], judges: Sequence[str], comparisons: Sequence[Comparison]
) -> bool:
    """Whether both judges' differences are significant, and opposed, between some two checkpoints of the methods."""
    signs: list[set[int]] = []
    for judge in pair:
        metric = "gold_accuracy" if judge not in judges else judge_metric("judge_reward", judge, judges)
        tested = [
            (found.difference or 0.0) * (1 if method_of(found.a) == high else -1)
            for found in comparisons
            if found.level == "checkpoint"
            and found.metric == metric
            and {method_of(found.a), method_of(found.b)} == {high, low}
            and found.p_holm is not None
            and found.p_holm < ALPHA
        ]
        signs.append({1 if difference > 0 else -1 for difference in tested})
    return 1 in signs[0] and -1 in signs[1]


def _note(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["reversed"]:
        return
    pairs = found["methods"] * (found["methods"] - 1) // 2
    named = "; ".join(
        f"{one['higher']} over {one['lower']}{' (shown by both)' if one['shown'] else ''}" for one in found["reversed"]
    )
    yield (
        f"The ranking of methods depends on the judge: {found['a']} and {found['b']} differ on "
        f"{len(found['reversed'])} of {pairs} pairs. By {found['a']}, not by {found['b']}: {named}."
    )
