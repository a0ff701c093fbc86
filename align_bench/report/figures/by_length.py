"""Reward and accuracy by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binned_statistic

from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.finite import Column, finite
from align_bench.metrics.length import count_words
from align_bench.report.figures.base import MAX_PANELS, Figure, Material, ends, span
from align_bench.report.formatting import number
from align_bench.report.plots import Cloud, Panel, Series, curves, hexagons
from align_bench.report.rows import ScoreRow

LENGTH_BINS = 8
# A bin of fewer pairs shows nothing but noise.
MIN_IN_BIN = 10


def length_and_reward(material: Material) -> Figure | None:
    """Reward against length, as hexagons with the means of bins."""
    clouds, said = [], []
    for name, (length, reward) in list(_points(material).items())[:MAX_PANELS]:
        if len(length) < MIN_IN_BIN or np.ptp(length) == 0 or np.ptp(reward) == 0:
            continue
        edges = np.unique(np.quantile(length, np.linspace(0, 1, LENGTH_BINS + 1)))
        means, _, _ = binned_statistic(length, reward, bins=edges)
        centres, _, _ = binned_statistic(length, length, bins=edges)
        known = ~np.isnan(means)
        clouds.append(Cloud(name, length, reward, centres[known], means[known]))
        said.append(f"{name}: {number(means[known][0])} in the shortest bin, {number(means[known][-1])} in the longest")
    if not clouds:
        return None
    return Figure(
        name="length-reward",
        chapter="length",
        title="Length against reward",
        caption=f"Each hexagon is tinted by the answers in it; the line joins the means of up to {LENGTH_BINS} bins "
        f"with equally many answers (n = {span(sorted(len(cloud.x) for cloud in clouds))}). Chosen and rejected "
        "answers of the validation pairs, and the generations. No test; the tables hold the "
        f"correlations.{material.seeds}",
        alternative="Hexagon plots with binned means. " + "; ".join(said) + ".",
        columns=("panel", "mean words of the bin", "mean reward of the bin"),
        rows=[
            (cloud.title, float(x), float(y)) for cloud in clouds for x, y in zip(cloud.bin_x, cloud.bin_y, strict=True)
        ],
        svg=hexagons(clouds, x_label="words", y_label="reward"),
    )


def accuracy_by_length(material: Material) -> Figure | None:
    """Accuracy by how much longer the chosen answer is."""
    panels, found = [], []
    kinds = {
        "reward models": material.rewards,
        "policies": [cell for cell in material.shown if cell.scores and cell not in material.rewards],
    }
    for title, cells in kinds.items():
        series = []
        for cell in cells:
            bins = _accuracy_bins(cell.scores)
            if not bins:
                continue
            gaps, shares = [one.gap for one in bins], [one.accuracy for one in bins]
            own = Series(material.label(cell.id), gaps, shares, material.look(cell.id))
            if len(cells) <= 2:  # of more, intervals would hide the lines
                own = replace(own, low=[one.low for one in bins], high=[one.high for one in bins])
            series.append(own)
            found.append((cell.name, bins))
        if series:
            panels.append(Panel(title, "words: chosen − rejected", "accuracy", series, level=0.5))
    if not panels:
        return None
    sizes = span(sorted({sum(one.n for one in bins) for _, bins in found}))
    return Figure(
        name="accuracy-by-length",
        chapter="length",
        title="Accuracy by the difference in length",
        caption=f"Accuracy within bins of the difference in words, at least {MIN_IN_BIN} pairs each (n = {sizes} "
        "pairs); right of 0 the chosen answer is the longer. A judge of length alone would step from 0 to 1. The data "
        f"hold the 95% intervals; dashed: chance. No test.{material.seeds}",
        alternative="Line plots. "
        + ends(((one.name, one.y) for panel in panels for one in panel.series), "longest left", "longest right"),
        columns=("cell", "mean difference in words", "accuracy", "low", "high", "n"),
        rows=[(name, one.gap, one.accuracy, one.low, one.high, one.n) for name, bins in found for one in bins],
        svg=curves(panels, columns=2, height=2.6),
    )


def _points(material: Material) -> dict[str, tuple[Column, Column]]:
    """Panel → words and rewards of answers: by each reward model, and of the generations by the judge."""
    points: dict[str, tuple[Column, Column]] = {}
    for cell in material.rewards:
        (chosen_words, rejected_words), (chosen, rejected) = cell.words, cell.rewards
        length, reward = finite([*chosen_words, *rejected_words], [*chosen, *rejected])
        points[material.label(cell.id)] = length, reward
    if (judge := material.judge) is not None and material.answering:
        answers = [answer for cell in material.answering for answer in cell.generations]
        length, reward = finite(
            [count_words(answer.text) for answer in answers], [answer.scores.get(judge) for answer in answers]
        )
        points[f"{judge}, of all generations"] = length, reward
    return points


@dataclass(frozen=True, slots=True)
class _Bin:
    """Pairs of about one difference in words.

    Attributes:
        gap: mean of words of the chosen answer − words of the rejected one.
        accuracy, low, high: share of pairs ranked as labelled, with its 95% interval.
        n: pairs.
    """

    gap: float
    accuracy: float
    low: float
    high: float
    n: int


def _accuracy_bins(scores: Sequence[ScoreRow]) -> list[_Bin]:
    """Bins of the difference in words with about equally many pairs."""
    known = [
        (row, row.chosen_words - row.rejected_words)
        for row in scores
        if row.chosen_words is not None and row.rejected_words is not None
    ]
    if not known:
        return []
    gaps = np.array([gap for _, gap in known], float)
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, LENGTH_BINS + 1)))
    places = np.clip(np.searchsorted(edges, gaps, side="right") - 1, 0, max(0, len(edges) - 2))
    bins = []
    for place in range(max(1, len(edges) - 1)):
        own = [row for (row, _), at in zip(known, places, strict=True) if at == place]
        found = accuracy([row.chosen_reward for row in own], [row.rejected_reward for row in own])
        if len(own) >= MIN_IN_BIN and found.value is not None and found.low is not None and found.high is not None:
            bins.append(_Bin(float(gaps[places == place].mean()), found.value, found.low, found.high, len(own)))
    return bins
