"""Policies against each other and the base: differences, win rates, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from scipy.stats import norm

from align_bench.records import CellId, Comparison, Estimate, MetricKey
from align_bench.report.figures.base import CORRECT, MAX_PANELS, Figure, Material, span
from align_bench.report.formatting import number, one_line
from align_bench.report.plots import MUTED, Bar, Look, Panel, Series, Shares, curves, forest, heatmap
from align_bench.report.schema import FrontierPoint
from align_bench.stats.power import detectable_effect

# Of more metrics than the forest has room for, these are drawn.
FIRST = (MetricKey("accuracy_logp_mean"), MetricKey("judge_reward"), MetricKey("gold_accuracy"))


def prompt_differences(material: Material, pairs: Sequence[tuple[CellId, CellId]]) -> Figure | None:
    """Histogram of the judge's differences between two cells, prompt by prompt."""
    own, judge = {cell.id: cell for cell in material.done}, material.judge
    panels, rows, said = [], [], []
    for a, b in pairs[:MAX_PANELS]:
        left, right = (own[cell].judged_by_prompt(judge) if judge else {} for cell in (a, b))
        common = [prompt for prompt in dict.fromkeys(own[a].prompts) if prompt in left and prompt in right]
        by_prompt = {prompt: left[prompt] - right[prompt] for prompt in common}
        gaps = np.array(list(by_prompt.values()))
        if len(gaps) < 2:
            continue
        counts, edges = np.histogram(gaps, bins=30)
        bars = Series("", edges, counts, CORRECT, "bars")
        between = f"{material.label(a)} − {material.label(b)}"
        panels.append(Panel(between, "difference of the judge's scores", "prompts", [bars]))
        rows += [(str(a), str(b), prompt, gap) for prompt, gap in by_prompt.items()]
        said.append(
            f"{between}: mean {number(float(gaps.mean()), signed=True)}, higher on {np.mean(gaps > 0):.0%}, equal on "
            f"{np.mean(gaps == 0):.0%} of {len(gaps)} prompts"
        )
    if not panels:
        return None
    return Figure(
        name="prompt-differences",
        chapter="differences",
        title="Prompt by prompt",
        caption=f"How the judge's scores differ, prompt by prompt. {'; '.join(said)}. The paired tests are in the "
        "tables.",
        alternative=f"Histograms. {'; '.join(said)}.",
        columns=("a", "b", "prompt", "difference"),
        rows=rows,
        svg=curves(panels, columns=2, height=2.2),
    )


def differences(material: Material) -> Figure | None:
    """Forest plot of the policies' paired differences from the base."""
    bases = {cell.id for cell in material.done if cell.outcome.kind == "base"}
    tested = [each for each in material.report.comparisons if each.level == "checkpoint" and each.b in bases]
    found = [(each, bar) for each in tested if (bar := _bar(each)) is not None]
    if not found:
        return None
    known = dict.fromkeys(each.metric for each, _ in found)
    metrics = [metric for metric in (*FIRST, *(other for other in known if other not in FIRST)) if metric in known][:3]
    drawn = {metric: [(each, bar) for each, bar in found if each.metric == metric] for metric in metrics}
    panels = {str(metric): {material.label(each.a): bar for each, bar in own} for metric, own in drawn.items()}
    largest = "; ".join(_largest(metric, bars) for metric, bars in panels.items())
    sizes = "; ".join(f"{metric}: n = {max(each.n for each, _ in own)}" for metric, own in drawn.items())
    tests = "; ".join(f"{metric}: {own[0][0].test}" for metric, own in drawn.items())
    return Figure(
        name="differences",
        chapter="differences",
        title="Each policy against the base",
        caption=f"Paired differences from the base with 95% intervals ({sizes}). Blue: shown at a Holm-adjusted 5% "
        f"({tests}). Grey band: differences that a single test at 5% finds with less than 80% probability.",
        alternative=f"Forest plot. {largest}.",
        columns=("policy", "metric", "difference", "low", "high", "not detectable below", "Holm p", "n"),
        rows=[
            (str(each.a), str(each.metric), bar.value, bar.low, bar.high, bar.hidden, each.p_holm, each.n)
            for each, bar in found
            if each.metric in metrics
        ],
        svg=forest(panels),
    )


def win_rates(material: Material) -> Figure | None:
    """Heat map of how often each policy's answer is judged better than another's, prompt by prompt."""
    policies = material.report.policies
    known = [each for each in policies.win_rates if each.rate.value is not None]
    level = "method" if any(each.level == "method" for each in known) else "checkpoint"
    found = {(each.a, each.b): each.rate for each in known if each.level == level}
    if not found:
        return None
    found |= {(b, a): _turned(rate) for (a, b), rate in found.items()}
    cells = list(dict.fromkeys(cell for pair in found for cell in pair))
    shares = {pair: rate.value for pair, rate in found.items() if rate.value is not None}
    best = max(shares, key=lambda pair: shares[pair])
    first, second = map(material.label, best)
    sizes = span(sorted({rate.n for rate in found.values()}))
    over = " Means over all pairs of seeds." if level == "method" else ""
    return Figure(
        name="win-rates",
        chapter="differences",
        title="Who wins against whom",
        caption="Share of the row's answers that have a higher score than one of the column's to the same prompt, by "
        f"the judge {one_line(policies.judge)}; ties count as ½; n = {sizes} prompts.{over} The data hold the "
        "95% intervals; a win rate does not say how much better. The paired tests are in the tables.",
        alternative=f"Heat map of win rates. The highest is that of {first} over {second}, {shares[best]:.1%}.",
        columns=("row", "column", "win rate", "low", "high", "n"),
        rows=[(str(a), str(b), rate.value, rate.low, rate.high, rate.n) for (a, b), rate in found.items()],
        svg=heatmap(
            Shares(
                [material.label(cell) for cell in cells],
                [[shares.get((a, b)) for b in cells] for a in cells],
                x_label="loses",
                y_label="wins",
            )
        ),
    )


def frontier(material: Material) -> Figure | None:
    """Reward against drift: how much each policy gained for how far it moved from the base."""
    shown = {cell.id for cell in material.shown}
    points = [point for point in material.report.policies.frontier if point.cell in shown]
    if len(points) < 2:
        return None
    rewards = _dots(material, [(point, point.reward) for point in points])
    golds = _dots(material, [(point, point.gold) for point in points])
    best = sorted(
        (kl, reward)
        for point in points
        if point.on_frontier and (kl := point.kl.value) is not None and (reward := point.reward.value) is not None
    )
    edge = [Series("", [kl for kl, _ in best], [reward for _, reward in best], Look(MUTED, ":"))] if best else []
    panels = [
        Panel(label, "KL to the base, nats per answer", label, [*line, *dots])
        for label, line, dots in (("judge's score", edge, rewards), ("share right", [], golds))
        if len(dots) > 1
    ]
    if not panels:
        return None
    told = ", ".join(f"{material.label(point.cell)} {number(point.kl.value)} nats" for point in points)
    sizes = span(sorted({point.reward.n for point in points}))
    return Figure(
        name="frontier",
        chapter="drift",
        title="Reward against drift",
        caption=f"Mean score of the answers, with its 95% interval over prompts (n = {sizes}), against the KL "
        "divergence from the base on the policy's own answers (k3 estimate). Dotted: the Pareto frontier of "
        "reward and KL. A judge's score that rises with drift while the share right falls is over-optimisation. "
        f"No test.{material.seeds}",
        alternative=f"Scatter plot. Drift: {told}.",
        columns=(
            *("cell", "KL", "KL low", "KL high", "judge's score", "low", "high"),
            *("share right", "low", "high", "on frontier"),
        ),
        rows=[
            (
                str(point.cell),
                *(bound for own in (point.kl, point.reward, point.gold) for bound in (own.value, own.low, own.high)),
                str(point.on_frontier).lower(),
            )
            for point in points
        ],
        svg=curves(panels, columns=2, height=2.6),
    )


def _dots(material: Material, points: Sequence[tuple[FrontierPoint, Estimate]]) -> list[Series]:
    """A point with its interval for every policy whose reward is known."""
    return [
        Series(
            material.label(point.cell),
            [point.kl.value],
            [own.value],
            material.look(point.cell),
            "points",
            [own.value if own.low is None else own.low],
            [own.value if own.high is None else own.high],
        )
        for point, own in points
        if point.kl.value is not None and own.value is not None
    ]


def _turned(rate: Estimate) -> Estimate:
    """The win rate of b over a."""
    value, high, low = (None if share is None else 1 - share for share in (rate.value, rate.low, rate.high))
    return Estimate(value, low, high, rate.n)


def _bar(found: Comparison) -> Bar | None:
    """The difference with its interval; which differences its test would miss follows from its own standard error."""
    if found.difference is None or found.low is None or found.high is None:
        return None
    half = (found.high - found.low) / 2
    effect = detectable_effect(found.n)
    hidden = None if effect is None else effect * sqrt(found.n) * half / float(norm.ppf(0.975))
    return Bar(found.difference, found.low, found.high, hidden, strong=found.p_holm is not None and found.p_holm < 0.05)


def _largest(metric: str, found: Mapping[str, Bar]) -> str:
    name = max(found, key=lambda cell: found[cell].value)
    bar = found[name]
    return (
        f"{metric}: the largest gain is {name}'s, {number(bar.value, signed=True)} "
        f"[{number(bar.low, signed=True)}, {number(bar.high, signed=True)}]"
    )
