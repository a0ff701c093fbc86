"""`audit`, from `audit.parquet`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from tests.recomputed.arithmetic import (
    NOTHING,
    Column,
    Found,
    Numbers,
    Z,
    accuracy,
    bootstrap,
    clustered_error,
    holm,
    known,
    of_pairs,
    places,
    right,
    sandwich,
    share,
    weighted_pearson,
    weighted_ranks,
    with_prompts,
)
from tests.recomputed.folder import Folder, Prompt, Row, finite, prompt_of
from tests.recomputed.ledger import Ledger, Path
from tests.recomputed.paired import number, paired
from tests.recomputed.results import bounded, drawn, partial, ties

Places = npt.NDArray[np.intp]
BINS = 10
BINS_OF_CURVE = 5
EDITS = ("filler", "doubled", "stripped")


def enter(folder: Folder, ledger: Ledger) -> None:
    scorers = list(dict.fromkeys(row["scorer"] for row in folder.audits))
    for place, scorer in enumerate(scorers):
        ledger.add(("audit", place, "scorer"), scorer)
        own = [row for row in folder.audits if row["scorer"] == scorer]
        _audit(_Pairs(own), ledger, ("audit", place))


class _Pairs:
    """Both rows of each pair, in the order of pairs."""

    def __init__(self, rows: Sequence[Row]) -> None:
        sides = {side: {row["pair"]: row for row in rows if row["side"] == side} for side in ("chosen", "rejected")}
        self.numbers = sorted(sides["chosen"].keys() & sides["rejected"].keys())
        self.chosen = [sides["chosen"][pair] for pair in self.numbers]
        self.rejected = [sides["rejected"][pair] for pair in self.numbers]
        self.prompts = [row["prompt"] for row in self.chosen]

    def where(self, *names: str) -> _Pairs:
        """The pairs of which both answers have all of these numbers."""
        kept = [
            (left, other)
            for left, other in zip(self.chosen, self.rejected, strict=True)
            if all(finite(row[name]) for row in (left, other) for name in names)
        ]
        return _Pairs([row for both in kept for row in both])

    def columns(self, name: str) -> tuple[list[float | None], list[float | None]]:
        return [row[name] for row in self.chosen], [row[name] for row in self.rejected]

    def both(self, name: str) -> list[float | None]:
        left, other = self.columns(name)
        return [*left, *other]


def enter_against_longer(folder: Folder, ledger: Ledger) -> None:
    """`against_longer`: every audited scorer, then the reward models that no audit holds."""
    scored: dict[str, tuple[list[Prompt], list[Numbers]]] = {}
    for scorer in dict.fromkeys(row["scorer"] for row in folder.audits):
        pairs = _Pairs([row for row in folder.audits if row["scorer"] == scorer])
        scored[scorer] = [*pairs.prompts], [*pairs.columns("score"), *pairs.columns("words")]
    for cell in folder.cells:
        if cell.kind == "reward" and cell.text not in scored and cell.method not in scored:
            names = ("chosen_reward", "rejected_reward", "chosen_words", "rejected_words")
            scored[cell.text] = [prompt_of(row) for row in cell.scores], [cell.column(name) for name in names]
    found = []
    for scorer, (prompts, columns) in scored.items():
        left, other, longer, shorter, own = with_prompts(prompts, *columns)
        if len(left):
            numbers = paired(right(left - other) - right(longer - shorter), own, binary=True)
            found.append((scorer, accuracy(left, other, own), accuracy(longer, shorter, own), numbers))
    adjusted = holm([number(numbers["p"]) for *_, numbers in found])
    for place, ((scorer, own_accuracy, of_longer, numbers), p) in enumerate(zip(found, adjusted, strict=True)):
        path: Path = ("against_longer", place)
        difference = number(numbers["difference"])
        ledger.estimate((*path, "accuracy"), own_accuracy)
        ledger.estimate((*path, "longer_wins"), of_longer)
        ledger.record(path, {"scorer": scorer})
        ledger.record(path, {name: numbers[name] for name in ("difference", "low", "high", "test", "n", "prompts")})
        ledger.p((*path, "p"), number(numbers["p"]))
        ledger.p((*path, "p_holm"), p)
        side = "above" if (difference or 0) > 0 else "below"
        decision = "undefined" if p is None or difference is None else side if p < 0.05 else "none"
        ledger.add((*path, "decision"), decision)


def _audit(pairs: _Pairs, ledger: Ledger, path: Path) -> None:
    scores, lengths, prompts = pairs.columns("score"), pairs.columns("words"), pairs.prompts
    own: Path = (*path, "metrics")

    def enter(name: str, found: Found) -> None:
        ledger.estimate((*own, name), found)

    enter("accuracy", accuracy(*scores, prompts))
    enter("tie_rate", ties(*scores, prompts))
    enter("longer_wins", accuracy(*lengths, prompts))
    enter("accuracy_chosen_longer", _accuracy_where(pairs, lambda left, other: left > other))
    enter("accuracy_chosen_shorter", _accuracy_where(pairs, lambda left, other: left < other))
    enter(
        "accuracy_length_matched",
        _accuracy_where(pairs, lambda left, other: abs(left - other) < 0.1 * max(left, other)),
    )
    controlled, one_sided = length_controlled(pairs)
    enter("accuracy_length_controlled", controlled)
    enter("length_one_sided", one_sided)
    enter("accuracy_prompts_shuffled", accuracy(*pairs.columns("score_shuffled"), prompts))
    enter("accuracy_prompts_empty", accuracy(*pairs.columns("score_empty"), prompts))
    audited = pairs.where("score_plain")
    ledger.add((*path, "audited_pairs"), len(audited.numbers) or None)
    ledger.add((*path, "audited_prompts"), len(set(audited.prompts)) or None)
    enter("accuracy_audited", accuracy(*audited.columns("score_plain"), audited.prompts))
    enter("accuracy_less_shuffled", _less_shuffled(pairs.where("score_plain", "score_shuffled")))
    names = ("length_spearman", "length_spearman_within", "length_partial", "length_partial_within")
    for name, found in zip(names, _by_length(pairs), strict=True):
        enter(name, found)
    for name, found in _effects(pairs).items():
        ledger.estimate((*own, "effects", name), found)
    _edits(pairs, ledger, own)
    _calibration(pairs, ledger, path)


def _accuracy_where(pairs: _Pairs, holds: Callable[[float, float], bool]) -> Found:
    kept = [
        (left["score"], other["score"], left["prompt"])
        for left, other in zip(pairs.chosen, pairs.rejected, strict=True)
        if left["words"] is not None and other["words"] is not None and holds(left["words"], other["words"])
    ]
    return accuracy([row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept])


def _known(pairs: _Pairs, *names: str) -> tuple[list[Column], list[int]]:
    columns = [column for name in names for column in pairs.columns(name)]
    *found, prompts = with_prompts(pairs.prompts, *columns)
    return found, prompts


def length_controlled(pairs: _Pairs) -> tuple[Found, Found]:
    """Over bins of |Δlength|: ½ (accuracy where the chosen answer is longer + where it is shorter), by pairs."""
    (left, other, longer, shorter), prompts = _known(pairs, "score", "words")
    marks, difference = right(left - other), longer - shorter
    size = np.abs(difference)
    cuts = sorted(set(np.quantile(size[size > 0], np.arange(1, BINS) / BINS))) if (size > 0).any() else []
    bins = np.array([0 if one == 0 else 1 + sum(one > cut for cut in cuts) for one in size])

    sides = [[(bins == number) & (np.sign(difference) == sign) for sign in (1, -1)] for number in range(1, BINS + 1)]

    def controlled(weights: Column) -> tuple[Column, Column]:
        even = weights * (bins == 0)
        total, used = even @ marks, even.sum(axis=1)
        for up, down in sides:
            counts = [(weights * side).sum(axis=1) for side in (up, down)]
            both = (counts[0] > 0) & (counts[1] > 0)
            rights = [(weights * side) @ marks for side in (up, down)]
            with np.errstate(invalid="ignore", divide="ignore"):
                halves = (rights[0] / counts[0] + rights[1] / counts[1]) / 2
            total = total + np.where(both, halves * (counts[0] + counts[1]), 0)
            used = used + np.where(both, counts[0] + counts[1], 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / used, used

    values, counts = controlled(np.ones((1, len(marks))))
    used = int(counts[0])
    alone = np.ones(len(marks)) - (bins == 0)
    for up, down in sides:
        alone -= (up | down) * float(up.any() and down.any())
    one_sided = share(alone, prompts)
    if not used:
        return Found(None), one_sided
    return bounded(float(values[0]), used, lambda weights: controlled(weights)[0], prompts), one_sided


def _by_length(pairs: _Pairs) -> list[Found]:
    (left, other, longer, shorter), prompts = _known(pairs, "score", "words")
    n = len(left)
    if n < 2:
        return [Found(None, n=n)] * 4

    def correlations(weights: Column) -> Column:
        margins, differences = left - other, longer - shorter
        twice = np.tile(weights, 2)
        return np.stack(
            [
                _spearman(twice, np.concatenate([left, other]), np.concatenate([longer, shorter])),
                _spearman(twice, np.concatenate([margins, -margins]), np.concatenate([differences, -differences])),
                partial(weights, left, other, longer, shorter),
                weighted_pearson(weights, margins, differences),
            ],
            axis=1,
        )

    values, bounds = correlations(np.ones((1, n)))[0], bootstrap(correlations, prompts, n)
    found = []
    for place, value in enumerate(values):
        if not math.isfinite(value):
            found.append(Found(None, n=n))
        else:
            found.append(drawn(float(value), n, bounds[place]))
    return found


def _spearman(weights: Column, a: Column, b: Column) -> Column:
    return weighted_pearson(weights, weighted_ranks(weights, a), weighted_ranks(weights, b))


def _less_shuffled(pairs: _Pairs) -> Found:
    """Accuracy with the right prompts less that with others, pair by pair."""
    marks = []
    for name in ("score_plain", "score_shuffled"):
        left, other = known(*pairs.columns(name))
        marks.append(right(left - other))
    return replace(of_pairs(marks[0] - marks[1], pairs.prompts), wanted=None)


def _effects(pairs: _Pairs) -> dict[str, Found]:
    """Least squares of the score on its form, in standard deviations, with the label; errors clustered over prompts."""
    features = ["words", "grade", "list_items", "headings", "bold"]
    grades = pairs.both("grade")
    used = [name for name in features if name != "grade" or 2 * len(known(grades)[0]) > len(grades)]
    label = [1.0] * len(pairs.numbers) + [0.0] * len(pairs.numbers)
    groups = [float(prompt) for prompt in (*pairs.prompts, *pairs.prompts)]
    score, preferred, prompt, *values = known(pairs.both("score"), label, groups, *(pairs.both(name) for name in used))
    n = len(score)
    found = {name: Found(None, n=n) for name in features}
    if len(set(prompt)) < 2 or np.ptp(score) == 0:
        return found
    columns = {}
    for name, value in zip(used, values, strict=True):
        if name in ("words", "grade"):
            deviation = np.std(value, ddof=1)
            columns[name] = value / deviation if deviation > 0 else value
        else:
            columns[name] = (value > 0).astype(np.float64)
    varying = [name for name in used if np.ptp(columns[name]) > 0]
    controls = [np.ones(n)] + ([preferred] if np.ptp(preferred) > 0 else [])
    design = np.column_stack([*controls, *(columns[name] for name in varying)])
    if np.linalg.matrix_rank(design) < design.shape[1] or n <= design.shape[1]:
        return found
    fit, errors = sandwich(score / np.std(score, ddof=1), design, list(prompt))
    for place, name in enumerate(varying, start=len(controls)):
        reach = Z * errors[place]
        found[name] = Found(float(fit[place]), float(fit[place] - reach), float(fit[place] + reach), n)
    return found


def _edits(pairs: _Pairs, ledger: Ledger, path: Path) -> None:
    prompts = [*pairs.prompts, *pairs.prompts]
    plain = pairs.both("score_plain")
    half = len(pairs.numbers)
    others = [*plain[half:], *plain[:half]]
    (scored,) = known(plain)
    spread = float(np.std(scored, ddof=1)) if len(scored) > 1 else 0.0
    for place, edit in enumerate(EDITS):
        edited = pairs.both(f"score_{edit}")
        shifts = [
            None if old is None or new is None or not spread else (new - old) / spread
            for old, new in zip(plain, edited, strict=True)
        ]
        turned: list[float | None] = [
            None if old is None or new is None or other is None else float((old - other) * (new - other) < 0)
            for old, new, other in zip(plain, edited, others, strict=True)
        ]
        ledger.add((*path, "edits", place, "edit"), edit)
        ledger.estimate((*path, "edits", place, "shift"), _of_answers(shifts, prompts))
        ledger.estimate((*path, "edits", place, "flips"), share(*with_prompts(prompts, turned)))


def _of_answers(values: Numbers, prompts: Sequence[int]) -> Found:
    """Answers weigh the same, those of a prompt are a cluster."""
    known_values, groups = with_prompts(prompts, values)
    return of_pairs(known_values, groups)


def _calibration(pairs: _Pairs, ledger: Ledger, path: Path) -> None:
    (left, other), prompts = _known(pairs, "score")
    margins = left - other
    own: Path = (*path, "metrics")
    probability = 1 / (1 + np.exp(-margins))
    ledger.estimate((*own, "brier"), of_pairs((1 - probability) ** 2, prompts))
    ledger.estimate((*own, "log_loss"), of_pairs(np.logaddexp(0, -margins), prompts))
    for place, row in enumerate(_curve(margins)):
        names = ("low", "high", "predicted", "observed", "n")
        ledger.record((*path, "reliability", place), dict(zip(names, row[:5], strict=True)))
    ledger.estimate((*own, "calibration_error"), _error(margins, prompts))
    turned, label = _longer_first(pairs)
    slope, intercept, p = _line(turned, label, prompts)
    ledger.estimate((*own, "calibration_slope"), slope)
    ledger.estimate((*own, "calibration_intercept"), intercept)
    ledger.p((*own, "calibration_p"), p)
    ledger.estimate((*own, "temperature"), _temperature(turned, label, prompts))


def _curve(margins: Column) -> list[tuple[float, float, float, float, int, Places]]:
    """Bins of as many pairs by confidence: bounds, mean confidence, share of labels that agree, pairs, their places."""
    confidence, agreed = 1 / (1 + np.exp(-np.abs(margins))), right(margins)
    bins = max(1, min(BINS_OF_CURVE, len(margins) // 20))
    cuts = [float(np.quantile(confidence, k / bins)) for k in range(1, bins)] if len(margins) else []
    found = []
    for bin_ in range(bins):
        here = np.array([k for k, p in enumerate(confidence) if sum(p >= cut for cut in cuts) == bin_], dtype=np.intp)
        if len(here):
            own = confidence[here]
            means = float(own.mean()), float(agreed[here].mean())
            found.append((float(own.min()), float(own.max()), *means, len(here), here))
    return found


def _error(margins: Column, prompts: Sequence[int]) -> Found:
    """√max(0, Σ n_b / n · (gap_b² − v_b)), v_b the clustered variance of a bin's gap."""
    n = len(margins)
    if n == 0:
        return NOTHING
    gaps = right(margins) - 1 / (1 + np.exp(-np.abs(margins)))
    total = 0.0
    for *_, size, here in _curve(margins):
        own = [prompts[place] for place in here]
        if len(set(own)) < 2:
            return Found(None, n=n)
        gap, error, _ = clustered_error(gaps[here], own)
        total += size / n * (gap**2 - error**2)
    return Found(math.sqrt(max(0.0, total)), n=n)


def _longer_first(pairs: _Pairs) -> tuple[Column, Column]:
    """Margins with the longer answer first, and whether the label prefers it; equal lengths as the report drew them."""
    draw = random.Random("orientation/0")  # a fact that no row holds: a draw for each pair, in the order of pairs
    margins, labels = [], []
    for left, other in zip(pairs.chosen, pairs.rejected, strict=True):
        drawn_first = draw.random() < 0.5
        words = left["words"], other["words"]
        first = drawn_first if None in words or words[0] == words[1] else words[0] > words[1]
        if finite(left["score"]) and finite(other["score"]):
            margins.append((left["score"] - other["score"]) * (1 if first else -1))
            labels.append(float(first))
    return np.array(margins), np.array(labels)


def _line(margins: Column, labels: Column, prompts: Sequence[int]) -> tuple[Found, Found, float | None]:
    """Logistic regression of the label on the margin; the one-step jackknife over prompts, t and F with G − 1."""
    n, groups = len(margins), places(prompts)
    nothing = Found(None, n=n)
    zero, one = margins[labels == 0], margins[labels == 1]
    if len(groups) < 3 or np.ptp(margins) == 0 or not len(zero) or not len(one):
        return nothing, nothing, None
    if zero.max() <= one.min() or one.max() <= zero.min():
        return nothing, nothing, None
    design = np.stack([np.ones(n), margins], axis=1)
    fit = np.zeros(2)
    for _ in range(200):
        rates = 1 / (1 + np.exp(-design @ fit))
        information = design.T @ (design * (rates * (1 - rates))[:, None])
        step = np.linalg.solve(information, design.T @ (labels - rates))
        fit = fit + step / max(1.0, float(np.abs(step).max()))
    covariance = np.zeros((2, 2))
    for own in groups:
        rest = np.setdiff1d(np.arange(n), own)
        left = design[rest].T @ (design[rest] * (rates * (1 - rates))[rest, None])
        moved = np.linalg.solve(left, design[own].T @ (labels - rates)[own])
        covariance += (len(groups) - 1) / len(groups) * np.outer(moved, moved)
    reach = stats.t.ppf(0.975, len(groups) - 1) * np.sqrt(np.diag(covariance))
    intercept, slope = (
        Found(float(x), float(x - half), float(x + half), n) for x, half in zip(fit, reach, strict=True)
    )
    off = fit - np.array([0.0, 1.0])
    wald = float(off @ np.linalg.inv(covariance) @ off) / 2
    return slope, intercept, float(stats.f.sf(wald, 2, len(groups) - 1))


def _temperature(margins: Column, labels: Column, prompts: Sequence[int]) -> Found:
    """1 / slope of a logistic regression without a constant, and its clustered interval turned round."""
    n = len(margins)
    signs = margins * (2 * labels - 1)
    if (signs >= 0).all() or (signs <= 0).all():
        return Found(None, n=n)

    def slope(of: float) -> float:
        return float((margins * (labels - 1 / (1 + np.exp(-of * margins)))).sum())

    reach = 1.0
    while slope(reach) > 0:
        reach *= 2
    while slope(-reach) < 0:
        reach *= 2
    best = float(optimize.brentq(slope, -reach, reach, xtol=1e-15, rtol=1e-14))
    if best <= 0:
        return Found(None, n=n)
    groups = places(prompts)
    if len(groups) < 2:
        return Found(1 / best, n=n)
    rates = 1 / (1 + np.exp(-best * margins))
    scores = margins * (labels - rates)
    meat = sum(float(scores[own].sum()) ** 2 for own in groups) * len(groups) / (len(groups) - 1)
    error = math.sqrt(meat) / float((margins**2 * rates * (1 - rates)).sum())
    low, high = best - Z * error, best + Z * error
    return Found(1 / best, n=n) if low <= 0 else Found(1 / best, 1 / high, 1 / low, n)
