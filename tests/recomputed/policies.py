"""`policies`, `agreement`, `rankings`, `pareto` and `detectable`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy import stats

from tests.recomputed.arithmetic import NOTHING, Column, Found, Z, by_prompt, pearson, right, student
from tests.recomputed.cells import cell_leaves, method_leaves
from tests.recomputed.claims import claimed
from tests.recomputed.comparisons import Tested
from tests.recomputed.folder import Cell, Folder, Prompt
from tests.recomputed.ledger import Ledger, Path
from tests.recomputed.measures import Measure, common, measures, table
from tests.recomputed.results import win_rate
from tests.recomputed.seeds import MIN_SEEDS, crossed

Sampled = tuple[Cell, dict[Prompt, list[float]]]


def enter(folder: Folder, compared: Sequence[Tested], ledger: Ledger) -> None:
    answering = [cell for cell in folder.finished if cell.kind != "reward" and cell.generations]
    judge = folder.judges[0] if folder.judges else None
    ledger.add(("policies", "judge"), judge)
    if judge is not None:
        _win_rates(folder, answering, judge, ledger)
        _gold_against_judge(folder, answering, judge, ledger)
    _frontier(folder, ledger)
    _agreement(folder, compared, ledger)
    _pareto(folder, ledger)


def _win_rates(folder: Folder, answering: Sequence[Cell], judge: str, ledger: Ledger) -> None:
    scores = [(cell, own) for cell in answering if (own := cell.samples(judge))]
    entries: list[tuple[Cell, Cell, str, Found]] = [
        (one, other, "checkpoint", win_rate(left, right_)) for (one, left), (other, right_) in combinations(scores, 2)
    ]
    methods: dict[str, list[Sampled]] = {}
    for cell, own in scores:
        methods.setdefault(cell.method, []).append((cell, own))
    prompts = [prompt for prompt in scores[0][1] if all(prompt in own for _, own in scores)] if scores else []
    if len(prompts) >= 2 and any(len(cells) > 1 for cells in methods.values()):
        for a, b in combinations(methods, 2):
            entries.append((methods[a][0][0], methods[b][0][0], "method", _between(methods[a], methods[b], prompts)))
    for place, (first, second, level, rate) in enumerate(entries):
        path: Path = ("policies", "win_rates", place)
        leaves_of = cell_leaves if level == "checkpoint" else method_leaves
        leaves_of(ledger, (*path, "a"), first)
        leaves_of(ledger, (*path, "b"), second)
        ledger.add((*path, "level"), level)
        ledger.estimate((*path, "rate"), rate)


def _between(one: Sequence[Sampled], other: Sequence[Sampled], prompts: Sequence[Prompt]) -> Found:
    """Over all pairs of seeds, with the interval over seeds and prompts."""
    wins = np.array(
        [
            [
                [np.mean([right(np.array([x - y]))[0] for x in own[prompt] for y in its[prompt]]) for prompt in prompts]
                for _, its in other
            ]
            for _, own in one
        ]
    )
    trained = other[0][0].kind != "base"
    between = crossed([wins.mean(axis=1), *([wins.mean(axis=0)] if trained else [])], wins.mean(axis=(0, 1)))
    low, high = between.interval()
    return Found(
        between.difference,
        None if low is None else max(0.0, low),
        None if high is None else min(1.0, high),
        len(prompts),
    )


def _frontier(folder: Folder, ledger: Ledger) -> None:
    """Policies by KL and reward: on the frontier is whom no other beats in one without loss in the other."""
    points = []
    for cell in folder.cells:
        judged = by_prompt(cell.judged(folder.judges[0]), cell.prompts) if folder.judges else NOTHING
        kl = by_prompt([row["kl"] for row in cell.generations], cell.prompts)
        if cell.kind == "base" and cell.done:
            kl = Found(0.0, n=judged.n)
        if kl.value is not None and judged.value is not None:
            points.append((cell, kl, judged, ledger.numbers))
    for place, (cell, kl, judged, numbers) in enumerate(points):
        path: Path = ("policies", "frontier", place)
        cell_leaves(ledger, (*path, "cell"), cell)
        ledger.estimate((*path, "kl"), kl)
        ledger.estimate((*path, "reward"), judged)
        for name in ("value", "low", "high", "n", "wanted"):
            gold = numbers["results", cell.place, "metrics", "gold_accuracy", name]
            ledger.add((*path, "gold", name), gold.value, (gold.least, gold.most))
        own = _quality(kl.value, judged.value)
        beaten = any(_beats(_quality(its.value, reward.value), own) for _, its, reward, _ in points)
        ledger.add((*path, "on_frontier"), not beaten)


def _quality(cost: float | None, quality: float | None) -> tuple[float, float]:
    assert cost is not None
    assert quality is not None
    return cost, quality


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def _gold_against_judge(folder: Folder, answering: Sequence[Cell], judge: str, ledger: Ledger) -> None:
    base = folder.base
    if base is None:
        return
    place = 0
    for cell in answering:
        gains = []
        for name in (judge, "gold"):
            own, its = cell.by_prompt(name), base.by_prompt(name)
            gains.append({prompt: own[prompt] - its[prompt] for prompt in own if prompt in its})
        both = [prompt for prompt in gains[0] if prompt in gains[1]]
        if cell is base or not both:
            continue
        left, other = (np.array([of[prompt] for prompt in both]) for of in gains)
        path: Path = ("policies", "gold_against_judge", place)
        cell_leaves(ledger, (*path, "cell"), cell)
        ledger.estimate((*path, "judge_gain"), student(left))
        ledger.estimate((*path, "gold_gain"), student(other))
        ledger.estimate((*path, "correlation"), fisher(left, other))
        place += 1


def fisher(left: Column, other: Column) -> Found:
    """Pearson's correlation with Fisher's interval."""
    n = len(left)
    if n < 4 or np.ptp(left) == 0 or np.ptp(other) == 0:
        return Found(None, n=n)
    value = pearson(left, other)
    reach = Z / math.sqrt(n - 3)
    return Found(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach), n)


def _agreement(folder: Folder, compared: Sequence[Tested], ledger: Ledger) -> None:
    answered = [cell for cell in folder.cells if cell.generations]
    rows = [row for cell in answered for row in cell.generations]
    names = [judge for judge in folder.judges if any(judge in row["scores"] for row in rows)]
    if rows and "gold" not in folder.judges and all("gold" in row["scores"] for row in rows):
        names.append("gold")
    cells = {cell.method: cell for cell in answered}
    shown = {name: _shown(folder, name, compared) for name in names}
    for place, (a, b) in enumerate(combinations(names, 2)):
        path: Path = ("agreement", place)
        by_a, by_b = _means(answered, a), _means(answered, b)
        methods = [method for method in by_a if method in by_b]
        ledger.record(path, {"a": a, "b": b, "methods": len(methods)})
        ledger.add((*path, "kendall_tau"), tau_b([by_a[one] for one in methods], [by_b[one] for one in methods]))
        ledger.estimate((*path, "agreement"), _preferences(answered, a, b))
        turned = [
            (one, other) if by_a[one] > by_a[other] else (other, one)
            for one, other in combinations(methods, 2)
            if (by_a[one] - by_a[other]) * (by_b[one] - by_b[other]) < 0
        ]
        for number, (higher, lower) in enumerate(turned):
            method_leaves(ledger, (*path, "reversed", number, "higher"), cells[higher])
            method_leaves(ledger, (*path, "reversed", number, "lower"), cells[lower])
            ledger.add(
                (*path, "reversed", number, "shown"), (higher, lower) in shown[a] and (lower, higher) in shown[b]
            )


def _shown(folder: Folder, judge: str, compared: Sequence[Tested]) -> set[tuple[str, str]]:
    """The methods, the higher one first, that were claimed to differ by a judge."""
    name = "gold_accuracy" if judge == "gold" and judge not in folder.judges else "judge_reward"
    of = "" if judge in ("gold", folder.judges[0]) else judge
    found = set()
    for one in claimed(compared):
        if (one.measure, one.of) == (name, of) and one.numbers["decision"] in ("higher", "lower"):
            ends = one.a.method, one.b.method
            found.add(ends if one.numbers["decision"] == "higher" else ends[::-1])
    return found


def _means(cells: Sequence[Cell], judge: str) -> dict[str, float]:
    """Method → mean over its seeds of the mean over prompts."""
    seeds: dict[str, list[float]] = {}
    for cell in cells:
        if own := cell.by_prompt(judge):
            seeds.setdefault(cell.method, []).append(sum(own.values()) / len(own))
    return {method: sum(own) / len(own) for method, own in seeds.items()}


def tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Concordant less discordant pairs, over the geometric mean of the pairs untied in a and in b."""
    signs = [(np.sign(a[one] - a[other]), np.sign(b[one] - b[other])) for one, other in combinations(range(len(a)), 2)]
    untied = sum(left != 0 for left, _ in signs), sum(other != 0 for _, other in signs)
    if not all(untied):
        return None
    return float(sum(left * other for left, other in signs) / math.sqrt(untied[0] * untied[1]))


def _preferences(cells: Sequence[Cell], a: str, b: str) -> Found:
    agreed: list[float] = []
    prompts: list[Prompt] = []
    scores = [(cell.by_prompt(a), cell.by_prompt(b)) for cell in cells]
    for (one_a, one_b), (other_a, other_b) in combinations(scores, 2):
        for prompt in set(one_a) & set(one_b) & set(other_a) & set(other_b):
            signs = np.sign(one_a[prompt] - other_a[prompt]), np.sign(one_b[prompt] - other_b[prompt])
            if all(signs):
                agreed.append(float(signs[0] == signs[1]))
                prompts.append(prompt)
    found = by_prompt(agreed, prompts)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _pareto(folder: Folder, ledger: Ledger) -> None:
    rewards = [cell for cell in folder.cells if cell.kind == "reward" and cell.algorithm != "judge"]
    others = [cell for cell in folder.cells if cell.kind != "reward"]
    wanted = [("reward models", rewards, metric) for metric in ("accuracy", "accuracy_gold_choice")]
    wanted += [("policies", others, metric) for metric in ("judge_reward_mean", "gold_accuracy", "accuracy_logp_mean")]
    place = 0
    for among, cells, metric in wanted:
        points = []
        for cell in cells:
            value = ledger.numbers["results", cell.place, "metrics", metric, "value"].value
            if cell.done and cell.seconds is not None and isinstance(value, float):
                points.append((cell, (cell.seconds, value)))
        best = [cell for cell, own in points if not any(_beats(its, own) for _, its in points)]
        if best:
            ledger.record(("pareto", place), {"among": among, "metric": metric, "cost": "seconds"})
            for number, cell in enumerate(best):
                cell_leaves(ledger, ("pareto", place, "cells", number), cell)
            place += 1


def enter_rankings(folder: Folder, compared: Sequence[Tested], ledger: Ledger) -> None:
    place = 0
    for measure in measures(folder):
        if len(measure.methods) > 1:
            units = common([own for _, own in measure.values])
            if len({measure.prompt(unit) for unit in units}) > 1:
                _ranking(measure, units, compared, ledger, ("rankings", place))
                place += 1


def _ranking(
    measure: Measure, units: Sequence[Hashable], compared: Sequence[Tested], ledger: Ledger, path: Path
) -> None:
    methods = measure.methods
    tables = {method: table([values for _, values in own], units) for method, own in methods.items()}
    prompts = [measure.prompt(unit) for unit in units]
    counts = [len(own) for own in methods.values() if own[0][0].kind != "base"]
    level = "method" if all(count >= MIN_SEEDS for count in counts) else "checkpoint"
    known = {"kind": measure.kind, "unit": measure.unit, "level": level}
    ledger.record((*path, "metric"), {"name": measure.name, "of": measure.of})
    ledger.record(path, {**known, "n": len(units), "prompts": len(set(prompts))})
    ledger.record((*path, "friedman"), {"test": "Friedman (prompts)", "n": len(set(prompts))})
    ledger.p((*path, "friedman", "p"), _friedman([one.mean(axis=0) for one in tables.values()], prompts))
    means = {method: float(one.mean()) for method, one in tables.items()}
    ranks = {
        method: 1 + sum(its > own for its in means.values()) + (sum(its == own for its in means.values()) - 1) / 2
        for method, own in means.items()
    }
    shown = {
        (one.a.method, one.b.method) if one.numbers["decision"] == "higher" else (one.b.method, one.a.method)
        for one in compared
        if (one.level, one.measure, one.of) == (level, measure.name, measure.of)
        and one.numbers["decision"] in ("higher", "lower")
        and {one.a.method, one.b.method} <= methods.keys()
    }
    bounded = level == "method" or all(count == 1 for count in counts)
    for place, method in enumerate(sorted(methods, key=lambda one: ranks[one])):
        own: Path = (*path, "methods", place)
        method_leaves(ledger, (*own, "method"), methods[method][0][0])
        ledger.record(own, {"seeds": len(methods[method]), "value": means[method], "rank": ranks[method]})
        above, below = (sum(pair[side] == method for pair in shown) for side in (1, 0))
        low, high = min(ranks[method], 1.0 + above), max(ranks[method], float(len(methods) - below))
        ledger.record(own, {"low": low, "high": high} if bounded else {"low": None, "high": None})


def _friedman(columns: Sequence[Column], prompts: Sequence[Hashable]) -> float | None:
    """Friedman's chi-square, corrected for ties; prompts are the blocks."""
    if len(columns) < 3:
        return None
    names = list(dict.fromkeys(prompts))
    blocks = np.array(
        [
            [np.mean([x for x, prompt in zip(column, prompts, strict=True) if prompt == name]) for column in columns]
            for name in names
        ]
    )
    if not np.ptp(blocks, axis=1).any():
        return None
    places = np.array([stats.rankdata(np.round(block, 12)) for block in blocks])
    count, k = places.shape
    ties = sum((own**3 - own).sum() for block in places for own in [np.unique(block, return_counts=True)[1]])
    statistic = 12 / (count * k * (k + 1)) * (places.sum(0) ** 2).sum() - 3 * count * (k + 1)
    statistic /= 1 - ties / (count * (k**3 - k))
    return float(stats.chi2.sf(statistic, k - 1))
