"""How large a pass has to be: tokens per second and peak memory of training and of scoring, by the tokens of a pass.

Sizes take turns, so that a machine that slows down slows all of them, and a size is held to another one round by round.
What was found for a CPU is in `align_bench/models/micro_batches.py`, and is what runs where a suite leaves
`train.micro_batch_tokens` out.

Examples:
    python benchmarks/pass_sizes.py                                  # embedded model and rows
    python benchmarks/pass_sizes.py --base FOLDER --data train.parquet --max-length 320 --precision fp32 --pairs 20
    python benchmarks/pass_sizes.py … --kinds scoring --rounds 3     # the same settings again: three more rounds
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vs_trl import shown, side_variables
from vs_trl_sides import Bench, Clock, Memory

from align_bench.evaluate.preference import table_logps
from align_bench.models.layout import passes_over, training_passes
from align_bench.models.micro_batches import scoring_tokens, training_tokens
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.runner.environment import environment
from align_bench.store.files import write_atomically
from align_bench.suite.models import Train
from align_bench.train.feeds import FEEDS
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

HERE = Path(__file__).parent
METHOD = "simpo"  # its step is forward and backward over both answers, and nothing else
SIZES = (256, 512, 768, 1024, 2048, 4096, 8192)
KINDS: Mapping[str, Callable[[int | None, str], int]] = {"training": training_tokens, "scoring": scoring_tokens}


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a training, or one scoring, of all pairs.

    Attributes:
        tokens: of prompts and answers, each answer with a prompt of its own.
        passes: that they were cut into.
        seconds: it took.
        peak_bytes, resting_bytes: of memory, meanwhile and before.
    """

    tokens: int
    passes: int
    seconds: float
    peak_bytes: int
    resting_bytes: int


class Subject:
    """A base under a fresh adapter, and the pairs that pass it."""

    def __init__(self, bench: Bench, pairs: int) -> None:
        self.rows = bench.rows("train", pairs)
        self.model = bench.adapted(bench.model())
        self._max_length = bench.max_length

    def turn(self, kind: str, size: int) -> Turn:
        """Bring all pairs through the model in passes of a size."""
        memory, clock = Memory(), Clock()
        (self._trained if kind == "training" else self._scored)(size)
        return Turn(
            tokens=_tokens(self.rows), passes=self._passes(kind, size), seconds=clock.seconds(), **memory.facts()
        )

    def _trained(self, size: int) -> None:
        algorithm = load_registry()[METHOD].algorithm
        train(
            TrainingJob(
                model=self.model,
                rows=self.rows,
                algorithm=algorithm,  # type: ignore[arg-type]  # it is an offline one
                parameters=algorithm.resolve({}),
                learning_rate=0.0,  # every turn is the first step of the same training
                settings=Train(batch_size=len(self.rows), max_length=self._max_length, micro_batch_tokens=size),
                seed=0,
            )
        )

    def _scored(self, size: int) -> None:
        table_logps(self.model, self.rows, max_tokens=size)

    def _passes(self, kind: str, size: int) -> int:
        if kind == "training":
            lengths = FEEDS["pairs"](self.rows, None).lengths
            return len(training_passes(self.model, range(len(lengths)), lengths, max_tokens=size))
        sequences = [(row.prompt, answer or ()) for row in self.rows for answer in (row.chosen, row.rejected)]
        return len(passes_over(self.model, sequences, max_tokens=size))


def _tokens(rows: Sequence[TokenRow]) -> int:
    return sum(2 * len(row.prompt) + len(row.chosen or ()) + len(row.rejected or ()) for row in rows)


def measure(settings: Mapping[str, Any], kinds: Sequence[str], sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """A run: what it was made with, and a list of turns for each kind and size.

    Args:
        settings: of the bench, and `pairs`.
        kinds: some of `KINDS`.
        sizes: tokens of a pass.
        rounds: turns of each size, after a warm-up.
    """
    bench = Bench({**settings, "side": "ours", "val": settings["train"]})
    subject = Subject(bench, settings["pairs"])
    turns: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for kind in kinds:
        subject.turn(kind, min(sizes))
        turns[kind] = {str(size): [] for size in sizes}
        for number in range(rounds):
            for place in range(len(sizes)):
                size = sizes[(place + number) % len(sizes)]
                turn = subject.turn(kind, size)
                turns[kind][str(size)].append(asdict(turn))
                print(f"{kind}, {size} tokens: {turn.seconds:.2f} s", flush=True)
    found = environment().model_dump()
    return {
        "command": "python benchmarks/pass_sizes.py " + " ".join(map(shown, sys.argv[1:])),
        "environment": found,
        "settings": dict(settings),
        "precision": str(bench.precision),
        "turns": turns,
    }


def joined(runs: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs with a new one, whose rounds go to a run of the same settings by the same code."""
    found: list[dict[str, Any]] = [dict(run) for run in runs]
    for run in found:
        if all(run[name] == new[name] for name in ("environment", "settings", "precision")):
            for kind, sizes in new["turns"].items():
                own = run["turns"].setdefault(kind, {})
                for size, turns in sizes.items():
                    own.setdefault(size, []).extend(turns)
            return found
    return [*found, dict(new)]


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """The runs as Markdown."""
    lines = ["# Tokens of a pass", ""]
    for run in runs:
        where, settings = run["environment"], run["settings"]
        device = run["precision"].rpartition("/")[2]
        libraries = ", ".join(f"{name} {number}" for name, number in where["libraries"].items())
        lines += [
            f"## {Path(settings['base']).name}, {run['precision']}",
            "",
            f"`{run['command']}`",
            "",
            f"{where['processor']}, {where['threads']} threads, device {where['device']}; {libraries}; commit "
            f"{where['commit']}. {settings['pairs']} pairs of at most {settings['max_length']} tokens a sequence.",
            "",
        ]
        for kind, sizes in run["turns"].items():
            default = KINDS[kind](None, device)
            lines += [
                f"| {kind}: tokens of a pass | passes | tokens per second | times as fast as {default:,} (range) | "
                "memory at the peak, MB | of these beyond what rests, MB |",
                "|---:|---:|---:|---:|---:|---:|",
            ]
            lines += [_row(int(size), turns, sizes.get(str(default))) for size, turns in sizes.items()]
            lines.append("")
    return "\n".join(lines)


def _row(size: int, turns: Sequence[Mapping[str, Any]], default: Sequence[Mapping[str, Any]] | None) -> str:
    rate = median(turn["tokens"] / turn["seconds"] for turn in turns)
    ratios = [other["seconds"] / turn["seconds"] for turn, other in zip(turns, default or [], strict=False)]
    ratio = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"
    peak = max(turn["peak_bytes"] for turn in turns)
    above = max(turn["peak_bytes"] - turn["resting_bytes"] for turn in turns)
    return f"| {size:,} | {turns[0]['passes']} | {rate:,.0f} | {ratio} | {peak / 1e6:,.0f} | {above / 1e6:,.0f} |"


def main() -> None:
    """Measure, and write or continue the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded/tiny", help="model folder, hub id, or embedded/tiny")
    parser.add_argument("--data", default="embedded/planted", help="pairs: a file, or embedded/planted")
    parser.add_argument("--precision", default="auto", choices=("auto", "nf4", "bf16", "fp32"))
    parser.add_argument("--device", help="such as cpu; by default what a run takes")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=320, help="longer rows are dropped")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pass_sizes", help="without a suffix")
    given = parser.parse_args()
    settings = {
        "base": given.base,
        "train": given.data,
        "precision": given.precision,
        "device": given.device,
        "pairs": given.pairs,
        "max_length": given.max_length,
    }
    file = given.out.with_suffix(".json")
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    runs = joined(before, measure(settings, given.kinds, given.sizes, given.rounds))
    write_atomically(file, json.dumps(runs, indent=1))
    write_atomically(given.out.with_suffix(".md"), page(runs))
    print(page(runs))


if __name__ == "__main__":
    if "GOMP_SPINCOUNT" not in os.environ:  # torch has read it by now
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **side_variables()})
    main()
