"""Train every built-in method once, on the embedded base and rows, and draw the curves of its page in docs/methods.

`method_curves.yaml` is the suite; here it gets all methods. What is in `--runs` is used again, so that a killed run
goes on and a changed method is trained alone. From nothing it takes about ten minutes of one core. The log of every
training goes to docs/method_curves.json, and its drawing to docs/pictures/methods. A method that cannot be trained on
these rows is there with the reason.

Examples:
    python benchmarks/method_curves.py
    python benchmarks/method_curves.py --draw    # draw again what docs/method_curves.json holds
    python docs/fill_pages.py                    # then write the pages anew
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import align_bench
from align_bench.api import Algorithm, OfflineAlgorithm, Selection
from align_bench.metrics.finite import is_finite
from align_bench.plugins.methods_page import BESIDE, Curve, Curves
from align_bench.plugins.registry import load_registry
from align_bench.records import Json, Scalar
from align_bench.report import export
from align_bench.report.plots import Look, Panel, Series, curves, standalone
from align_bench.report.plots.looks import HUES
from align_bench.store.files import write_atomically
from align_bench.suite.load import load_suite
from align_bench.suite.models import Suite

ROOT = Path(__file__).resolve().parents[1]
SUITE = ROOT / "benchmarks" / "method_curves.yaml"
LOG = ROOT / "docs" / "method_curves.json"
PICTURES = ROOT / "docs" / "pictures" / "methods"
COMMAND = "python benchmarks/method_curves.py"
LEARNING_RATE = 1e-3
# Of online methods: right answers are counted without a reward model, and those of the planted set are shorter.
ONLINE: Mapping[str, Scalar] = {"reward": "gold", "max_new_tokens": 40, "batch_size": 16}
LOGGED = ("loss", "accuracy", "margin", "reward", "kl")
DIGITS = 5  # significant ones of a logged number


def obstacle(algorithm: Algorithm) -> str | None:
    """Why a method has no curve on the embedded rows; None where it can have one."""
    if isinstance(algorithm, Selection):
        return "it trains nothing"
    if isinstance(algorithm, OfflineAlgorithm) and algorithm.reading.margin:
        return "the embedded rows have no margins, which it learns from"
    return None


def entry(algorithm: Algorithm) -> dict[str, Scalar]:
    """What the suite says of a method."""
    return {"learning_rate": LEARNING_RATE, **(ONLINE if algorithm.data == "rollouts" else {})}


def shared(suite: Suite) -> dict[str, Scalar]:
    """The settings that all trainings share."""
    rows = suite.data.train
    return {
        "base": suite.base,
        "train": rows.paths[0],
        "pairs": rows.rows or 0,
        "seed": suite.seeds[0],
        **suite.train.model_dump(include={"epochs", "batch_size", "max_length", "warmup", "schedule"}),
    }


def built_in() -> dict[str, Algorithm]:
    """All methods that ship with the package."""
    return {name: each.algorithm for name, each in load_registry().plugins.items() if each.origin == "built-in"}


def train(runs: Path) -> Curves:
    """Run the suite with every method that can be trained, and read the logs.

    Args:
        runs: the folder of what is computed.
    """
    methods = built_in()
    without = {name: reason for name, algorithm in methods.items() if (reason := obstacle(algorithm)) is not None}
    entries = {name: entry(algorithm) for name, algorithm in methods.items() if name not in without}
    with tempfile.TemporaryDirectory() as folder:
        listed = [{name: said} for name, said in entries.items()]
        report = align_bench.run(SUITE, set={"methods": cast("Json", listed)}, runs=runs, reports=folder)
        rows = export.read_training(report.folder)
    found: dict[str, Curve] = {}
    for result in report.record.results:
        own = [{"loss": row.loss, **row.measures} for row in rows if row.cell == result.name]
        if result.status == "done" and own:
            found[result.algorithm] = Curve(settings=entries[result.algorithm], log=logged(own))
        elif result.algorithm in entries:
            without[result.algorithm] = f"its training failed: {result.reason}"
    where = report.record.environment
    return Curves(
        command=COMMAND,
        commit=where.commit or "",
        machine=f"{where.processor}, {where.threads} thread{'s' if where.threads > 1 else ''}",
        libraries={name: where.libraries[name] for name in ("torch", "transformers", "trl")},
        suite=shared(load_suite(str(SUITE))),
        curves=dict(sorted(found.items())),
        without=dict(sorted(without.items())),
    )


def logged(steps: Sequence[Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """The columns of a log that are drawn or worth a look, one number a step; None where one is not finite."""
    there = [name for name in LOGGED if any(is_finite(step.get(name)) for step in steps)]
    return {name: [_rounded(step.get(name)) for step in steps] for name in there}


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if value is not None and is_finite(value) else None


def drawing(name: str, curve: Curve) -> str:
    """The curves of one method as an SVG document."""
    panels = [_panel("loss", "loss", curve, HUES[0])]
    if curve.beside is not None:
        panels.append(_panel(BESIDE[curve.beside][0], curve.beside, curve, HUES[1]))
    alternative = f"{name}, step by step: {' and '.join(panel.title for panel in panels)}"
    return standalone(curves(panels, columns=2, height=2.0), alternative)


def _panel(title: str, column: str, curve: Curve, hue: str) -> Panel:
    known = [(step, value) for step, value in enumerate(curve.log[column], start=1) if value is not None]
    steps, values = [step for step, _ in known], [value for _, value in known]
    drawn = [Series("", steps, values, Look(hue), "thin"), Series("", steps, _smooth(values), Look(hue))]
    return Panel(title, "optimizer step", "", drawn, level=0.5 if column == "accuracy" else None)


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over about a fifth of the steps; at both ends over those that are there."""
    half = max(1, len(values) // 10)
    windows = [values[max(0, place - half) : place + half + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def draw(found: Curves) -> None:
    """Draw every method, and delete drawings of methods that are no more."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, curve in found.curves.items():
        write_atomically(PICTURES / f"{name}.svg", drawing(name, curve))
    for old in PICTURES.glob("*.svg"):
        if old.stem not in found.curves:
            old.unlink()


def main() -> None:
    """Train, write the logs and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of computed results (default: runs)")
    parser.add_argument("--draw", action="store_true", help="train nothing; draw what the log holds")
    arguments = parser.parse_args()
    if not arguments.draw:
        found = train(arguments.runs)
        write_atomically(LOG, found.text())
    found = Curves.read(LOG)
    draw(found)
    failed = [f"{name}: {why}" for name, why in found.without.items() if obstacle(built_in()[name]) is None]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
