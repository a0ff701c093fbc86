"""Reward and accuracy by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binned_statistic

from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.finite import finite
from align_bench.metrics.length import count_words
from align_bench.report.figures.base import MAX_PANELS, Figure, Material, Row, ends, span
from align_bench.report.formatting import number
from align_bench.report.plots import Cloud, Panel, Series, curves, hexagons

LENGTH_BINS = 8
# A bin of fewer pairs shows nothing but noise.
MIN_IN_BIN = 10


def length_and_reward(material: Material) -> Figure | None:
    """Reward against length, as hexagons with the means of bins."""
    points: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
    for cell in material.rewards:
        length, reward = finite(
            [*cell.column("chosen_words"), *cell.column("rejected_words")],
            [*cell.column("chosen_reward"), *cell.column("rejected_reward")],
        )
        points[cell.name] = np.asarray(length, float), np.asarray(reward, float)
    if (judge := material.judge) is not None and material.answering:
        answers = [answer for cell in material.answering for answer in cell.generations]
        length, reward = finite([count_words(a.text) for a in answers], [a.scores.get(judge) for a in answers])
        points[f"{judge}, of all generations"] = np.asarray(length, float), np.asarray(reward, float)
    clouds, said = [], []
    for name, (length, reward) in list(points.items())[:MAX_PANELS]:
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
        "length-reward",
        "length",
        "Length against reward",
        f"Each hexagon is tinted by the answers in it; the line joins the means of up to {LENGTH_BINS} bins with "
        f"equally many answers (n = {span(sorted(len(cloud.x) for cloud in clouds))}). Chosen and rejected answers of "
        f"the validation pairs, and the generations. No test; the tables hold the correlations.{material.seeds}",
        "Hexagon plots with binned means. " + "; ".join(said) + ".",
        ("panel", "mean words of the bin", "mean reward of the bin"),
        [(c.title, float(x), float(y)) for c in clouds for x, y in zip(c.bin_x, c.bin_y, strict=True)],
        hexagons(clouds, x_label="words", y_label="reward"),
    )


def accuracy_by_length(material: Material) -> Figure | None:
    """Accuracy by how much longer the chosen answer is."""
    panels, rows = [], []
    kinds = {
        "reward models": material.rewards,
        "policies": [c for c in material.shown if c.scores and c not in material.rewards],
    }
    for title, cells in kinds.items():
        series = []
        for cell in cells:
            bins = _accuracy_bins(cell.scores)
            if not bins:
                continue
            centre, value, low, high, _ = (list(column) for column in zip(*bins, strict=True))
            whiskers = (low, high) if len(cells) <= 2 else (None, None)
            series.append(Series(cell.name, centre, value, material.look(cell.name), "line", *whiskers))
            rows += [(cell.name, *one) for one in bins]
        if series:
            panels.append(Panel(title, "words: chosen − rejected", "accuracy", series, level=0.5))
    if not panels:
        return None
    sizes = span(sorted({sum(row[5] for row in rows if row[0] == cell) for cell, *_ in rows}))
    return Figure(
        "accuracy-by-length",
        "length",
        "Accuracy by the difference in length",
        f"Accuracy within bins of the difference in words, at least {MIN_IN_BIN} pairs each (n = {sizes} pairs); right "
        "of 0 the chosen answer is the longer. A judge of length alone would step from 0 to 1. The data hold the 95% "
        f"intervals; dashed: chance. No test.{material.seeds}",
        "Line plots. "
        + ends(((one.name, one.y) for panel in panels for one in panel.series), "longest left", "longest right"),
        ("cell", "mean difference in words", "accuracy", "low", "high", "n"),
        rows,
        curves(panels, columns=2, height=2.6),
    )


def _accuracy_bins(scores: Sequence[Row]) -> list[tuple[float, float, float, float, int]]:
    """Mean difference in words, accuracy with its interval, and pairs, of bins with about equally many pairs."""
    known = [row for row in scores if None not in (row.get("chosen_words"), row.get("rejected_words"))]
    if not known:
        return []
    gaps = np.array([row["chosen_words"] - row["rejected_words"] for row in known], float)
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, LENGTH_BINS + 1)))
    places = np.clip(np.searchsorted(edges, gaps, side="right") - 1, 0, max(0, len(edges) - 2))
    bins = []
    for place in range(max(1, len(edges) - 1)):
        own = [row for row, at in zip(known, places, strict=True) if at == place]
        found = accuracy([row["chosen_reward"] for row in own], [row["rejected_reward"] for row in own])
        if len(own) >= MIN_IN_BIN and found.value is not None and found.low is not None and found.high is not None:
            bins.append((float(gaps[places == place].mean()), found.value, found.low, found.high, len(own)))
    return bins
