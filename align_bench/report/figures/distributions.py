"""Densities of scores, lengths and grades."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import gaussian_kde

from align_bench.metrics.finite import Column, finite
from align_bench.metrics.length import count_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.metrics.score_groups import score_groups as groups_of
from align_bench.metrics.score_groups import welch_test
from align_bench.records import CellId
from align_bench.report.cells import Cell
from align_bench.report.figures.base import CORRECT, MAX_PANELS, WRONG, Figure, Material, finite_of, span
from align_bench.report.formatting import number, p_value
from align_bench.report.plots import Look, Panel, Series, curves

GRID_POINTS = 96


def score_groups(material: Material) -> Figure | None:
    """The course's score analysis: the higher score of each pair, by whether it belongs to the chosen answer."""
    panels, rows, said = [], [], []
    for cell in material.rewards[:MAX_PANELS]:
        groups = groups_of(*cell.rewards)
        right, wrong = groups.correct, groups.wrong
        drawn = _groups({"correct": (right, CORRECT), "wrong": (wrong, WRONG)}, histogram=True)
        if not drawn:
            continue
        panels.append(Panel(material.label(cell.id), "higher score of the pair", "density", drawn, y_ticks=False))
        rows += [
            (cell.name, group, value)
            for group, values in (("correct", right), ("wrong", wrong))
            for value in values.tolist()
        ]
        test = welch_test(right, wrong)
        said.append(
            f"{material.label(cell.id)}: t = {number(test.t)}, p = {p_value(test.p)}, n = {len(right)} and {len(wrong)}"
        )
    if not panels:
        return None
    return Figure(
        name="score-groups",
        chapter="scores",
        title="Scores where the reward model is right and where it is wrong",
        caption="Histogram and kernel density of the higher of a pair's two scores, by whether it belongs to the "
        f"chosen answer (correct) or not (wrong); ties are left out. Welch t-test between the groups: "
        f"{'; '.join(said)}.{material.seeds}",
        alternative="Histograms with density curves. " + "; ".join(said) + ".",
        columns=("cell", "group", "score"),
        rows=rows,
        svg=curves(panels, height=2.2),
    )


def chosen_and_rejected(material: Material) -> Figure | None:
    """Densities of the rewards of chosen and rejected answers."""
    panels, rows, said = [], [], []
    cells = [cell for cell in material.shown if cell.scores][:MAX_PANELS]
    for cell in cells:
        chosen, rejected = _rewards(cell)
        drawn = _groups({"chosen": (chosen, CORRECT), "rejected": (rejected, WRONG)}, histogram=True)
        if not drawn:
            continue
        panels.append(Panel(material.label(cell.id), "reward", "density", drawn, y_ticks=False))
        rows += [(cell.name, *pair) for pair in zip(chosen.tolist(), rejected.tolist(), strict=True)]
        said.append(f"{material.label(cell.id)} {number(float(np.mean(chosen - rejected)), signed=True)}")
    if not panels:
        return None
    return Figure(
        name="chosen-rejected",
        chapter="scores",
        title="Rewards of chosen and rejected answers",
        caption=f"Histograms and kernel densities over the validation pairs (n = {len(_rewards(cells[0])[0])}); a "
        f"policy's reward is that of its own method. Mean margins: {', '.join(said)}. The tables test the accuracies; "
        f"here, no test.{material.seeds}",
        alternative=f"Density curves. Mean margin of chosen over rejected: {', '.join(said)}.",
        columns=("cell", "chosen reward", "rejected reward"),
        rows=rows,
        svg=curves(panels, height=1.9),
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    """A number of every answer, whose distributions are drawn policy by policy.

    Attributes:
        name, chapter, title, caption: of the figure.
        unit: heading of its numbers.
        label: of its x axis.
        histogram: whether histograms stand behind the densities.
    """

    name: str
    chapter: str
    title: str
    caption: str
    unit: str
    label: str
    histogram: bool = False


JUDGED = _Measure(
    name="judged",
    chapter="scores",
    title="The judge's scores of the answers",
    caption="Histograms and kernel densities of the judge's scores, each policy over the base. The tests are under "
    "Differences.",
    unit="score",
    label="judge's score",
    histogram=True,
)
WORDS = _Measure(
    name="words",
    chapter="length",
    title="Words per answer",
    caption="Kernel densities of answer lengths, each policy over the base. No test.",
    unit="words",
    label="words",
)
GRADE = _Measure(
    name="readability",
    chapter="length",
    title="Readability of the answers",
    caption="Kernel densities of the Flesch–Kincaid grade, each policy over the base; answers without a Latin word "
    "have none. No test.",
    unit="grade",
    label="school grade",
)


def judged(material: Material) -> Figure | None:
    """Density of the judge's scores of each policy's answers, over the base's."""
    judge = material.judge
    if judge is None:
        return None
    return _over_the_base(material, JUDGED, {cell.id: finite_of(cell.judged(judge)) for cell in material.answering})


def words(material: Material) -> Figure | None:
    """Density of answer lengths in words."""
    found = {
        cell.id: np.array([count_words(answer.text) for answer in cell.generations], float)
        for cell in material.answering
    }
    return _over_the_base(material, WORDS, found)


def readability(material: Material) -> Figure | None:
    """Density of Flesch–Kincaid grades."""
    found = {
        cell.id: finite_of([flesch_kincaid(answer.text) for answer in cell.generations]) for cell in material.answering
    }
    return _over_the_base(material, GRADE, found)


def _over_the_base(material: Material, measure: _Measure, groups: Mapping[CellId, Column]) -> Figure | None:
    """A density for each policy, with the base's behind it."""
    base = next((cell.id for cell in material.answering if cell.outcome.kind == "base"), None)
    policies = [cell for cell in groups if cell != base][:MAX_PANELS]
    limits = _range(groups.values())
    panels = []
    for cell in policies:
        both = [known for known in (base, cell) if known is not None]
        own = {material.label(known): (groups[known], material.look(known)) for known in both}
        if drawn := _groups(own, histogram=measure.histogram, limits=limits):
            panels.append(Panel(material.label(cell), measure.label, "density", drawn, y_ticks=False))
    if not panels:
        return None
    means = ", ".join(
        f"{material.label(cell)} {number(float(values.mean()))}" for cell, values in groups.items() if len(values)
    )
    sizes = span(sorted({len(values) for values in groups.values()}))
    return Figure(
        name=measure.name,
        chapter=measure.chapter,
        title=measure.title,
        caption=f"{measure.caption} Means: {means}; n = {sizes} answers.{material.seeds}",
        alternative=f"Density curves. Means: {means}.",
        columns=("cell", measure.unit),
        rows=[(str(cell), value) for cell, values in groups.items() for value in values.tolist()],
        svg=curves(panels, height=1.9),
    )


def _groups(
    groups: Mapping[str, tuple[Column, Look]], *, histogram: bool, limits: tuple[float, float] | None = None
) -> list[Series]:
    """Density curves of groups on one grid, over their histograms where asked."""
    low, high = limits or _range(values for values, _ in groups.values())
    grid = np.linspace(low, high, GRID_POINTS)
    drawn = []
    for name, (values, look) in groups.items():
        if histogram and len(values):
            density, edges = np.histogram(values, bins=24, range=(low, high), density=True)
            drawn.append(Series("", edges, density, look, "bars"))
        if len(values) > 2 and np.ptp(values) > 0:
            drawn.append(Series(name, grid, gaussian_kde(values)(grid), look, "line" if histogram else "area"))
    return drawn


def _range(groups: Iterable[Column]) -> tuple[float, float]:
    """From the lowest to the highest value of all groups, and a little beyond, but not below 0 when none is; the far
    0.5% at each end are cut."""
    values = np.concatenate([*groups, np.empty(0)])
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.08 * (high - low) or max(0.5, 0.05 * abs(high))
    return float(max(low - margin, 0) if values.min() >= 0 else low - margin), float(high + margin)


def _rewards(cell: Cell) -> tuple[Column, Column]:
    """Rewards of the chosen and of the rejected answers, of the pairs where both are finite."""
    chosen, rejected = finite(*cell.rewards)
    return chosen, rejected
