"""`results[].metrics` and `baselines`, from `scores.parquet` and `generations.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import stats

from tests.recomputed import texts
from tests.recomputed.arithmetic import (
    NOTHING,
    Column,
    Drawn,
    Found,
    Numbers,
    Statistic,
    accuracy,
    bootstrap,
    bounds_at,
    by_prompt,
    known,
    of_pairs,
    places,
    prompt_means,
    resampled_counts,
    right,
    share,
    wanted,
    weighted_mean,
    weighted_std,
    wilson,
    with_prompts,
)
from tests.recomputed.folder import Cell, Folder, Prompt, Row, finite, prompt_of
from tests.recomputed.ledger import Ledger, Path

BINS = 10
RIDGE = 0.01
ITERATED = 1e-5  # the report's fit stops at some step


def enter(folder: Folder, ledger: Ledger) -> None:
    for cell in folder.cells:
        path: Path = ("results", cell.place, "metrics")
        _of_pairs(cell, ledger, path)
        _of_answers(folder, cell, ledger, path)
        _against_base(folder, cell, ledger, path)
        _against_start(folder, cell, ledger, path)
    _baselines(folder, ledger)


def _of_pairs(cell: Cell, ledger: Ledger, path: Path) -> None:
    rows = cell.scores
    prompts = [prompt_of(row) for row in rows]
    chosen, rejected = cell.column("chosen_reward"), cell.column("rejected_reward")

    def enter(name: str, found: Found) -> None:
        ledger.estimate((*path, name), found)

    enter("accuracy", accuracy(chosen, rejected, prompts))
    enter("tie_rate", ties(chosen, rejected, prompts))
    enter("accuracy_chosen_longer", _accuracy_where(rows, lambda left, other: left > other))
    enter("accuracy_chosen_shorter", _accuracy_where(rows, lambda left, other: left < other))
    gold = [ordered for row in rows if (ordered := by_gold(row)) is not None]
    enter("accuracy_gold_choice", _accuracy_of(gold))
    enter("accuracy_right_shorter", _accuracy_of([one for one in gold if right_shorter(one)]))
    _length_correlations(cell, gold, ledger, path)
    _attacked(rows, ledger, path)
    enter("accuracy_logp_mean", accuracy(*sides(rows, logp_mean), prompts))
    ratios = accuracy(*sides(rows, log_ratio), prompts)
    enter("accuracy_logratio", ratios if cell.kind == "policy" else NOTHING)
    for side in ("chosen", "rejected"):
        known, own = with_prompts(prompts, [log_ratio(row, side) for row in rows])
        enter(f"log_ratio_{side}", of_pairs(known, own) if cell.kind == "policy" else NOTHING)
    left, other, own = with_prompts(prompts, chosen, rejected)
    enter("reward_mean", of_pairs((left + other) / 2, own))
    enter("margin", of_pairs(left - other, own))
    enter("reward_std", spread([left, other], own))


def ties(chosen: Numbers, rejected: Numbers, prompts: Sequence[Prompt]) -> Found:
    left, other, groups = with_prompts(prompts, chosen, rejected)
    return share((left == other).astype(np.float64), groups)


def spread(samples: Sequence[Column], groups: Sequence[Hashable]) -> Found:
    """Unbiased standard deviation of all scores; the studentised bootstrap of its logarithm over prompts."""
    every = np.concatenate(samples) if samples else np.array([])
    n = len(samples[0]) if samples else 0
    if len(every) < 2:
        return Found(None, n=n)
    value = math.sqrt(((every - every.mean()) ** 2).sum() / (len(every) - 1))
    if n < 2 or np.ptp(every) == 0:
        return Found(value, n=n)
    rows = [np.concatenate([sample[own] for sample in samples]) for own in places(groups)]
    bounds = _log_bounds(rows, value)
    if bounds is None:
        return Found(value, n=n)
    variance = float(((every - every.mean()) ** 2).mean())
    influences = np.array([((own - every.mean()) ** 2 - variance).sum() for own in rows])
    return Found(value, bounds.low, bounds.high, n, bounds, wanted(influences, n, 12))


def _log_bounds(prompts: Sequence[Column], value: float) -> Drawn | None:
    """Of a standard deviation; its error is that of the linear part of its logarithm.

    Args:
        prompts: the scores of each prompt.
        value: the standard deviation.
    """
    count = len(prompts)
    members = np.repeat(np.eye(count), [len(own) for own in prompts], axis=1)
    scores = np.concatenate(prompts)
    if count < 5:
        return None

    def log_and_error(counts: Column) -> tuple[Column, Column]:
        weights = counts @ members
        size = weights.sum(axis=1)
        mean = weighted_mean(weights, scores)
        variance = weighted_std(weights, scores) ** 2
        parts = ((scores - mean[:, None]) ** 2 - variance[:, None]) @ members.T
        error = np.sqrt((counts * parts**2).sum(axis=1) * count / (count - 1)) / (2 * size * variance)
        return np.log(variance) / 2, error

    with np.errstate(invalid="ignore", divide="ignore"):
        log, (error,) = math.log(value), log_and_error(np.ones((1, count)))[1]
        logs, errors = log_and_error(resampled_counts(count))
        ratios = (logs - log) / np.where(errors > 1e-6 * error, errors, np.nan)
    kept = ratios[np.isfinite(ratios)]
    if not error > 0 or len(kept) < 0.95 * len(ratios):
        return None
    ends = bounds_at(kept, np.array([0.025, 0.975]))

    def turned(bounds: tuple[float, float]) -> tuple[float, float]:
        return math.exp(log - bounds[1] * error), math.exp(log - bounds[0] * error)

    low, high = turned((ends.low, ends.high))
    return Drawn(low, high, turned(ends.high_range), turned(ends.low_range))


def bounded(value: float, n: int, statistic: Statistic, groups: Sequence[Hashable], alpha: float = 0.05) -> Found:
    return drawn(value, n, bootstrap(statistic, groups, n, alpha)[0])


def drawn(value: float, n: int, bounds: Drawn | None) -> Found:
    return Found(value, n=n) if bounds is None else Found(value, bounds.low, bounds.high, n, bounds, bounds.wanted)


def by_gold(row: Row) -> tuple[Row, str, str] | None:
    """The row with the sides of the right and of the wrong answer."""
    if row["gold_choice"] not in (1, 2):
        return None
    return (row, "chosen", "rejected") if row["gold_choice"] == 1 else (row, "rejected", "chosen")


def right_shorter(ordered: tuple[Row, str, str]) -> bool:
    row, better, worse = ordered
    words = row[f"{better}_words"], row[f"{worse}_words"]
    return None not in words and words[0] < words[1]


def _accuracy_of(ordered: Sequence[tuple[Row, str, str]]) -> Found:
    return accuracy(
        [row[f"{better}_reward"] for row, better, _ in ordered],
        [row[f"{worse}_reward"] for row, _, worse in ordered],
        [prompt_of(row) for row, _, _ in ordered],
    )


def _accuracy_where(rows: Sequence[Row], holds: Callable[[int, int], bool]) -> Found:
    kept = [
        row
        for row in rows
        if row["chosen_words"] is not None
        and row["rejected_words"] is not None
        and holds(row["chosen_words"], row["rejected_words"])
    ]
    return accuracy(
        [row["chosen_reward"] for row in kept],
        [row["rejected_reward"] for row in kept],
        [prompt_of(row) for row in kept],
    )


def sides(rows: Sequence[Row], measure: Callable[[Row, str], float | None]) -> tuple[Numbers, Numbers]:
    return [measure(row, "chosen") for row in rows], [measure(row, "rejected") for row in rows]


def logp_mean(row: Row, side: str) -> float | None:
    logp, tokens = row[f"{side}_logp"], row[f"{side}_tokens"]
    return None if logp is None or not tokens else float(logp / tokens)


def log_ratio(row: Row, side: str) -> float | None:
    logp, reference = row[f"{side}_logp"], row[f"ref_{side}_logp"]
    return None if logp is None or reference is None else float(logp - reference)


def partial(weights: Column, better: Column, worse: Column, better_words: Column, worse_words: Column) -> Column:
    """Pearson's correlation of score and length, both centred among the better and among the worse answers."""
    total = weights.sum(axis=1, keepdims=True)
    scores, lengths = (
        np.concatenate([side - (weights * side).sum(axis=1, keepdims=True) / total for side in sides], axis=1)
        for sides in ((better, worse), (better_words, worse_words))
    )
    twice = np.tile(weights, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            (twice * scores * lengths).sum(1) / np.sqrt((twice * scores**2).sum(1) * (twice * lengths**2).sum(1))
        )


def once(statistic: Statistic, rows: int) -> float:
    """The statistic of the rows as they are."""
    return float(statistic(np.ones((1, rows)))[0])


def _length_correlations(cell: Cell, gold: Sequence[tuple[Row, str, str]], ledger: Ledger, path: Path) -> None:
    label = [(row, "chosen", "rejected") for row in cell.scores]
    for name, ordered in (("label", label), ("gold", gold)):
        found = length_correlation(ordered) if cell.kind == "reward" else NOTHING
        ledger.estimate((*path, f"length_correlation_given_{name}"), found)


def length_correlation(ordered: Sequence[tuple[Row, str, str]]) -> Found:
    columns = [
        [row[f"{side}_{what}"] for row, *sides in ordered for side in (sides[place],)]
        for what in ("reward", "words")
        for place in (0, 1)
    ]
    *samples, groups = with_prompts([prompt_of(row) for row, *_ in ordered], *columns)
    n = len(groups)

    def statistic(weights: Column) -> Column:
        return partial(weights, *samples)

    value = once(statistic, n) if n > 1 else math.nan
    if not math.isfinite(value):
        return Found(None, n=n)
    return bounded(value, n, statistic, groups)


def _attacked(rows: Sequence[Row], ledger: Ledger, path: Path) -> None:
    sizes = list(
        dict.fromkeys(
            attack["epsilon"] for row in rows for attack in row["attacked"] if attack["chosen_reward"] is not None
        )
    )
    for place, size in enumerate(sizes):
        own = [next((one for one in row["attacked"] if one["epsilon"] == size), None) for row in rows]
        left, other = (
            [None if one is None else one[f"{side}_reward"] for one in own] for side in ("chosen", "rejected")
        )
        ledger.add((*path, "attacked", place, "epsilon"), size)
        found = accuracy(left, other, [prompt_of(row) for row in rows])
        ledger.estimate((*path, "attacked", place, "accuracy"), found)


def _of_answers(folder: Folder, cell: Cell, ledger: Ledger, path: Path) -> None:
    prompts = cell.prompts
    written = [row["text"] for row in cell.generations]

    def enter(name: str, found: Found) -> None:
        ledger.estimate((*path, name), found)

    for place, judge in enumerate(folder.judges):
        scored = by_prompt(cell.judged(judge), prompts)
        deviation = judged_spread(cell, judge)
        if place == 0:
            enter("judge_reward_mean", scored)
            enter("judge_reward_std", deviation)
        else:
            own: Path = (*path, "other_judges", place - 1)
            ledger.add((*own, "judge"), judge)
            ledger.estimate((*own, "mean"), scored)
            ledger.estimate((*own, "std"), deviation)
    if not folder.judges:
        enter("judge_reward_mean", NOTHING)
        enter("judge_reward_std", NOTHING)
    named = list(dict.fromkeys(name for row in cell.generations for name in row["proxies"]))
    for place, name in enumerate(named):
        ledger.add((*path, "proxies", place, "reward"), name)
        ledger.estimate((*path, "proxies", place, "mean"), by_prompt(cell.judged(name, "proxies"), prompts))
    enter("gold_accuracy", _gold(cell))
    enter("length_words", by_prompt([len(texts.words(texts.said(text))) for text in written], prompts))
    enter("length_characters", by_prompt([len(texts.said(text)) for text in written], prompts))
    enter("length_tokens", by_prompt([row["tokens"] for row in cell.generations], prompts))
    enter("readability_grade", by_prompt([texts.flesch_kincaid(texts.said(text)) for text in written], prompts))
    for n in (1, 2, 3):
        share, grams = texts.distinct(written, n)
        enter(f"distinct_{n}", Found(share, n=grams))
    enter("repetition", by_prompt([texts.repetition(text) for text in written], prompts))
    cut = [float(not row["finished"]) for row in cell.generations]
    enter("unfinished_share", wilson(sum(cut), len(cut)) if cell.one_sample else by_prompt(cut, prompts))
    enter("kl", by_prompt([row["kl"] for row in cell.generations], prompts))
    enter("kl_per_token", _kl_per_token(cell, "kl"))
    enter("kl_from_start", by_prompt([row["start_kl"] for row in cell.generations], prompts))
    enter("kl_from_start_per_token", _kl_per_token(cell, "start_kl"))
    ratios = [
        None if row["logp"] is None or row["ref_logp"] is None else row["logp"] - row["ref_logp"]
        for row in cell.generations
    ]
    enter("log_ratio", by_prompt(ratios, prompts))


def judged_spread(cell: Cell, judge: str) -> Found:
    """Standard deviation of the scores; a row is a prompt, a column one of its samples."""
    numbers = sorted({row["sample"] for row in cell.generations})
    prompts = list(dict.fromkeys(cell.prompts))
    scores = {(row["prompt_id"], row["sample"]): row["scores"].get(judge) for row in cell.generations}
    columns = known(*([scores.get((prompt, number)) for prompt in prompts] for number in numbers))
    return spread(columns, range(len(columns[0]) if columns else 0))


def _gold(cell: Cell) -> Found:
    if not cell.one_sample:
        return by_prompt(cell.judged("gold"), cell.prompts)
    scores = [score for score in cell.judged("gold") if score is not None]
    return wilson(float(sum(score > 0.5 for score in scores)), len(scores))


def _kl_per_token(cell: Cell, name: str) -> Found:
    rows = [row for row in cell.generations if finite(row[name])]
    prompts = [row["prompt_id"] for row in rows]
    _, kl = prompt_means([row[name] for row in rows], prompts)
    _, tokens = prompt_means([row["tokens"] for row in rows], prompts)
    if not len(kl):
        return NOTHING
    value = float(kl.sum() / tokens.sum())
    return bounded(value, len(kl), lambda weights: (weights @ kl) / (weights @ tokens), range(len(kl)))


def _against_base(folder: Folder, cell: Cell, ledger: Ledger, path: Path) -> None:
    base, judge = folder.base, folder.judges[0] if folder.judges else None
    names = ("win_rate_vs_base", "win_rate_length_controlled", "judge_gain")
    parts = ("judge_gain_within_length", "judge_gain_between_length")
    if base is None or judge is None or cell.kind != "policy" or not cell.done:
        for name in (*names, *parts):
            ledger.estimate((*path, name), NOTHING)
        return
    ledger.estimate((*path, "win_rate_vs_base"), win_rate(cell.samples(judge), base.samples(judge)))
    ledger.estimate((*path, "win_rate_length_controlled"), at_equal_length(cell, base, judge))
    for name, found in zip(("judge_gain", *parts), gain(cell, base, judge), strict=True):
        ledger.estimate((*path, name), found)


def _against_start(folder: Folder, cell: Cell, ledger: Ledger, path: Path) -> None:
    start = folder.facts["results"][cell.place]["start"]
    other = next((one for one in folder.cells if start and one.text == start["text"]), None)
    if other is None or not (cell.done and other.done and folder.judges):
        ledger.estimate((*path, "win_rate_vs_start"), NOTHING)
        return
    judge = folder.judges[0]
    ledger.estimate((*path, "win_rate_vs_start"), win_rate(cell.samples(judge), other.samples(judge)))


def win_rate(own: dict[Prompt, list[float]], base: dict[Prompt, list[float]]) -> Found:
    """Mean over prompts of the share of pairs of an answer of each in which the first has the higher score."""
    prompts = [prompt for prompt in own if prompt in base]
    shares = np.array(
        [np.mean([right(np.array([x - y]))[0] for x in own[prompt] for y in base[prompt]]) for prompt in prompts]
    )
    if not prompts:
        return NOTHING
    if all(len(own[prompt]) == len(base[prompt]) == 1 for prompt in prompts):
        return wilson(float(shares.sum()), len(shares))
    value = float(shares.mean())
    return bounded(value, len(shares), lambda weights: weighted_mean(weights, shares), range(len(shares)))


def at_equal_length(cell: Cell, base: Cell, judge: str) -> Found:
    """The logistic function of θ, where wins are regressed on θ + φ·tanh(Δwords / sd) with a ridge of 0.01."""
    wins: list[float] = []
    longer: list[float] = []
    prompts: list[int] = []
    for mine in cell.generations:
        for other in base.generations:
            scores = mine["scores"].get(judge), other["scores"].get(judge)
            if mine["prompt_id"] == other["prompt_id"] and all(map(finite, scores)):
                wins.append(float(right(np.array([scores[0] - scores[1]]))[0]))
                longer.append(len(texts.words(texts.said(mine["text"]))) - len(texts.words(texts.said(other["text"]))))
                prompts.append(mine["prompt_id"])
    n = len(set(prompts))
    if n < 2 or not min(longer) <= 0 <= max(longer):
        return Found(None, n=n)
    won, lengths = np.array(wins), np.array(longer)
    weights = np.array([1 / prompts.count(prompt) for prompt in prompts])

    return _controlled(won, lengths, weights, prompts)


def _controlled(wins: Column, lengths: Column, weights: Column, prompts: Sequence[int]) -> Found:
    """Newton's method on the penalised weighted likelihood; the t interval of θ by the sandwich over prompts."""
    mean = (weights * lengths).sum() / weights.sum()
    deviation = math.sqrt(float((weights * (lengths - mean) ** 2).sum() / weights.sum()))
    design = np.stack([np.ones(len(wins)), np.tanh(lengths / deviation) if deviation else 0 * lengths], axis=1)
    fit = np.zeros(2)
    for _ in range(200):
        rates = 1 / (1 + np.exp(-design @ fit))
        slope = design.T @ (weights * (wins - rates)) - RIDGE * fit
        information = design.T @ (design * (weights * rates * (1 - rates))[:, None]) + RIDGE * np.eye(2)
        step = np.linalg.solve(information, slope)
        fit = fit + step / max(1.0, float(np.abs(step).max()))
    groups = places(prompts)
    count = len(groups)
    value = float(1 / (1 + math.exp(-fit[0])))
    if np.ptp(wins) == 0:
        return Found(value, n=count, relative=ITERATED)
    moved = [np.linalg.solve(information, design[own].T @ (weights * (wins - rates))[own])[0] for own in groups]
    influences = np.array(moved)
    reach = float(stats.t.ppf(0.975, count - 1)) * math.sqrt(count / (count - 1) * float((influences**2).sum()))
    low, high = (1 / (1 + math.exp(-end)) for end in (fit[0] - reach, fit[0] + reach))
    return Found(value, low, high, count, wanted=wanted(influences), relative=ITERATED)


def gain(cell: Cell, base: Cell, judge: str) -> tuple[Found, Found, Found]:
    """Kitagawa's parts of the gain over bins of length, cut at the deciles of both models' answers."""
    sides = []
    for one in (cell, base):
        rows = [row for row in one.generations if finite(row["scores"].get(judge))]
        sides.append(
            [(row["prompt_id"], len(texts.words(texts.said(row["text"]))), row["scores"][judge]) for row in rows]
        )
    prompts = list(dict.fromkeys(prompt for prompt, *_ in sides[0] if prompt in {own for own, *_ in sides[1]}))
    n = len(prompts)
    if n < 2:
        return Found(None, n=n), Found(None, n=n), Found(None, n=n)
    kept = [[row for row in side if row[0] in set(prompts)] for side in sides]
    cuts = sorted(set(np.quantile([words for side in kept for _, words, _ in side], np.arange(1, BINS) / BINS)))
    shares, totals = [], []
    for side in kept:
        share, total = np.zeros((n, len(cuts) + 1)), np.zeros((n, len(cuts) + 1))
        for prompt, words, score in side:
            place = prompts.index(prompt), sum(words > cut for cut in cuts)
            count = sum(own == prompt for own, *_ in side)
            share[place] += 1 / count
            total[place] += score / count
        shares.append(share)
        totals.append(total)

    def parts(weights: Column) -> Column:
        prompts_drawn = weights.sum(axis=1)
        (p, q), (a, b) = ([weights @ one for one in sums] for sums in (shares, totals))
        found = np.zeros((len(weights), 2))
        for k in range(len(cuts) + 1):
            with np.errstate(invalid="ignore", divide="ignore"):
                own, its = a[:, k] / p[:, k], b[:, k] / q[:, k]
            own, its = np.where(p[:, k] > 0, own, its), np.where(q[:, k] > 0, its, own)
            parts_ = (p[:, k] + q[:, k]) / 2 * (own - its), (p[:, k] - q[:, k]) * (own + its) / 2
            found += np.nan_to_num(np.stack(parts_, axis=1))  # a bin that neither uses has neither part
        found /= prompts_drawn[:, None]
        return np.column_stack([found.sum(axis=1), found])

    values, bounds = parts(np.ones((1, n)))[0], bootstrap(parts, range(n), n)
    every, at_length, by_length = (drawn(float(value), n, own) for value, own in zip(values, bounds, strict=True))
    return every, at_length, by_length


def _baselines(folder: Folder, ledger: Ledger) -> None:
    rows = list({row["pair"]: row for cell in folder.cells for row in cell.scores}.values())
    longer = accuracy(
        [row["chosen_words"] for row in rows], [row["rejected_words"] for row in rows], [prompt_of(row) for row in rows]
    )
    ledger.estimate(("baselines", "longer_wins"), longer)
    named = [row for row in rows if row["gold_choice"] in (1, 2)]
    right_ = np.array([float(row["gold_choice"] == 1) for row in named])
    agree = share(right_, [prompt_of(row) for row in named])
    ledger.estimate(("baselines", "labels_agree_with_gold"), agree)
    chances = [row["label_probability"] for row in folder.pairs if row.get("label_probability") is not None]
    knowable = sum(max(p, 1 - p) for p in chances) / len(chances) if chances else None
    ledger.estimate(("baselines", "labels_knowable"), Found(knowable, n=len(chances)))
