"""What a report's figures show: each from the report and its exported rows, with its caption and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import binned_statistic, gaussian_kde, norm

from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.finite import finite, is_finite
from align_bench.metrics.length import count_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.metrics.score_groups import score_groups as groups_of
from align_bench.metrics.score_groups import welch_test
from align_bench.report.cells import Cell, judges_of
from align_bench.report.naming import method_of
from align_bench.report.numerals import number, one_line, p_value
from align_bench.report.plots import (
    MUTED,
    Bar,
    Cloud,
    Look,
    Panel,
    Series,
    bars,
    curves,
    forest,
    heatmap,
    hexagons,
    ladders,
    looks,
)
from align_bench.stats.power import detectable_effect
from align_bench.suite import BASE_CELL

Row = Mapping[str, Any]
CORRECT, WRONG = Look("#0072b2"), Look("#d55e00", "--")
GRID_POINTS = 96
MAX_PANELS = 12
LENGTH_BINS = 8
KEYWORDS = 8
# A bin of fewer pairs shows nothing but noise.
MIN_IN_BIN = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: file name without its ending, and id in the page.
        chapter: where in the page it stands.
        title: what it shows, in a few words.
        caption: what is drawn, of how many observations, and which test stands behind it.
        alternative: what a reader who cannot see it should know.
        columns, rows: the drawn numbers.
        svg: the drawing, in the page's colours.
    """

    name: str
    chapter: str
    title: str
    caption: str
    alternative: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    svg: str


@dataclass(frozen=True)
class Material:
    """All that figures are made from.

    Attributes:
        report: as `report.json` holds it.
        cells: every cell with its rows.
        training: rows of `training.parquet`.
    """

    report: Mapping[str, Any]
    cells: Sequence[Cell]
    training: Sequence[Row]

    @cached_property
    def done(self) -> list[Cell]:
        """Cells with a result."""
        return [cell for cell in self.cells if cell.outcome.status == "done"]

    @cached_property
    def shown(self) -> list[Cell]:
        """Of each method the cell of its first seed: what is drawn panel by panel."""
        first: dict[str, Cell] = {}
        for cell in self.done:
            first.setdefault(method_of(cell.name), cell)
        return list(first.values())

    @cached_property
    def rewards(self) -> list[Cell]:
        """The shown reward models."""
        return [cell for cell in self.shown if cell.outcome.kind == "reward" and cell.scores]

    @cached_property
    def answering(self) -> list[Cell]:
        """The base, if it is there, and the shown policies that answered prompts."""
        answering = [cell for cell in self.shown if cell.generations]
        return sorted(answering, key=lambda cell: cell.outcome.kind != "base")

    @cached_property
    def looks(self) -> dict[str, Look]:
        """One look for each method, in every figure."""
        names = list(dict.fromkeys(method_of(cell.name) for cell in self.done))
        return looks(names, plain=BASE_CELL if BASE_CELL in names else None)

    def look(self, cell: str) -> Look:
        """The look of a cell, which is that of its method."""
        return self.looks[method_of(cell)]

    @property
    def judge(self) -> str | None:
        """The first judge's name among the generations' scores."""
        return next(iter(judges_of([answer for cell in self.answering for answer in cell.generations])), None)

    @property
    def seeds(self) -> str:
        """A remark on what is left out, where methods have several seeds."""
        return " Of each method, the first seed is drawn." if len(self.shown) < len(self.done) else ""


def figures(material: Material) -> list[Figure]:
    """Every figure that the report has data for, in the page's order."""
    made = (draw(material) for draw in DRAWN)
    return [figure for figure in made if figure is not None]


def comparison_figures(material: Material, pairs: Sequence[tuple[str, str]]) -> list[Figure]:
    """The figures of a comparison: prompt by prompt for each pair of cells, then those of the report."""
    first = prompt_differences(material, pairs)
    return [*([first] if first else []), *figures(material)]


def prompt_differences(material: Material, pairs: Sequence[tuple[str, str]]) -> Figure | None:
    """Histogram of the judge's differences between two cells, prompt by prompt."""
    own, judge = {cell.name: cell for cell in material.done}, material.judge
    panels, rows, said = [], [], []
    for a, b in pairs[:MAX_PANELS]:
        left, right = (own[name].judged_by_prompt(judge) if judge else {} for name in (a, b))
        gaps = np.array([left[prompt] - right[prompt] for prompt in left if prompt in right])
        if len(gaps) < 2:
            continue
        density, edges = np.histogram(gaps, bins=30)
        panels.append(
            Panel(
                f"{a} − {b}",
                "difference of the judge's scores",
                "prompts",
                [Series("", edges, density, CORRECT, "bars")],
            )
        )
        rows += [(a, b, prompt, left[prompt] - right[prompt]) for prompt in left if prompt in right]
        said.append(
            f"{a} − {b}: mean {number(float(gaps.mean()), signed=True)}, higher on {np.mean(gaps > 0):.0%}, equal on "
            f"{np.mean(gaps == 0):.0%} of {len(gaps)} prompts"
        )
    if not panels:
        return None
    return Figure(
        "prompt-differences",
        "differences",
        "Prompt by prompt",
        f"How the judge's scores differ, prompt by prompt. {'; '.join(said)}. The paired tests stand in the tables.",
        f"Histograms. {'; '.join(said)}.",
        ("a", "b", "prompt", "difference"),
        rows,
        curves(panels, columns=2, height=2.2),
    )


def differences(material: Material) -> Figure | None:
    """Forest plot of the policies' paired differences from the base."""
    bases = {cell.name for cell in material.done if cell.outcome.kind == "base"}
    found = [one for one in material.report["comparisons"] if one["level"] == "checkpoint" and one["b"] in bases]
    found = [one for one in found if None not in (one["difference"], one["low"], one["high"])]
    metrics = list(dict.fromkeys(one["metric"] for one in found))[:3]
    panels = {metric: {one["a"]: _bar(one) for one in found if one["metric"] == metric} for metric in metrics}
    if not found:
        return None
    largest = "; ".join(_largest(metric, panels[metric]) for metric in metrics)
    sizes = "; ".join(
        f"{metric}: n = {max(one['n'] for one in found if one['metric'] == metric)}" for metric in metrics
    )
    tests = "; ".join(f"{metric}: {next(o['test'] for o in found if o['metric'] == metric)}" for metric in metrics)
    return Figure(
        "differences",
        "differences",
        "Each policy against the base",
        f"Paired differences from the base with 95% intervals ({sizes}). Blue: shown at a Holm-adjusted 5% ({tests}). "
        "Grey band: differences that a single test at 5% finds with less than 80% probability.",
        f"Forest plot. {largest}.",
        ("policy", "metric", "difference", "low", "high", "not detectable below", "Holm p", "n"),
        [
            (
                one["a"],
                one["metric"],
                one["difference"],
                one["low"],
                one["high"],
                _bar(one).hidden,
                one["p_holm"],
                one["n"],
            )
            for one in found
            if one["metric"] in metrics
        ],
        forest(panels),
    )


def win_rates(material: Material) -> Figure | None:
    """Heat map of how often each policy's answer is judged better than another's, prompt by prompt."""
    block = material.report.get("policies") or {}
    known = [one for one in block.get("win_rates", ()) if one["value"] is not None]
    level = "method" if any(one["level"] == "method" for one in known) else "checkpoint"
    found = {(one["a"], one["b"]): one for one in known if one["level"] == level}
    if not found:
        return None
    found |= {(b, a): _turned(one) for (a, b), one in found.items()}
    names = list(dict.fromkeys(name for pair in found for name in pair))
    best = max(found, key=lambda pair: float(found[pair]["value"]))
    sizes = _span(sorted({one["n"] for one in found.values()}))
    over = " Means over all pairs of seeds." if level == "method" else ""
    return Figure(
        "win-rates",
        "differences",
        "Who wins against whom",
        "Share of prompts on which the row's answer has the higher score by the judge "
        f"{one_line(block.get('judge'))} than the column's; ties count ½; n = {sizes} prompts.{over} The data hold the "
        "95% intervals; a win rate says nothing of how much better. The paired tests stand in the tables.",
        f"Heat map of win rates. The highest is that of {best[0]} over {best[1]}, {found[best]['value']:.1%}.",
        ("row", "column", "win rate", "low", "high", "n"),
        [(a, b, *(one[key] for key in ("value", "low", "high", "n"))) for (a, b), one in found.items()],
        heatmap(
            names,
            names,
            [[found[a, b]["value"] if (a, b) in found else None for b in names] for a in names],
            text=lambda value: f"{value:.0%}",
            middle=0.5,
            span=0.5,
            x_label="loses",
            y_label="wins",
        ),
    )


def frontier(material: Material) -> Figure | None:
    """Reward against drift: how much each policy gained for how far it moved from the base."""
    shown = {cell.name for cell in material.shown}
    block = material.report.get("policies") or {}
    points = [point for point in block.get("frontier", ()) if point["cell"] in shown]
    if len(points) < 2:
        return None
    panels = []
    for label, quantity in (("judge's score", "reward"), ("share right", "gold")):
        known = [point for point in points if point[quantity]["value"] is not None]
        dots = [
            Series(
                point["cell"],
                [point["kl"]["value"]],
                [point[quantity]["value"]],
                material.look(point["cell"]),
                "points",
                *([point[quantity][bound] or point[quantity]["value"]] for bound in ("low", "high")),
            )
            for point in known
        ]
        best = sorted(
            (p["kl"]["value"], p["reward"]["value"]) for p in known if p["on_frontier"] and quantity == "reward"
        )
        best.sort()
        edge = [Series("", [kl for kl, _ in best], [reward for _, reward in best], Look(MUTED, ":"))] if best else []
        if len(dots) > 1:
            panels.append(Panel(label, "KL to the base, nats an answer", label, [*edge, *dots]))
    if not panels:
        return None
    told = ", ".join(f"{point['cell']} {number(point['kl']['value'])} nats" for point in points)
    sizes = _span(sorted({point["reward"]["n"] for point in points}))
    return Figure(
        "frontier",
        "drift",
        "Reward against drift",
        f"Mean score of the answers, with its 95% interval over prompts (n = {sizes}), against the KL divergence from "
        "the base on the policy's own answers (k3 estimate). Dotted: the frontier, where no other policy has as much "
        "reward for as little drift. A judge's score that rises with drift while the share right falls is "
        f"over-optimisation. No test.{material.seeds}",
        f"Scatter plot. Drift: {told}.",
        (
            "cell",
            "KL",
            "KL low",
            "KL high",
            "judge's score",
            "low",
            "high",
            "share right",
            "low",
            "high",
            "on frontier",
        ),
        [
            (
                point["cell"],
                *(point[quantity][key] for quantity in ("kl", "reward", "gold") for key in ("value", "low", "high")),
                str(point["on_frontier"]).lower(),
            )
            for point in points
        ],
        curves(panels, columns=2, height=2.6),
    )


def reliability(material: Material) -> Figure | None:
    """Reliability diagram of each audited judge and reward model."""
    audited = [found for found in material.report.get("audit") or () if found["reliability"]][:MAX_PANELS]
    panels, said = [], []
    for found in audited:
        bins = found["reliability"]
        drawn = Series("", [one["predicted"] for one in bins], [one["observed"] for one in bins], CORRECT, "line")
        dots = Series("", drawn.x, drawn.y, CORRECT, "points")
        panels.append(Panel(found["scorer"], "predicted", "observed", [drawn, dots], diagonal=True))
        error = (found["metrics"].get("calibration_error") or {}).get("value")
        said.append(f"{found['scorer']} {number(error)}, n = {sum(one['n'] for one in bins)}")
    if not panels:
        return None
    return Figure(
        "reliability",
        "audit",
        "Is the margin a probability?",
        "σ(margin) of the validation pairs, each put in an order drawn at random, in ten bins of equal width: "
        "predicted against observed share of labels that prefer the first answer; dashed: perfect calibration. "
        f"Expected calibration error: {'; '.join(said)} pairs. No test.",
        f"Reliability curves. Expected calibration error: {'; '.join(said)}.",
        ("scorer", "from", "to", "predicted", "observed", "n"),
        [
            (found["scorer"], *(one[key] for key in ("low", "high", "predicted", "observed", "n")))
            for found in audited
            for one in found["reliability"]
        ],
        curves(panels, height=2.3),
    )


def agreement(material: Material) -> Figure | None:
    """Heat map of how often two judges prefer the same of two answers."""
    found = [one for one in material.report.get("agreement") or () if one["agreement"]["value"] is not None]
    names = list(dict.fromkeys(name for one in found for name in (one["a"], one["b"])))
    if not found:
        return None
    known = {frozenset((one["a"], one["b"])): one for one in found}
    values = [
        [known[pair]["agreement"]["value"] if (pair := frozenset((a, b))) in known else None for b in names]
        for a in names
    ]
    said = "; ".join(
        f"{one_line(one['a'])} and {one_line(one['b'])} {one['agreement']['value']:.0%}, Kendall's τ over methods "
        f"{number(one['kendall_tau'])}"
        for one in found
    )
    return Figure(
        "agreement",
        "audit",
        "Do the judges agree?",
        "Share of pairs of answers to one prompt of which two judges prefer the same one. "
        f"{said}; n = {_span(sorted(one['agreement']['n'] for one in found))}. The tables hold the intervals; no test.",
        f"Heat map. {said}.",
        ("a", "b", "agreement", "low", "high", "n", "Kendall's tau"),
        [
            (one["a"], one["b"], *(one["agreement"][key] for key in ("value", "low", "high", "n")), one["kendall_tau"])
            for one in found
        ],
        heatmap(names, names, values, text=lambda value: f"{value:.0%}", middle=0.5, span=0.5),
    )


def keywords(material: Material) -> Figure | None:
    """The strongest keywords of each list."""
    block = material.report.get("keywords") or {}
    found = [one for one in block.get("lists", ()) if one["keywords"]]
    found = sorted(found, key=lambda one: one["kind"])[:MAX_PANELS]
    if not found:
        return None
    lists = {f"{one['of']}, {one['kind']}": one["keywords"] for one in found}
    told = "; ".join(f"{name}: {', '.join(one['term'] for one in terms[:3])}" for name, terms in lists.items())
    return Figure(
        "keywords",
        "keywords",
        "Keywords",
        f"The {KEYWORDS} terms of the largest mean TF-IDF weight: of the answers that the label or a model favours, "
        f"and of each policy's own (n = {_span(sorted(one['texts'] for one in found))} texts). No test.",
        f"Bar charts. {one_line(told)}.",
        ("list", "term", "weight"),
        [(name, one["term"], one["weight"]) for name, terms in lists.items() for one in terms],
        ladders({name: [(one["term"], one["weight"]) for one in terms[:KEYWORDS]] for name, terms in lists.items()}),
    )


def losses(material: Material) -> Figure | None:
    """Training loss of every method, step by step."""
    panels, rows = [], []
    for cell in material.shown[:MAX_PANELS]:
        steps, values = _curve(material.training, cell.name, "loss")
        if not steps:
            continue
        look = material.look(cell.name)
        smooth = _smooth(values)
        drawn = [Series("", steps, values, look, "thin"), Series("smoothed", steps, smooth, Look(look.hue))]
        panels.append(Panel(cell.name, "step", "loss", drawn))
        rows += [(cell.name, step, value, even) for step, value, even in zip(steps, values, smooth, strict=True)]
    if not panels:
        return None
    counts = sorted({len(panel.series[0].x) for panel in panels})
    return Figure(
        "losses",
        "training",
        "Training loss",
        f"Mean loss of each optimizer step (thin) and its moving average (thick), {_span(counts)} steps. Losses of "
        f"different methods have different units: compare shapes, not heights. No test.{material.seeds}",
        "Line plots of training loss. " + _ends((panel.title, panel.series[1].y) for panel in panels),
        ("cell", "step", "loss", "moving average"),
        rows,
        curves(panels),
    )


def online(material: Material) -> Figure | None:
    """Reward and drift of online methods while they train."""
    panels, rows = [], []
    for quantity, label in (("reward", "mean reward"), ("kl", "KL to the reference, nats an answer")):
        series = []
        for cell in material.shown:
            if not any(is_finite(row.get("kl")) for row in material.training if row["cell"] == cell.name):
                continue
            steps, values = _curve(material.training, cell.name, quantity)
            series.append(Series(cell.name, steps, _smooth(values), material.look(cell.name)))
            rows += [(cell.name, quantity, step, value) for step, value in zip(steps, values, strict=True)]
        if series:
            panels.append(Panel(quantity if quantity != "kl" else "KL", "step", label, series))
    if not panels:
        return None
    return Figure(
        "online",
        "training",
        "Online methods while they train",
        f"Moving averages of the batch means: the reward that the method is trained on, and the drift from the "
        f"reference. Rising reward with fast rising KL is where over-optimisation begins. No test.{material.seeds}",
        "Line plots. " + _ends((f"{one.name} {panel.title}", one.y) for panel in panels for one in panel.series),
        ("cell", "quantity", "step", "value"),
        rows,
        curves(panels, columns=2, height=2.3),
    )


def sweeps(material: Material) -> Figure | None:
    """Training loss within each method's grid."""
    panels, rows = [], []
    variants: dict[str, list[Cell]] = {}
    for cell in material.shown:
        if cell.outcome.kind != "base":
            variants.setdefault(cell.outcome.algorithm, []).append(cell)
    for method, cells in variants.items():
        known = [(cell, *_curve(material.training, cell.name, "loss")) for cell in cells]
        known = [(cell, steps, values) for cell, steps, values in known if steps]
        if len(known) < 2:
            continue
        own = looks([cell.name for cell, _, _ in known])
        drawn = [Series(cell.name, steps, _smooth(values), own[cell.name]) for cell, steps, values in known]
        panels.append(Panel(method, "step", "loss, moving average", drawn))
        rows += [
            (cell.name, step, loss) for cell, steps, values in known for step, loss in zip(steps, values, strict=True)
        ]
    if not panels:
        return None
    return Figure(
        "sweeps",
        "training",
        "Sweeps",
        "Moving average of the training loss for every point of a method's grid. The lowest training loss need not "
        f"be the best model: the tables say what held on validation pairs. No test.{material.seeds}",
        "Line plots. " + _ends((one.name, one.y) for panel in panels for one in panel.series),
        ("cell", "step", "loss"),
        rows,
        curves(panels[:MAX_PANELS], columns=2, height=2.6),
    )


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
    groups = {cell.name: _finite(cell.judged(judge)) for cell in material.answering}
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
        cell.name: _finite([flesch_kincaid(answer.text) for answer in cell.generations]) for cell in material.answering
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
        f"equally many answers (n = {_span(sorted(len(cloud.x) for cloud in clouds))}). Chosen and rejected answers of "
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
    sizes = _span(sorted({sum(row[5] for row in rows if row[0] == cell) for cell, *_ in rows}))
    return Figure(
        "accuracy-by-length",
        "length",
        "Accuracy by the difference in length",
        f"Accuracy within bins of the difference in words, at least {MIN_IN_BIN} pairs each (n = {sizes} pairs); right "
        "of 0 the chosen answer is the longer. A judge of length alone would step from 0 to 1. The data hold the 95% "
        f"intervals; dashed: chance. No test.{material.seeds}",
        "Line plots. "
        + _ends(((one.name, one.y) for panel in panels for one in panel.series), "longest left", "longest right"),
        ("cell", "mean difference in words", "accuracy", "low", "high", "n"),
        rows,
        curves(panels, columns=2, height=2.6),
    )


def cost(material: Material) -> Figure | None:
    """Wall time and peak memory of each cell."""
    spent = [(cell.name, cell.outcome.cost) for cell in material.shown if cell.outcome.cost]
    if not spent:
        return None
    seconds = [known.seconds for _, known in spent]
    memory = [known.peak_bytes / 2**20 for _, known in spent]
    slowest = spent[int(np.argmax(seconds))][0]
    return Figure(
        "cost",
        "cost",
        "What each cell cost",
        "Wall time of training, evaluation, generation and judging, and peak memory of the process; one run each, so "
        f"no interval and no test.{material.seeds}",
        f"Bar charts. The slowest cell is {slowest} with {max(seconds):.1f} seconds.",
        ("cell", "seconds", "tokens", "peak MiB"),
        [(name, known.seconds, known.tokens, known.peak_bytes / 2**20) for name, known in spent],
        bars([name for name, _ in spent], {"wall time, seconds": seconds, "peak memory, MiB": memory}),
    )


DRAWN: Sequence[Callable[[Material], Figure | None]] = (
    differences,
    win_rates,
    losses,
    online,
    sweeps,
    score_groups,
    chosen_and_rejected,
    judged,
    words,
    readability,
    length_and_reward,
    accuracy_by_length,
    reliability,
    agreement,
    frontier,
    keywords,
    cost,
)


def _turned(rate: Row) -> Row:
    """The win rate of b over a."""
    flipped = {key: None if rate[key] is None else 1 - rate[key] for key in ("value", "low", "high")}
    return {**rate, **flipped, "low": flipped["high"], "high": flipped["low"]}


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
    sizes = _span(sorted({len(values) for values in groups.values()}))
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


def _bar(found: Row) -> Bar:
    """The differences that a test of this one would miss follow from its own standard error."""
    half = (found["high"] - found["low"]) / 2
    effect = detectable_effect(found["n"])
    hidden = None if effect is None else effect * sqrt(found["n"]) * half / float(norm.ppf(0.975))
    strong = found["p_holm"] is not None and found["p_holm"] < 0.05
    return Bar(found["difference"], found["low"], found["high"], hidden, strong)


def _largest(metric: str, found: Mapping[str, Bar]) -> str:
    name = max(found, key=lambda cell: found[cell].value)
    bar = found[name]
    return (
        f"{metric}: the largest gain is {name}'s, {number(bar.value, signed=True)} "
        f"[{number(bar.low, signed=True)}, {number(bar.high, signed=True)}]"
    )


def _rewards(cell: Cell) -> np.ndarray[Any, Any]:
    """Rewards of the pairs where both are finite: [pairs, 2], chosen first."""
    both = finite(cell.column("chosen_reward"), cell.column("rejected_reward"))
    return np.column_stack([np.asarray(side, float) for side in both])


def _finite(values: Sequence[float | None]) -> np.ndarray[Any, Any]:
    return np.array([value for value in values if is_finite(value)], float)


def _welch(right: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]) -> str:
    test = welch_test(right, wrong)
    return f"t = {number(test.t)}, p = {p_value(test.p)}"


def _curve(training: Sequence[Row], cell: str, quantity: str) -> tuple[list[int], list[float]]:
    known = [(row["step"], row[quantity]) for row in training if row["cell"] == cell and is_finite(row.get(quantity))]
    return [step for step, _ in known], [value for _, value in known]


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a tenth of the steps; at both ends over those that are there."""
    half = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
    return means


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


def _ends(curves_by_name: Any, first: str = "first", last: str = "last") -> str:
    parts = [
        f"{one_line(name)} {number(float(y[0]))} {first}, {number(float(y[-1]))} {last}"
        for name, y in curves_by_name
        if len(y)
    ]
    return "; ".join(parts) + "."


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
