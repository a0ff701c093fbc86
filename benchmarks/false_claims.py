"""How often reports claim what is not so: simulated suites whose truth is known, from rows to the verdict's words.

Each cell is a truth: how many methods, seeds and prompts, how far seeds differ, how scores are distributed. Its suites
are simulated many times. Their scores go through the package's statistics (`--repetitions` of each cell), and as rows
through `build_report` (`--reports` of each), and it is counted how often a difference is claimed that is none, how
often each kind of interval covers the truth, and how often a true difference is found.

Example:
    OMP_NUM_THREADS=1 python benchmarks/false_claims.py --repetitions 1000 --reports 50 \
        --output benchmarks/results/false_claims
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from false_claims_audits import AuditWorld, by_calibration, through_audit
from false_claims_page import Found, save, summary
from false_claims_reports import through_report
from false_claims_statistics import by_statistics
from false_claims_tally import Tally, rates_of, values_of
from false_claims_worlds import World
from rich.console import Console
from rich.progress import track

Part = Literal["statistics", "report"]
BLOCK = 10  # suites that a process simulates in one go


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulated truth, and what is done with its suites.

    Attributes:
        part: whether only the statistics are computed, or whole reports are built.
        world: what is true.
        rich: of reports of policies: with lengths, log-probabilities and gold, for every kind of interval.
        times: how many times as many suites as of other cells are simulated.
    """

    part: Part
    world: World | AuditWorld
    rich: bool = False
    times: int = 1

    def once(self, rng: np.random.Generator) -> Tally:
        """Simulate one suite and count what is said of it."""
        if isinstance(self.world, AuditWorld):
            return (through_audit if self.part == "report" else by_calibration)(self.world, rng)
        return through_report(self.world, rng, self.rich) if self.part == "report" else by_statistics(self.world, rng)


@dataclass(frozen=True, slots=True)
class Block:
    """Suites of a cell that one process simulates, by their numbers."""

    cell: Cell
    number: int
    seed: int
    suites: range


def main() -> None:
    """Simulate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000, help="suites of each cell for the statistics")
    parser.add_argument("--reports", type=int, default=50, help="suites of each cell for whole reports")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a cell of each part, 20 suites and 2 reports")
    parser.add_argument("--output", type=Path, help="writes OUTPUT.json and OUTPUT.md")
    arguments = parser.parse_args()
    start = time.perf_counter()
    cells = [*statistics(), *reports()]
    if arguments.quick:
        cells = [next(statistics()), next(reports())]
        arguments.repetitions, arguments.reports = 20, 2
    found = simulate(cells, arguments.repetitions, arguments.reports, arguments.seed, arguments.processes)
    for line in summary(found):
        Console().print(f"* {line}", markup=False, highlight=False)
    if arguments.output is not None:
        command = f"OMP_NUM_THREADS=1 python benchmarks/false_claims.py {' '.join(sys.argv[1:])}".strip()
        settings = {name: getattr(arguments, name) for name in ("repetitions", "reports", "seed", "processes")}
        save(arguments.output, found, command, settings, time.perf_counter() - start)


def simulate(cells: Sequence[Cell], repetitions: int, reports: int, seed: int, processes: int) -> Found:
    """Simulate all suites of all cells.

    Args:
        cells: the truths.
        repetitions, reports: suites of a cell of either part.
        seed: of all; each suite has a generator of its own.
        processes: how many work at once. The result does not depend on it.
    """
    blocks = [
        Block(cell, number, seed, range(first, min(first + BLOCK, count)))
        for number, cell in enumerate(cells)
        for count in (cell.times * (reports if cell.part == "report" else repetitions),)
        for first in range(0, count, BLOCK)
    ]
    if processes == 1:
        done = [_simulated(block) for block in track(blocks, console=Console(stderr=True))]
    else:
        with ProcessPoolExecutor(processes) as pool:
            done = list(track(pool.map(_simulated, blocks), total=len(blocks), console=Console(stderr=True)))
    tallies: dict[int, list[Tally]] = {}
    for block, own in zip(blocks, done, strict=True):
        tallies.setdefault(block.number, []).extend(own)
    rates, values = [], []
    for number, own in tallies.items():
        cell = cells[number]
        rates += rates_of(cell.part, str(cell.world), own)
        values += values_of(cell.part, str(cell.world), own)
    return Found(rates, values)


def _simulated(block: Block) -> list[Tally]:
    return [block.cell.once(np.random.default_rng([block.seed, block.number, suite])) for suite in block.suites]


def statistics() -> Iterator[Cell]:
    """The truths for the statistics: each factor varied around a centre, and the pairs that matter crossed."""
    worlds = [
        *(World(seeds=seeds, seed_noise=noise) for seeds in (3, 5) for noise in (0.1, 0.0, 0.02, 0.05, 0.3)),
        *(World(prompts=500, seed_noise=noise) for noise in (0.0, 0.1, 0.3)),
        *(World(methods=methods) for methods in (5, 12)),
        World(methods=5, prompts=500),
        *(World(taste=1, seeds=seeds, seed_noise=noise) for seeds in (3, 5) for noise in (0.0, 0.1)),
        *(World(base=True, seeds=seeds, seed_noise=noise) for seeds in (3, 5) for noise in (0.0, 0.1, 0.3)),
        World(base=True, prompts=500, seed_noise=0.3),
        World(base=True, methods=5),
        *(World(noise=noise, prompts=prompts) for noise in ("lognormal", "t3") for prompts in (100, 500)),
        World(step=1),
        World(samples=4),
        World(samples=4, step=1),
        World(samples=4, noise="lognormal"),
        World(binary=True),
        World(binary=True, prompts=500),
        World(binary=True, base=True),
        World(pairs=1),
        World(pairs=3),
        World(pairs=3, prompts=30),
        World(pairs=3, taste=1),
        World(pairs=3, noise="lognormal"),
        World(pairs=3, step=1),
        *(World(methods=5, seeds=1, prompts=prompts) for prompts in (100, 500, 1000)),
        *(World(methods=5, seeds=1, prompts=500, seed_noise=noise) for noise in (0.0, 0.02, 0.05, 0.3)),
        World(methods=5, seeds=1, prompts=500, declared=True),
        World(methods=5, seeds=2, prompts=500),
        *(World(gain=gain, seeds=seeds, prompts=500) for gain in (0.1, 0.2, 0.5) for seeds in (3, 5)),
        *(World(gain=0.2, seeds=seeds) for seeds in (3, 5)),
        *(World(gain=0.2, seeds=seeds, prompts=500, taste=1) for seeds in (3, 5)),
    ]
    audits = [
        *(AuditWorld(prompts=prompts, pairs=pairs) for prompts in (100, 500) for pairs in (1, 3)),
        AuditWorld(prompts=300, pairs=3, temperature=2),
    ]
    yield from (Cell("statistics", world) for world in worlds)
    yield from (Cell("statistics", audit) for audit in audits)


def reports() -> Iterator[Cell]:
    """The truths for whole reports."""
    yield Cell("report", World(), times=2)
    yield Cell("report", World(base=True), rich=True)
    yield Cell("report", World(base=True, samples=2), rich=True)
    yield Cell("report", World(base=True, noise="lognormal"), rich=True)
    yield Cell("report", World(base=True, prompts=500), rich=True)
    for seeds in (3, 5):
        for noise in (0.0, 0.02, 0.05, 0.1, 0.3):
            if (seeds, noise) != (3, 0.1):
                yield Cell("report", World(seeds=seeds, seed_noise=noise))
    yield Cell("report", World(methods=5))
    yield Cell("report", World(methods=12))
    yield Cell("report", World(methods=5, base=True))
    yield Cell("report", World(taste=1))
    yield Cell("report", World(base=True, seed_noise=0.3))
    yield Cell("report", World(noise="t3"))
    yield Cell("report", World(step=1, samples=2))
    yield Cell("report", World(binary=True, base=True))
    yield Cell("report", World(pairs=1))
    yield Cell("report", World(pairs=3))
    yield Cell("report", World(pairs=3, prompts=30))
    yield Cell("report", World(pairs=3, noise="lognormal"))
    yield Cell("report", World(pairs=3, step=1))
    for prompts in (100, 500, 1000):
        yield Cell("report", World(methods=5, seeds=1, prompts=prompts))
        yield Cell("report", World(methods=5, seeds=1, prompts=prompts, declared=True))
    yield Cell("report", World(methods=5, seeds=1, prompts=500, base=True, declared=True))
    yield Cell("report", World(methods=5, seeds=2, prompts=500))
    for gain in (0.1, 0.2, 0.5):
        for seeds in (3, 5):
            yield Cell("report", World(gain=gain, seeds=seeds, prompts=500))
    for prompts, pairs in ((100, 1), (100, 3), (300, 3)):
        yield Cell("report", AuditWorld(prompts=prompts, pairs=pairs))
    yield Cell("report", AuditWorld(prompts=300, pairs=3, temperature=2))


if __name__ == "__main__":
    main()
