"""Policies against each other and the base: differences, win rates, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from scipy.stats import norm

from align_bench.report.figures.base import CORRECT, MAX_PANELS, Figure, Material, Row, span
from align_bench.report.formatting import number, one_line
from align_bench.report.plots import MUTED, Bar, Look, Panel, Series, curves, forest, heatmap
from align_bench.stats.power import detectable_effect

# Of more metrics than the forest has room for, these are drawn.
FIRST = ("accuracy", "judge_reward", "gold_accuracy")


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
    known = dict.fromkeys(one["metric"] for one in found)
    metrics = [metric for metric in (*FIRST, *(other for other in known if other not in FIRST)) if metric in known][:3]
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
    sizes = span(sorted({one["n"] for one in found.values()}))
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
    sizes = span(sorted({point["reward"]["n"] for point in points}))
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


def _turned(rate: Row) -> Row:
    """The win rate of b over a."""
    flipped = {key: None if rate[key] is None else 1 - rate[key] for key in ("value", "low", "high")}
    return {**rate, **flipped, "low": flipped["high"], "high": flipped["low"]}


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
