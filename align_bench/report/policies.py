"""Policies compared on their answers: win rates, gains at equal length, drift from the base, judge against gold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from align_bench.metrics.bootstrap import percentile_interval
from align_bench.metrics.finite import Column, is_finite
from align_bench.metrics.length import count_words
from align_bench.metrics.mean import cluster_means, mean
from align_bench.metrics.win_rate import win_rate
from align_bench.records import Estimate
from align_bench.report.cells import GOLD, Cell
from align_bench.report.comparisons import finished
from align_bench.report.naming import method_of
from align_bench.stats.bootstrap import percentiles, resampled_win_rates, won
from align_bench.stats.length_bins import Answers, Gain, binned_gain
from align_bench.stats.length_control import length_controlled_win_rate
from align_bench.stats.seeds import MIN_SEEDS

UNDEFINED = Estimate(None)


def policy_metrics(cell: Cell, base: Cell | None, judges: Sequence[str]) -> dict[str, Estimate]:
    """What a policy's answers gained over the base's by the first judge, and how far they moved from it.

    Lengths are in words, KL in nats; of a prompt's samples the mean is taken first.

    Args:
        cell: the cell; all is None for one that is no policy.
        base: the base's cell, if it finished.
        judges: the reward judges.
    """
    compared = base is not None and judges and cell.outcome.kind == "policy" and cell.outcome.status == "done"
    gain = _gain(cell, base, judges[0]) if compared and base else Gain(UNDEFINED, UNDEFINED, UNDEFINED)
    return {
        "win_rate_length_controlled": _at_equal_length(cell, base, judges[0]) if compared and base else UNDEFINED,
        "judge_gain": gain.total,
        "judge_gain_within_length": gain.within,
        "judge_gain_between_length": gain.between,
        "kl": mean([answer.kl for answer in cell.generations], cell.prompts),
        "kl_per_token": _kl_per_token(cell),
        "log_ratio": mean([_log_ratio(answer.logp, answer.ref_logp) for answer in cell.generations], cell.prompts),
    }


def compare_policies(
    cells: Sequence[Cell], results: Sequence[Mapping[str, Any]], judges: Sequence[str]
) -> dict[str, Any]:
    """The block `policies` of the report.

    Args:
        cells: all cells.
        results: the report's block of that name.
        judges: the reward judges; the first one decides who wins.

    Returns:
        `win_rates`: `a`, `b`, `level`, `value`, `low`, `high`, `n` (prompts) for each pair of cells, and of methods
        where one has several seeds; `frontier`: `cell`, `kl`, `reward`, `gold` and `on_frontier` for each policy with a
        KL, and the base; `gold_against_judge`: `cell`, `judge_gain`, `gold_gain`, `correlation` for each policy.
    """
    policies = [cell for cell in finished(cells) if cell.outcome.kind != "reward" and cell.generations]
    return {
        "judge": judges[0] if judges else None,
        "win_rates": _win_rates(policies, judges[0]) if judges else [],
        "frontier": _frontier(results),
        "gold_against_judge": _gold_against_judge(policies, judges[0]) if judges else [],
    }


def _gain(cell: Cell, base: Cell, judge: str) -> Gain:
    return binned_gain(_answers(cell, judge), _answers(base, judge))


def _answers(cell: Cell, judge: str) -> Answers:
    scored = [answer for answer in cell.generations if is_finite(answer.scores.get(judge))]
    return Answers(
        [answer.prompt_id for answer in scored],
        np.array([count_words(answer.text) for answer in scored], dtype=np.float64),
        np.array([answer.scores[judge] for answer in scored], dtype=np.float64),
    )


def _at_equal_length(cell: Cell, base: Cell, judge: str) -> Estimate:
    own, other = cell.judged_by_prompt(judge), base.judged_by_prompt(judge)
    words = [
        cluster_means([float(count_words(answer.text)) for answer in side.generations], side.prompts)
        for side in (cell, base)
    ]
    prompts = [prompt for prompt in own if prompt in other]
    scores, lengths = ([_column(of, prompts) for of in pair] for pair in ((own, other), words))
    return length_controlled_win_rate((np.sign(scores[0] - scores[1]) + 1) / 2, lengths[0] - lengths[1])


def _kl_per_token(cell: Cell) -> Estimate:
    """KL of all answers over their tokens, with a percentile bootstrap over prompts."""
    measured = [answer for answer in cell.generations if is_finite(answer.kl)]
    prompts = [answer.prompt_id for answer in measured]
    kl, tokens = (
        np.array(list(cluster_means(values, prompts).values()), dtype=np.float64)
        for values in ([answer.kl for answer in measured], [float(answer.tokens) for answer in measured])
    )
    if not len(kl):
        return UNDEFINED
    value = float(kl.sum() / tokens.sum())
    if len(kl) < 2:
        return Estimate(value, n=len(kl))
    return Estimate(value, *percentile_interval((kl, tokens), _ratio), len(kl))


def _ratio(above: Column, below: Column, axis: int = -1) -> Any:
    return above.sum(axis) / below.sum(axis)


def _log_ratio(own: float | None, reference: float | None) -> float | None:
    return None if own is None or reference is None else own - reference


def _win_rates(policies: Sequence[Cell], judge: str) -> list[dict[str, Any]]:
    scores: dict[str, Mapping[Any, float]] = {cell.name: cell.judged_by_prompt(judge) for cell in policies}
    known = {name: own for name, own in scores.items() if own}
    rows = [
        {"a": a, "b": b, "level": "checkpoint", **_numbers(win_rate(known[a], known[b]))}
        for a, b in combinations(known, 2)
    ]
    methods: dict[str, list[str]] = {}
    for name in known:
        methods.setdefault(method_of(name), []).append(name)
    prompts = [prompt for prompt in next(iter(known.values()), {}) if all(prompt in own for own in known.values())]
    if len(prompts) < 2 or all(len(cells) == 1 for cells in methods.values()):
        return rows
    bases = {cell.name for cell in policies if cell.outcome.kind == "base"}
    # One or two seeds say nothing of further ones: no interval, rather than one over prompts alone.
    able = {name: len(cells) >= MIN_SEEDS or set(cells) <= bases for name, cells in methods.items()}
    tables = {name: np.stack([_column(known[cell], prompts) for cell in cells]) for name, cells in methods.items()}
    for (a, b), drawn in zip(combinations(tables, 2), resampled_win_rates(list(tables.values())), strict=True):
        low, high = percentiles(drawn) if able[a] and able[b] else (None, None)
        rate = Estimate(float(won(tables[a], tables[b]).mean()), low, high, len(prompts))
        rows.append({"a": a, "b": b, "level": "method", **_numbers(rate)})
    return rows


def _frontier(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Policies by KL and judged reward; on the frontier when no other has at least as much reward for no more KL."""
    points = []
    for found in results:
        kl, reward = found["metrics"]["kl"], found["metrics"]["judge_reward_mean"]
        if found["kind"] == "base" and found["status"] == "done":
            kl = {"value": 0.0, "low": None, "high": None, "n": reward["n"]}  # by definition
        if kl["value"] is not None and reward["value"] is not None:
            gold = found["metrics"]["gold_accuracy"]
            points.append({"cell": found["cell"], "kl": kl, "reward": reward, "gold": gold})
    return [{**point, "on_frontier": not any(_dominates(other, point) for other in points)} for point in points]


def _dominates(other: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    less_kl = other["kl"]["value"] <= point["kl"]["value"]
    more_reward = other["reward"]["value"] >= point["reward"]["value"]
    equal = (other["kl"]["value"], other["reward"]["value"]) == (point["kl"]["value"], point["reward"]["value"])
    return less_kl and more_reward and not equal


def _gold_against_judge(policies: Sequence[Cell], judge: str) -> list[dict[str, Any]]:
    """Each policy's gains over the base by both, and whether the prompts with more of one have more of the other."""
    base = next((cell for cell in policies if cell.outcome.kind == "base"), None)
    if base is None:
        return []
    rows = []
    for cell in policies:
        gains = [_gains(cell, base, name) for name in (judge, GOLD)]
        common = [prompt for prompt in gains[0] if prompt in gains[1]]
        if cell is not base and common:
            by_judge, by_gold = (_column(of, common) for of in gains)
            rows.append(
                {
                    "cell": cell.name,
                    "judge_gain": _numbers(mean(by_judge)),
                    "gold_gain": _numbers(mean(by_gold)),
                    "correlation": _numbers(_correlation(by_judge, by_gold)),
                }
            )
    return rows


def _gains(cell: Cell, base: Cell, judge: str) -> dict[Hashable, float]:
    own, other = cell.judged_by_prompt(judge), base.judged_by_prompt(judge)
    return {prompt: score - other[prompt] for prompt, score in own.items() if prompt in other}


def _correlation(left: Column, right: Column) -> Estimate:
    """Pearson's correlation with Fisher's interval (scipy); None without 4 prompts, and where one does not vary."""
    n = len(left)
    if n < 4 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return Estimate(None, n=n)
    from scipy.stats import pearsonr

    found = pearsonr(left, right)
    low, high = found.confidence_interval(0.95)
    return Estimate(float(found.statistic), float(low), float(high), n)


def _column(values: Mapping[Any, float], prompts: Sequence[Hashable]) -> Column:
    return np.array([values[prompt] for prompt in prompts], dtype=np.float64)


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
