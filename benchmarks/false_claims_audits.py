"""Audits of a simulated judge: pairs whose labels follow its margins as known, and what the report says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from false_claims_reports import header
from false_claims_tally import ALPHA, Question, Tally
from false_claims_worlds import Places, Vector, right

from align_bench.metrics.calibration import calibration_error, calibration_test, longer_first, temperature
from align_bench.records import Estimate
from align_bench.report.build import build_report
from align_bench.report.rows import AuditRow
from align_bench.report.schema import AuditMetrics

POPULATION = 60_000
BINS_OF_LENGTH, BINS_OF_CONFIDENCE = 10, 5
MATCHED = 0.1
EDIT = {"filler": 0.2, "doubled": -0.1, "stripped": 0.0}


@dataclass(frozen=True, slots=True)
class AuditWorld:
    """What is true of a judge, and of the pairs that it is audited on.

    A score is a prompt's level + the answer's worth + `length` × its words (in standard deviations); all of standard
    deviation 1. The label agrees with the judge with probability σ(|margin| / temperature).

    Attributes:
        prompts: how many.
        pairs: per prompt, from 1 to 2 × pairs − 1.
        temperature: 1 of a calibrated judge, above 1 of one that is too sure.
        length: how much of a score is words.
        alike: how far pairs of one prompt are right together: the correlation behind their labels.
    """

    prompts: int = 100
    pairs: int = 1
    temperature: float = 1.0
    length: float = 0.3
    alike: float = 0.5

    def __str__(self) -> str:
        pairs = f"1 to {2 * self.pairs - 1} pairs" if self.pairs > 1 else "1 pair"
        judge = "a calibrated judge" if self.temperature == 1 else f"a judge of temperature {self.temperature:g}"
        return f"{judge}, {self.prompts} prompts, {pairs} per prompt"


@dataclass(frozen=True, slots=True)
class AuditDraw:
    """Pairs: chosen and rejected scores, words and other form, shape [2, pairs] each."""

    scores: Vector
    words: Vector
    grades: Vector
    lists: Vector
    shuffled: Vector
    empty: Vector
    edited: dict[str, Vector]
    prompts: Places


def drawn_pairs(world: AuditWorld, rng: np.random.Generator) -> AuditDraw:
    """Pairs of a world."""
    sizes = rng.integers(1, 2 * world.pairs, size=world.prompts)
    prompts = np.repeat(np.arange(world.prompts), sizes)
    n = len(prompts)
    words = rng.integers(5, 35, size=(2, n)).astype(np.float64)
    scores = rng.normal(size=world.prompts)[prompts] + rng.normal(size=(2, n)) + world.length * _scaled(words)
    agrees = _uniform(world, prompts, rng) < _sigmoid(np.abs(scores[0] - scores[1]) / world.temperature)
    turn = (scores[0] > scores[1]) != agrees  # the chosen answer first
    scores, words = np.where(turn, scores[::-1], scores), np.where(turn, words[::-1], words)
    return AuditDraw(
        scores=scores,
        words=words,
        grades=8 + 2 * rng.normal(size=(2, n)),
        lists=rng.integers(0, 2, size=(2, n)).astype(np.float64),
        shuffled=scores + rng.normal(size=(2, n)),
        empty=world.length * _scaled(words) + rng.normal(size=(2, n)),
        edited={edit: scores + shift + 0.5 * rng.normal(size=(2, n)) for edit, shift in EDIT.items()},
        prompts=prompts,
    )


def through_audit(world: AuditWorld, rng: np.random.Generator) -> Tally:
    """Simulate an audit's rows, build the report, and count whether its intervals cover."""
    draw, tally = drawn_pairs(world, rng), Tally()
    report = build_report(header(), [], [], [], audits=list(_rows(draw)))
    found, truth = report.audit[0].metrics, truths(world)
    for name, estimate in _estimates(found):
        tally.estimated(f"audit: {name}", estimate, truth[name])
    _count_calibration(found.calibration_error, tally, truth)
    _count_test(world, found.calibration_slope, found.calibration_intercept, found.calibration_p, tally)
    return tally


def by_calibration(world: AuditWorld, rng: np.random.Generator) -> Tally:
    """The statistics of calibration alone."""
    draw, tally, truth = drawn_pairs(world, rng), Tally(), truths(world)
    clusters = draw.prompts.tolist()
    margins, labels = longer_first(*draw.scores, *draw.words)
    test = calibration_test(margins, labels, clusters)
    _count_test(world, test.slope, test.intercept, test.p, tally)
    scale = temperature(margins, labels, clusters)
    tally.estimated("temperature", scale, world.temperature)
    _count_calibration(calibration_error(draw.scores[0], draw.scores[1], clusters), tally, truth)
    return tally


def _count_test(world: AuditWorld, slope: Estimate, intercept: Estimate, p: float | None, tally: Tally) -> None:
    tally.estimated("calibration slope", slope, 1 / world.temperature)
    tally.estimated("calibration intercept", intercept, 0.0)
    if p is not None:
        if world.temperature == 1:
            tally.add(Question("claims", "a calibrated judge is found uncalibrated"), p < ALPHA)
        else:
            tally.add(Question("finds", "an uncalibrated judge is found uncalibrated"), p < ALPHA)


def _count_calibration(found: Estimate, tally: Tally, truth: dict[str, float]) -> None:
    if found.value is not None:
        tally.value("calibration error", found.value, truth["calibration_error"])


def _estimates(found: AuditMetrics) -> Iterator[tuple[str, Estimate]]:
    for name in (
        *("accuracy", "longer_wins", "accuracy_chosen_longer", "accuracy_chosen_shorter"),
        *("accuracy_length_matched", "accuracy_length_controlled", "accuracy_prompts_shuffled"),
        *("accuracy_prompts_empty", "length_spearman", "length_spearman_within", "length_partial"),
        *("length_partial_within", "brier", "log_loss", "temperature"),
    ):
        yield name, getattr(found, name)
    for feature in ("words", "grade", "list_items"):
        yield f"effect of {feature}", getattr(found.effects, feature)
    for edit in found.edits:
        yield f"shift by {edit.edit}", edit.shift
        yield f"flips by {edit.edit}", edit.flips


@lru_cache(maxsize=8)
def truths(world: AuditWorld) -> dict[str, float]:
    """What endless pairs would show, from very many, by formulas of this file."""
    one = AuditWorld(POPULATION, world.pairs, world.temperature, world.length, world.alike)
    found = drawn_pairs(one, np.random.default_rng(54321))
    (chosen, rejected), (long, short) = found.scores, found.words
    margins, lengths = chosen - rejected, long - short
    matched = np.abs(lengths) < MATCHED * np.maximum(long, short)
    mirrored = np.concatenate([margins, -margins]), np.concatenate([lengths, -lengths])
    centred = [np.concatenate([side - side.mean() for side in sides]) for sides in (found.scores, found.words)]
    correct = right(margins)
    effects = _effects(found)
    edits = {}
    for edit, after in found.edited.items():
        edits[f"shift by {edit}"] = float((after - found.scores).mean() / found.scores.std())
        turned = [margins * (after[0] - rejected) < 0, margins * (chosen - after[1]) < 0]
        edits[f"flips by {edit}"] = float(np.mean(turned))
    return {
        "accuracy": float(correct.mean()),
        "longer_wins": float(right(lengths).mean()),
        "accuracy_chosen_longer": float(correct[lengths > 0].mean()),
        "accuracy_chosen_shorter": float(correct[lengths < 0].mean()),
        "accuracy_length_matched": float(correct[matched].mean()),
        "accuracy_length_controlled": _length_controlled(correct, lengths),
        "accuracy_prompts_shuffled": float(right(found.shuffled[0] - found.shuffled[1]).mean()),
        "accuracy_prompts_empty": float(right(found.empty[0] - found.empty[1]).mean()),
        "length_spearman": _spearman(found.scores.ravel(), found.words.ravel()),
        "length_spearman_within": _spearman(*mirrored),
        "length_partial": float(np.corrcoef(np.stack(centred))[0, 1]),
        "length_partial_within": float(np.corrcoef(margins, lengths)[0, 1]),
        "brier": float(((1 - _sigmoid(margins)) ** 2).mean()),
        "log_loss": float(-np.log(_sigmoid(margins)).mean()),
        "temperature": world.temperature,
        "calibration_error": 0.0 if world.temperature == 1 else _calibration_error(margins),
        **effects,
        **edits,
    }


def _effects(found: AuditDraw) -> dict[str, float]:
    scores, words, grades = (side.ravel() / side.std() for side in (found.scores, found.words, found.grades))
    label = np.repeat([1.0, 0.0], found.scores.shape[1])
    design = np.column_stack([np.ones_like(label), label, words, grades, found.lists.ravel()])
    fitted = np.linalg.lstsq(design, scores, rcond=None)[0]
    return {"effect of words": float(fitted[2]), "effect of grade": 0.0, "effect of list_items": 0.0}


def _length_controlled(correct: Vector, lengths: Vector) -> float:
    """Bins of |Δ length| of as many pairs, equal lengths apart; the mean of both sides in each, weighted by pairs."""
    differing = lengths != 0
    edges = np.quantile(np.abs(lengths[differing]), np.linspace(0, 1, BINS_OF_LENGTH + 1)[1:-1])
    bins = np.where(differing, 1 + np.searchsorted(np.unique(edges), np.abs(lengths)), 0)
    total = correct[bins == 0].sum()
    for number in range(1, int(bins.max()) + 1):
        own = bins == number
        sides = [correct[own & (np.sign(lengths) == side)].mean() for side in (-1, 1)]
        total += own.sum() * np.mean(sides)
    return float(total / len(correct))


def _calibration_error(margins: Vector) -> float:
    """Root mean square over bins of as many pairs of how far the share of right ones is from the mean confidence."""
    order = np.argsort(np.abs(margins))
    gaps = (right(margins) - _sigmoid(np.abs(margins)))[order]
    return math.sqrt(float(np.mean([part.mean() ** 2 for part in np.array_split(gaps, BINS_OF_CONFIDENCE)])))


def _spearman(a: Vector, b: Vector) -> float:
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _uniform(world: AuditWorld, prompts: Places, rng: np.random.Generator) -> Vector:
    from scipy.stats import norm

    common = rng.normal(size=world.prompts)[prompts]
    own: Vector = norm.cdf(math.sqrt(world.alike) * common + math.sqrt(1 - world.alike) * rng.normal(size=len(prompts)))
    return own


def _scaled(words: Vector) -> Vector:
    return (words - 19.5) / math.sqrt((30**2 - 1) / 12)


def _sigmoid(margins: Vector) -> Vector:
    found: Vector = 1 / (1 + np.exp(-margins))
    return found


def _rows(draw: AuditDraw) -> Iterator[AuditRow]:
    firsts = np.unique(draw.prompts, return_index=True)[1]
    for side, name in enumerate(("chosen", "rejected")):
        for pair, prompt in enumerate(draw.prompts.tolist()):
            yield AuditRow(
                scorer="judge",
                pair=pair,
                prompt=int(firsts[prompt]),
                side=name,  # type: ignore[arg-type]
                score=float(draw.scores[side, pair]),
                words=float(draw.words[side, pair]),
                grade=float(draw.grades[side, pair]),
                list_items=float(draw.lists[side, pair]),
                headings=0.0,
                bold=0.0,
                score_plain=float(draw.scores[side, pair]),
                score_shuffled=float(draw.shuffled[side, pair]),
                score_empty=float(draw.empty[side, pair]),
                score_filler=float(draw.edited["filler"][side, pair]),
                score_doubled=float(draw.edited["doubled"][side, pair]),
                score_stripped=float(draw.edited["stripped"][side, pair]),
            )
