"""What is counted: how often intervals cover, how often something false is claimed, and how sure these rates are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from align_bench.records import Estimate

Asked = Literal["covers", "claims", "finds", "says"]
WANTED: dict[Asked, str] = {
    "covers": "93–97%",
    "claims": "at most 5%",
    "finds": "(power)",
    "says": "(what is said)",
}
LEAST, MOST, ALPHA = 0.93, 0.97, 0.05
Z = 1.959963984540054


class Question(NamedTuple):
    """One thing that is counted.

    Attributes:
        asked: whether an interval covers the truth, something false is claimed, a true difference is found, or
            something is said that is no error.
        what: of what kind of interval, or what claim.
        family: whether it is the rate of any method-level claim between identical methods, which the gate is about.
    """

    asked: Asked
    what: str
    family: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What one simulated suite showed.

    Attributes:
        yes, asked: question → how often the answer is yes, and how often it was asked.
        warned, excused: question → how many intervals the report marks as wanting more data, and of these how many do
            not cover.
        values: number → its estimate and the truth.
    """

    yes: Counter[Question] = field(default_factory=Counter)
    asked: Counter[Question] = field(default_factory=Counter)
    warned: Counter[Question] = field(default_factory=Counter)
    excused: Counter[Question] = field(default_factory=Counter)
    values: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, question: Question, answer: bool) -> None:
        """Count one answer."""
        self.yes[question] += answer
        self.asked[question] += 1

    def value(self, what: str, estimate: float, truth: float) -> None:
        """Note an estimate that has no interval, with the truth."""
        self.values[what] = (estimate, truth)

    def covers(self, what: str, low: float | None, high: float | None, truth: float, wanted: int | None = None) -> None:
        """Count whether an interval covers the truth; none is not counted.

        Args:
            what: the kind of interval.
            low, high: its bounds.
            truth: what it should cover.
            wanted: how many observations it wants, where the report says that it has too few.
        """
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            question, covers = Question("covers", what), low <= truth <= high
            self.add(question, covers)
            self.warned[question] += wanted is not None
            self.excused[question] += wanted is not None and not covers

    def estimated(self, what: str, found: Estimate, truth: float) -> None:
        """Count whether an estimate's interval covers."""
        self.covers(what, found.low, found.high, truth, found.wanted)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate over simulated suites, with its 95% Monte Carlo interval.

    Attributes:
        part: `statistics` or `report`.
        cell: the simulated truth, in words.
        asked, what, family: as of a `Question`.
        warned: share of the intervals that the report marks as wanting more data.
        rate, low, high: the share of yes, and Wilson's interval at the effective number of answers: those of one suite
            are not independent.
        yes, answers, suites: what it is made of.
        mark: `below` or `above` where an interval's coverage is outside 93–97% and is not 95% by Monte Carlo error;
            `within error` where it is outside but may be 95%, `below, said` where enough of those that do not cover are
            marked by the report itself for the others to make up no more than 7%. `too often` where false claims exceed
            5% by more than that error. Empty where all is as wanted.
    """

    part: str
    cell: str
    asked: Asked
    what: str
    family: bool
    warned: float
    rate: float
    low: float
    high: float
    yes: int
    answers: int
    suites: int
    mark: str


@dataclass(frozen=True, slots=True)
class Value:
    """The estimates of one number over simulated suites.

    Attributes:
        part, cell: as of a `Rate`.
        what: the number.
        mean, error: the estimates' mean and its standard error.
        truth: what they estimate.
        suites: how many.
    """

    part: str
    cell: str
    what: str
    mean: float
    error: float
    truth: float
    suites: int


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether method-level claims between identical methods are at most 5% in every cell.

    Attributes:
        cells: how many rates were tested.
        worst: the rate with the least p-value.
        p_holm: its binomial p-value against 5%, Holm-adjusted over the cells.
        passed: whether it is 5% or more.
    """

    cells: int
    worst: Rate
    p_holm: float
    passed: bool


def rates_of(part: str, cell: str, tallies: Sequence[Tally]) -> list[Rate]:
    """The rate of every question that the suites of a cell answered."""
    questions = dict.fromkeys(question for tally in tallies for question in tally.asked)
    return [_rate(part, cell, question, [one for one in tallies if question in one.asked]) for question in questions]


def values_of(part: str, cell: str, tallies: Sequence[Tally]) -> list[Value]:
    """The mean of every estimate that the suites of a cell noted."""
    found = []
    for what in dict.fromkeys(what for tally in tallies for what in tally.values):
        estimates, truths = np.array([tally.values[what] for tally in tallies if what in tally.values]).T
        error = float(np.std(estimates, ddof=1)) / math.sqrt(len(estimates)) if len(estimates) > 1 else math.nan
        found.append(Value(part, cell, what, float(estimates.mean()), error, float(truths[0]), len(estimates)))
    return found


def gate(rates: Iterable[Rate]) -> Gate | None:
    """Holm's test of every family-wise rate against 5%; None without any."""
    from scipy.stats import binom

    tested = sorted(
        ((float(binom.sf(rate.yes - 1, rate.answers, ALPHA)), rate) for rate in rates if rate.family),
        key=lambda found: found[0],
    )
    if not tested:
        return None
    p = min(1.0, tested[0][0] * len(tested))
    return Gate(len(tested), tested[0][1], p, p >= ALPHA)


def wilson(rate: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n answers, which need not be a whole number."""
    centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _rate(part: str, cell: str, question: Question, tallies: Sequence[Tally]) -> Rate:
    yes = np.array([tally.yes[question] for tally in tallies], dtype=np.float64)
    asked = np.array([tally.asked[question] for tally in tallies], dtype=np.float64)
    rate = float(yes.sum() / asked.sum())
    low, high = wilson(rate, _effective(yes, asked, rate))
    warned, excused = (
        sum(counted[question] for counted in column) / float(asked.sum())
        for column in ([tally.warned for tally in tallies], [tally.excused for tally in tallies])
    )
    mark = _mark(question.asked, rate, low, high)
    if mark == "below" and rate + excused >= LEAST:
        mark = "below, said"
    return Rate(part, cell, *question, warned, rate, low, high, int(yes.sum()), int(asked.sum()), len(tallies), mark)


def _effective(yes: np.ndarray, asked: np.ndarray, rate: float) -> float:
    """The number of independent answers with the variance of these, which come in suites."""
    suites, answers = len(asked), float(asked.sum())
    residuals = yes - rate * asked
    variance = float((residuals**2).sum()) / answers**2 * suites / max(1, suites - 1)
    if not variance:
        return float(suites)
    return min(answers, max(float(suites) / 2, rate * (1 - rate) / variance))


def _mark(asked: Asked, rate: float, low: float, high: float) -> str:
    if asked == "claims":
        return "too often" if low > ALPHA else ""
    if asked != "covers" or LEAST <= rate <= MOST:
        return ""
    if low <= 0.95 <= high:
        return "within error"
    return "below" if rate < LEAST else "above"
