"""Policies compared on their answers: win rates, gains at equal length, drift from the base, judge against gold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

from align_bench.metrics.accuracy import wins_of
from align_bench.metrics.finite import Column, is_finite
from align_bench.metrics.length import count_words
from align_bench.metrics.mean import cluster_means, mean
from align_bench.metrics.pareto import pareto
from align_bench.metrics.resampling import OfSums, estimates
from align_bench.metrics.win_rate import Samples, win_rate
from align_bench.records import CellId, Estimate, Generation
from align_bench.report.cells import Cell
from align_bench.report.comparisons import finished
from align_bench.report.schema import UNDEFINED, FrontierPoint, GoldAgainstJudge, Policies, Result, WinRate
from align_bench.stats.bootstrap import Matrix, won
from align_bench.stats.length_bins import Answers, Gain, binned_gain
from align_bench.stats.length_control import length_controlled_win_rate
from align_bench.stats.seeds import MIN_SEEDS, crossed_wins
from align_bench.suite.names import GOLD


def length_controlled(cell: Cell, base: Cell | None, judges: Sequence[str]) -> Estimate:
    """Win rate of a policy against the base at equal length in words, by the first judge.

    Args:
        cell: the cell; undefined for one that is no finished policy.
        base: the base's cell, if it finished.
        judges: the reward judges.
    """
    if base is None or not judges or not _is_finished_policy(cell):
        return UNDEFINED
    return _at_equal_length(cell, base, judges[0])


def length_gain(cell: Cell, base: Cell | None, judges: Sequence[str]) -> Gain:
    """What a policy's answers gained over the base's by the first judge, by length in words.

    Args:
        cell, base, judges: as in `length_controlled`.
    """
    if base is None or not judges or not _is_finished_policy(cell):
        return Gain(UNDEFINED, UNDEFINED, UNDEFINED)
    return binned_gain(_answers(cell, judges[0]), _answers(base, judges[0]))


def kl_per_token(cell: Cell, kl_of: Callable[[Generation], float | None] = lambda answer: answer.kl) -> Estimate:
    """KL of all answers over their tokens, nats, with the BCa interval of resampled prompts.

    Args:
        cell: the cell.
        kl_of: from an answer to its KL, summed over its tokens; by default that to the base.
    """
    measured = [(answer, own) for answer in cell.generations if (own := kl_of(answer)) is not None and is_finite(own)]
    prompts = [answer.prompt_id for answer, _ in measured]
    kl, tokens = (
        np.array(list(cluster_means(values, prompts).values()), dtype=np.float64)
        for values in ([own for _, own in measured], [float(answer.tokens) for answer, _ in measured])
    )
    (found,) = estimates(OfSums(np.stack([kl, tokens], axis=1), lambda sums: sums[..., :1] / sums[..., 1:]), len(kl))
    return found


def compare_policies(cells: Sequence[Cell], results: Sequence[Result], judges: Sequence[str]) -> Policies:
    """Win rates of each pair of cells, and of methods where one has several seeds; the frontier; gold against judge.

    Args:
        cells: all cells.
        results: theirs.
        judges: the reward judges; the first one decides who wins.
    """
    policies = [cell for cell in finished(cells) if cell.outcome.kind != "reward" and cell.generations]
    return Policies(
        judge=judges[0] if judges else None,
        win_rates=_win_rates(policies, judges[0]) if judges else [],
        frontier=_frontier(results),
        gold_against_judge=_gold_against_judge(policies, judges[0]) if judges else [],
    )


def _is_finished_policy(cell: Cell) -> bool:
    return cell.outcome.kind == "policy" and cell.outcome.status == "done"


def _answers(cell: Cell, judge: str) -> Answers:
    scored = [answer for answer in cell.generations if is_finite(answer.scores.get(judge))]
    return Answers(
        [answer.prompt_id for answer in scored],
        np.array([count_words(answer.text) for answer in scored], dtype=np.float64),
        np.array([answer.scores[judge] for answer in scored], dtype=np.float64),
    )


def _at_equal_length(cell: Cell, base: Cell, judge: str) -> Estimate:
    own, other = _answers(cell, judge), _answers(base, judge)
    of_base: dict[Hashable, list[int]] = {}
    for place, prompt in enumerate(other.prompts):
        of_base.setdefault(prompt, []).append(place)
    pairs = [(left, right) for left, prompt in enumerate(own.prompts) for right in of_base.get(prompt, ())]
    left, right = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return length_controlled_win_rate(
        wins_of(own.rewards[left] - other.rewards[right]),
        own.lengths[left] - other.lengths[right],
        [own.prompts[place] for place in left],
    )


def _win_rates(policies: Sequence[Cell], judge: str) -> list[WinRate]:
    scores = {cell.id: cell.samples_by_prompt(judge) for cell in policies}
    known = {cell: own for cell, own in scores.items() if own}
    found = [
        WinRate(a=a, b=b, level="checkpoint", rate=win_rate(known[a], known[b])) for a, b in combinations(known, 2)
    ]
    methods: dict[CellId, list[CellId]] = {}
    for cell in known:
        methods.setdefault(cell.method, []).append(cell)
    prompts = [prompt for prompt in next(iter(known.values()), {}) if all(prompt in own for own in known.values())]
    if len(prompts) < 2 or all(len(cells) == 1 for cells in methods.values()):
        return found
    bases = {cell.id for cell in policies if cell.outcome.kind == "base"}
    # One or two seeds say nothing of further ones: no interval, rather than one over prompts alone.
    able = {method: len(cells) >= MIN_SEEDS or set(cells) <= bases for method, cells in methods.items()}
    tables = {method: _samples([known[cell] for cell in cells], prompts) for method, cells in methods.items()}
    for a, b in combinations(tables, 2):
        wins = crossed_wins(won(tables[a], tables[b]), b_trained=not set(methods[b]) <= bases)
        tested = wins.tested()
        low, high = (tested.low, tested.high) if able[a] and able[b] else (None, None)
        rate = Estimate(
            wins.difference,
            None if low is None else max(0.0, low),
            None if high is None else min(1.0, high),
            len(prompts),
        )
        found.append(WinRate(a=a, b=b, level="method", rate=rate))
    return found


def _samples(seeds: Sequence[Samples], prompts: Sequence[Hashable]) -> Matrix:
    """Scores of each seed's samples, shape [seeds, prompts, samples]; NaN where a prompt has fewer of them."""
    most = max(len(own[prompt]) for own in seeds for prompt in prompts)
    found = np.full((len(seeds), len(prompts), most), np.nan)
    for seed, own in enumerate(seeds):
        for place, prompt in enumerate(prompts):
            found[seed, place, : len(own[prompt])] = own[prompt]
    return found


def _frontier(results: Sequence[Result]) -> list[FrontierPoint]:
    """Policies with a KL, and the base, by KL and judged reward.

    On the frontier is whom no other beats in one of the two without loss in the other.
    """
    points = [(result, _kl(result), result.metrics.judge_reward_mean) for result in results]
    marks = pareto([kl.value for _, kl, _ in points], [reward.value for _, _, reward in points])
    return [
        FrontierPoint(
            cell=result.cell, kl=kl, reward=reward, gold=result.metrics.gold_accuracy, on_frontier=on_frontier
        )
        for (result, kl, reward), on_frontier in zip(points, marks, strict=True)
        if on_frontier is not None
    ]


def _kl(result: Result) -> Estimate:
    if result.kind == "base" and result.status == "done":  # by definition
        return Estimate(0.0, n=result.metrics.judge_reward_mean.n)
    return result.metrics.kl


def _gold_against_judge(policies: Sequence[Cell], judge: str) -> list[GoldAgainstJudge]:
    """Each policy's gains over the base by both, and whether the prompts with more of one have more of the other."""
    base = next((cell for cell in policies if cell.outcome.kind == "base"), None)
    if base is None:
        return []
    found = []
    for cell in policies:
        gains = [_gains(cell, base, name) for name in (judge, GOLD)]
        common = [prompt for prompt in gains[0] if prompt in gains[1]]
        if cell is not base and common:
            by_judge, by_gold = (_column(of, common) for of in gains)
            found.append(
                GoldAgainstJudge(
                    cell=cell.id,
                    judge_gain=mean(by_judge),
                    gold_gain=mean(by_gold),
                    correlation=_correlation(by_judge, by_gold),
                )
            )
    return found


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


def _column(values: Mapping[Hashable, float], prompts: Sequence[Hashable]) -> Column:
    return np.array([values[prompt] for prompt in prompts], dtype=np.float64)
