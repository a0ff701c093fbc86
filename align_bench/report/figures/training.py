"""Loss, reward and drift while the methods train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align_bench.metrics.finite import is_finite
from align_bench.report.cells import Cell
from align_bench.report.figures.base import MAX_PANELS, Figure, Material, ends, span
from align_bench.report.plots import Look, Panel, Series, curves, looks
from align_bench.report.schema import Trial
from align_bench.suite.names import JUDGE_CELL


def losses(material: Material) -> Figure | None:
    """Training loss of every method, step by step."""
    panels, rows = [], []
    for cell in material.shown[:MAX_PANELS]:
        steps, values = _losses(material, cell)
        if not steps:
            continue
        look = material.look(cell.id)
        smooth = _smooth(values)
        drawn = [Series("", steps, values, look, "thin"), Series("smoothed", steps, smooth, Look(look.hue))]
        panels.append(Panel(material.label(cell.id), "step", "loss", drawn))
        rows += [(cell.name, step, value, even) for step, value, even in zip(steps, values, smooth, strict=True)]
    if not panels:
        return None
    counts = sorted({len(panel.series[0].x) for panel in panels})
    return Figure(
        name="losses",
        chapter="training",
        title="Training loss",
        caption=f"Mean loss of each optimizer step (thin) and its moving average (thick), {span(counts)} steps. Losses "
        f"of different methods have different units: compare shapes, not heights. No test.{material.seeds}",
        alternative="Line plots of training loss. " + ends((panel.title, panel.series[1].y) for panel in panels),
        columns=("cell", "step", "loss", "moving average"),
        rows=rows,
        svg=curves(panels),
    )


def online(material: Material) -> Figure | None:
    """Reward and drift of online methods while they train."""
    panels, rows = [], []
    for quantity, title, label in (("reward", "reward", "mean reward"), ("kl", "KL", "KL, nats per answer")):
        series = []
        for cell in material.shown:
            own = material.training_of(cell)
            if not any(is_finite(row.measures.get("kl")) for row in own):
                continue
            steps, values = _known([(row.step, row.measures.get(quantity)) for row in own])
            series.append(Series(material.label(cell.id), steps, _smooth(values), material.look(cell.id)))
            rows += [(cell.name, quantity, step, value) for step, value in zip(steps, values, strict=True)]
        if series:
            panels.append(Panel(title, "step", label, series))
    if not panels:
        return None
    return Figure(
        name="online",
        chapter="training",
        title="Online methods while they train",
        caption="Moving averages of the batch means: the reward that the method is trained on, and the drift from the "
        f"reference. Rising reward with fast rising KL is where over-optimisation begins. No test.{material.seeds}",
        alternative="Line plots. "
        + ends((f"{one.name} {panel.title}", one.y) for panel in panels for one in panel.series),
        columns=("cell", "quantity", "step", "value"),
        rows=rows,
        svg=curves(panels, columns=2, height=2.3),
    )


def sweeps(material: Material) -> Figure | None:
    """Training loss within each method's grid."""
    panels, rows = [], []
    variants: dict[str, list[Cell]] = {}
    for cell in material.shown:
        if cell.outcome.kind != "base" and cell.outcome.algorithm != JUDGE_CELL:  # judges are no grid
            variants.setdefault(cell.outcome.algorithm, []).append(cell)
    for method, cells in variants.items():
        known = [(cell, *_losses(material, cell)) for cell in cells]
        known = [(cell, steps, values) for cell, steps, values in known if steps]
        if len(known) < 2:
            continue
        own = looks([cell.id for cell, _, _ in known])
        drawn = [Series(material.label(cell.id), steps, _smooth(values), own[cell.id]) for cell, steps, values in known]
        panels.append(Panel(method, "step", "loss, moving average", drawn))
        rows += [
            (cell.name, step, loss) for cell, steps, values in known for step, loss in zip(steps, values, strict=True)
        ]
    if not panels:
        return None
    return Figure(
        name="sweeps",
        chapter="training",
        title="Sweeps",
        caption="Moving average of the training loss for every point of a method's grid. The lowest training loss need "
        f"not be the best model: the tables say what held on validation pairs. No test.{material.seeds}",
        alternative="Line plots. " + ends((one.name, one.y) for panel in panels for one in panel.series),
        columns=("cell", "step", "loss"),
        rows=rows,
        svg=curves(panels[:MAX_PANELS], columns=2, height=2.6),
    )


def trials(material: Material) -> Figure | None:
    """Training loss of every trial of a tuned method."""
    panels, rows = [], []
    for found in material.report.tuning.methods if material.report.tuning else []:
        known = [(trial, *_known(material.losses_of(str(trial.cell)))) for trial in found.trials]
        known = [(trial, steps, values) for trial, steps, values in known if steps]
        if not known:
            continue
        own = looks([trial.cell for trial, _, _ in known])
        names = {trial.cell: _setting(trial, found.trials) for trial, _, _ in known}
        # Steps of different sizes: what all went through are the same rows.
        drawn = [
            Series(names[trial.cell], [step / len(steps) for step in steps], _smooth(values), own[trial.cell])
            for trial, steps, values in known
        ]
        panels.append(Panel(str(found.method), "share of the training", "loss, moving average", drawn))
        rows += [
            (str(trial.cell), names[trial.cell], step, loss)
            for trial, steps, values in known
            for step, loss in zip(steps, values, strict=True)
        ]
    if not panels:
        return None
    return Figure(
        name="trials",
        chapter="training",
        title="Loss of the trials",
        caption="Moving average of the training loss of every trial on the part of train that is not held out. Which "
        "trial is kept is decided on the held-out pairs: see the table of trials. No test.",
        alternative="Line plots. " + ends((one.name, one.y) for panel in panels for one in panel.series),
        columns=("trial", "setting", "step", "loss"),
        rows=rows,
        svg=curves(panels[:MAX_PANELS], columns=2, height=2.6),
    )


def _setting(one: Trial, every: Sequence[Trial]) -> str:
    """The parameters in which a method's trials differ."""
    names = [name for name in one.parameters if len({repr(other.parameters[name]) for other in every}) > 1]
    return ", ".join(f"{name} {one.parameters[name]}" for name in names)


def _losses(material: Material, cell: Cell) -> tuple[list[int], list[float]]:
    return _known(material.losses_of(cell.name))


def _known(points: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float]]:
    """Steps and values, where the value is finite."""
    known = [(step, value) for step, value in points if value is not None and is_finite(value)]
    return [step for step, _ in known], [value for _, value in known]


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a tenth of the steps; at both ends over those that are there."""
    half = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
    return means
