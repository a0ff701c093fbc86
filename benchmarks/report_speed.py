"""Measure what a report costs: its statistics, and its rendering, on synthetic rows of a small and of a large suite.

Each size runs in a process of its own, so that its peak memory is its own. Reading the rows, computing the report and
rendering it (figures, page, Markdown) are timed apart, by the wall clock and by the processor; on a machine with other
work the latter is what the report itself needs.

Example:
    python benchmarks/report_speed.py --out benchmarks/results/report-speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measured import timed

from align_bench.records import CellId, Cost, Generation, Kind, Outcome, PairTexts
from align_bench.report.rows import ScoreRow, TrainingRow
from align_bench.store.files import make_folder, write_atomically

if TYPE_CHECKING:
    from align_bench.report.schema import Environment, Header

WORDS = ("the answer is a kind of number that you may find useful in many other ways of thinking about it").split()  # noqa: SIM905


@dataclass(frozen=True)
class Size:
    """How much is reported: reward models and policies (each with every seed), pairs, prompts, steps of training."""

    rewards: int
    policies: int
    seeds: int
    pairs: int
    prompts: int
    steps: int


SIZES = {
    "assignment": Size(rewards=2, policies=4, seeds=1, pairs=1000, prompts=500, steps=63),
    "10 methods, 3 seeds": Size(rewards=2, policies=8, seeds=3, pairs=1000, prompts=1000, steps=200),
}


def outcomes(size: Size) -> list[Outcome]:
    """The base and every cell."""
    cost = Cost(seconds=20.0, tokens=200_000, peak_bytes=2**30)
    made = [Outcome(CellId("base"), "base", "base", {}, 0, "done", reward="s̄", cost=cost)]
    kinds: tuple[tuple[Kind, int], ...] = (("reward", size.rewards), ("policy", size.policies))
    for seed in range(size.seeds):
        for kind, count in kinds:
            for number in range(count):
                name = f"{kind}_{number}"
                cell = CellId(name, seed=seed if size.seeds > 1 else None)
                made.append(Outcome(cell, name, kind, {"beta": 0.1}, seed, "done", reward="r", cost=cost))
    return made


def scores(cells: list[Outcome], size: Size, rng: random.Random) -> Iterator[ScoreRow]:
    """Rows of `scores.parquet`."""
    for place, cell in enumerate(cells):
        name, log = str(cell.cell), None if cell.kind == "reward" else -20.0
        for pair in range(size.pairs):
            yield ScoreRow(
                cell=name,
                algorithm=cell.algorithm,
                seed=cell.seed,
                pair=pair,
                chosen_reward=rng.gauss(0.05 * place, 1),
                rejected_reward=rng.gauss(-0.5, 1),
                chosen_tokens=5 + pair % 60,
                rejected_tokens=5 + pair % 47,
                gold_choice=(1, 2, None)[pair % 3],
                chosen_logp=log and log + rng.random(),
                rejected_logp=log and log + rng.random(),
                ref_chosen_logp=log if cell.kind == "policy" else None,
                ref_rejected_logp=log if cell.kind == "policy" else None,
                chosen_words=4 + pair % 60,
                rejected_words=4 + pair % 47,
            )


def generations(cells: list[Outcome], size: Size, rng: random.Random) -> Iterator[Generation]:
    """Lines of `generations.jsonl`: answers of 5 to 80 words."""
    prompts = [f"Question {prompt}: {' '.join(rng.choices(WORDS, k=12))}?" for prompt in range(size.prompts)]
    for place, cell in enumerate(cells):
        name = str(cell.cell)
        if cell.kind == "reward":
            continue
        for prompt in range(size.prompts):
            text = " ".join(rng.choices(WORDS, k=rng.randint(5, 80))) + "."
            marks = {"rm": rng.gauss(0.1 * place, 1), "gold": float(rng.random() < 0.5)}
            asked = prompts[prompt]
            kl = None if cell.kind == "base" else rng.expovariate(0.1)
            known = (name, cell.algorithm, cell.seed, prompt, 0, asked, text, len(text) // 4, prompt % 9 > 0)
            yield Generation(*known, scores=marks, kl=kl)


def pairs(size: Size, rng: random.Random) -> Iterator[PairTexts]:
    """Rows of `pairs.parquet`: the pairs of `scores`, with answers of 4 to 63 words."""
    for pair in range(size.pairs):
        chosen, rejected = (" ".join(rng.choices(WORDS, k=4 + pair % count)) for count in (60, 47))
        yield PairTexts(pair, f"Question {pair}: {' '.join(rng.choices(WORDS, k=12))}?", chosen, rejected)


def training(cells: list[Outcome], size: Size, rng: random.Random) -> Iterator[TrainingRow]:
    """Rows of `training.parquet`."""
    for cell in cells:
        for step in range(1, size.steps + 1 if cell.kind != "base" else 1):
            loss = 0.7 / step**0.1 + 0.05 * rng.random()
            yield TrainingRow(str(cell.cell), cell.algorithm, cell.seed, step, loss, learning_rate=1e-4)


def header(environment: Environment) -> Header:
    """Of a report of no suite."""
    from align_bench.report.schema import BaseFacts, Header, SuiteFacts

    return Header(
        command="report_speed.py",
        suite=SuiteFacts(name="synthetic", state="", settings={}),
        base=BaseFacts(name="none", digest="", precision=""),
        data={},
        judges=[],
        environment=environment,
    )


def measure(size: Size) -> dict[str, Any]:
    """Seconds of each stage, the page's bytes, and the peak memory of this process."""
    from align_bench.report.build import build_report
    from align_bench.report.export import ReportRows, read_generations, read_scores, read_training, write_report
    from align_bench.runner.environment import environment

    rng = random.Random(0)
    cells = outcomes(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ReportRows(
            scores=list(scores(cells, size, rng)),
            generations=list(generations(cells, size, rng)),
            training=list(training(cells, size, rng)),
        )
        seconds: dict[str, dict[str, float]] = {}
        about = header(environment())
        report = timed(seconds, "statistics", lambda: build_report(about, cells, rows.scores, rows.generations))
        timed(seconds, "write and render", lambda: write_report(folder, report, rows))
        timed(seconds, "read", lambda: (read_scores(folder), read_generations(folder), read_training(folder)))
        return {
            "cells": len(cells),
            "score_rows": len(rows.scores),
            "answers": len(rows.generations),
            "seconds": seconds,
            "page_bytes": (folder / "report.html").stat().st_size,
            "figures_bytes": sum(path.stat().st_size for path in (folder / "figures").iterdir()),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def main() -> None:
    """Measure every size and write or print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to write; printed when left out")
    parser.add_argument("--size", choices=SIZES, help="measure this one alone, in this process")
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(measure(SIZES[arguments.size])))
        return
    from align_bench.runner.environment import environment

    found = {
        size: json.loads(
            subprocess.run(
                [sys.executable, __file__, "--size", size], check=True, capture_output=True, text=True
            ).stdout
        )
        for size in SIZES
    }
    load = round(os.getloadavg()[0], 1)  # over the last minute: above the number of cores, wall times are too long
    about = {
        "command": "python benchmarks/report_speed.py",
        "environment": environment().model_dump(exclude_none=True),
        "load_average": load,
    }
    text = json.dumps({**about, **found}, indent=1)
    if arguments.out:
        make_folder(arguments.out.parent)
        write_atomically(arguments.out, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
