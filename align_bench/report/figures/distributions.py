"""Densities of scores, lengths and grades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import gaussian_kde

from align_bench.metrics.finite import finite
from align_bench.metrics.length import count_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.metrics.score_groups import score_groups as groups_of
from align_bench.metrics.score_groups import welch_test
from align_bench.report.cells import Cell
from align_bench.report.figures.base import CORRECT, MAX_PANELS, WRONG, Figure, Material, finite_of, span
from align_bench.report.formatting import number, p_value
from align_bench.report.plots import Look, Panel, Series, curves

GRID_POINTS = 96


def score_groups(material: Material) -> Figure | None:
    """The course's score analysis: the higher score of each pair, by whether it belongs to the chosen answer."""
    panels, rows, said = [], [], []
    for cell in material.rewards[:MAX_PANELS]:
        groups = groups_of(cell.column("chosen_reward"), cell.column("rejected_reward"))
        right, wrong = groups.correct, groups.wrong
        drawn = _groups({"correct": (right, CORRECT), "wrong": (wrong, WRONG)}, histogram=True)
        if not drawn:
            continue
        panels.append(Panel(cell.name, "higher score of the pair", "density", drawn))
        rows += [
            (cell.name, group, value) for group, values in (("correct", right), ("wrong", wrong)) for value in values
        ]
        said.append(f"{cell.name}: {_welch(right, wrong)}, n = {len(right)} and {len(wrong)}")
    if not panels:
        return None
    return Figure(
        "score-groups",
        "scores",
        "Scores where the reward model is right and where it is wrong",
        "Histogram and kernel density of the higher of a pair's two scores, by whether it belongs to the chosen answer "
        f"(correct) or not (wrong); ties are left out. Welch t-test between the groups: "
        f"{'; '.join(said)}.{material.seeds}",
        "Histograms with density curves. " + "; ".join(said) + ".",
        ("cell", "group", "score"),
        rows,
        curves(panels, height=2.2),
    )


def chosen_and_rejected(material: Material) -> Figure | None:
    """Densities of the rewards of chosen and rejected answers."""
    panels, rows, said = [], [], []
    cells = [cell for cell in material.shown if cell.scores][:MAX_PANELS]
    for cell in cells:
        pairs = _rewards(cell)
        drawn = _groups({"chosen": (pairs[:, 0], CORRECT), "rejected": (pairs[:, 1], WRONG)}, histogram=True)
        if not drawn:
            continue
        panels.append(Panel(cell.name, "reward", "density", drawn))
        rows += [(cell.name, float(chosen), float(rejected)) for chosen, rejected in pairs]
        said.append(f"{cell.name} {number(float(np.mean(pairs[:, 0] - pairs[:, 1])), signed=True)}")
    if not panels:
        return None
    return Figure(
        "chosen-rejected",
        "scores",
        "Rewards of chosen and rejected answers",
        f"Histograms and kernel densities over the validation pairs (n = {len(_rewards(cells[0]))}); a policy's reward "
        f"is that of its own method. Mean margins: {', '.join(said)}. The tables test the accuracies; here, no "
        f"test.{material.seeds}",
        f"Density curves. Mean margin of chosen over rejected: {', '.join(said)}.",
        ("cell", "chosen reward", "rejected reward"),
        rows,
        curves(panels, height=1.9),
    )


def judged(material: Material) -> Figure | None:
    """Density of the judge's scores of each policy's answers, over the base's."""
    judge = material.judge
    if judge is None:
        return None
    groups = {cell.name: finite_of(cell.judged(judge)) for cell in material.answering}
    return _over_the_base(
        material,
        groups,
        Figure(
            "judged",
            "scores",
            "The judge's scores of the answers",
            "Histograms and kernel densities of the judge's scores, each policy over the base. The tests stand under "
            "Differences.",
            "",
            ("cell", "score"),
            (),
            "",
        ),
        "judge's score",
        histogram=True,
    )


def words(material: Material) -> Figure | None:
    """Density of answer lengths in words."""
    groups = {
        cell.name: np.array([count_words(a.text) for a in cell.generations], float) for cell in material.answering
    }
    return _over_the_base(
        material,
        groups,
        Figure(
            "words",
            "length",
            "Words in an answer",
            "Kernel densities of answer lengths, each policy over the base. No test.",
            "",
            ("cell", "words"),
            (),
            "",
        ),
        "words",
    )


def readability(material: Material) -> Figure | None:
    """Density of Flesch–Kincaid grades."""
    groups = {
        cell.name: finite_of([flesch_kincaid(answer.text) for answer in cell.generations])
        for cell in material.answering
    }
    return _over_the_base(
        material,
        groups,
        Figure(
            "readability",
            "length",
            "Readability of the answers",
            "Kernel densities of the Flesch–Kincaid grade, each policy over the base; answers without a Latin word "
            "have none. No test.",
            "",
            ("cell", "grade"),
            (),
            "",
        ),
        "school grade",
    )


def _over_the_base(
    material: Material,
    groups: Mapping[str, np.ndarray[Any, Any]],
    figure: Figure,
    x_label: str,
    *,
    histogram: bool = False,
) -> Figure | None:
    """A density for each policy, with the base's behind it; fills what the figure still lacks."""
    base = next((cell.name for cell in material.answering if cell.outcome.kind == "base"), None)
    policies = [name for name in groups if name != base][:MAX_PANELS]
    low, high = _range(groups.values())
    panels = []
    for name in policies:
        both = {known: groups[known] for known in (base, name) if known is not None}
        own = {known: (values, material.look(known)) for known, values in both.items()}
        drawn = _groups(own, histogram=histogram, limits=(low, high))
        if drawn:
            panels.append(Panel(name, x_label, "density", drawn))
    if not panels:
        return None
    means = ", ".join(f"{name} {number(float(values.mean()))}" for name, values in groups.items() if len(values))
    sizes = span(sorted({len(values) for values in groups.values()}))
    return Figure(
        figure.name,
        figure.chapter,
        figure.title,
        f"{figure.caption} Means: {means}; n = {sizes} answers.{material.seeds}",
        f"Density curves. Means: {means}.",
        figure.columns,
        [(name, float(value)) for name, values in groups.items() for value in values],
        curves(panels, height=1.9),
    )


def _groups(
    groups: Mapping[str, tuple[np.ndarray[Any, Any], Look]],
    *,
    histogram: bool = False,
    limits: tuple[float, float] | None = None,
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


def _range(groups: Any) -> tuple[float, float]:
    """From the lowest to the highest value of all groups, and a little beyond, but not below 0 when none is; the far
    0.5% at each end are cut."""
    values = np.concatenate([*map(np.asarray, groups), np.empty(0)])
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.08 * (high - low) or max(0.5, 0.05 * abs(high))
    return float(max(low - margin, 0) if values.min() >= 0 else low - margin), float(high + margin)


def _rewards(cell: Cell) -> np.ndarray[Any, Any]:
    """Rewards of the pairs where both are finite: [pairs, 2], chosen first."""
    both = finite(cell.column("chosen_reward"), cell.column("rejected_reward"))
    return np.column_stack([np.asarray(side, float) for side in both])


def _welch(right: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]) -> str:
    test = welch_test(right, wrong)
    return f"t = {number(test.t)}, p = {p_value(test.p)}"
