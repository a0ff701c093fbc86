"""How time and peak memory grow: with rows, methods, seeds, lengths, the vocabulary, and examples in a report.

Each measurement runs in a process of its own, on one thread (`scaling_parts.py`). What was measured is kept in the JSON
file, so that a run that was stopped goes on; `--again` measures anew. The exponent is the slope of log(time) over
log(size), by least squares through the largest two sizes or more; time is that of the processor, which other work on
the machine moves less than the clock's. Memory is fitted as bytes per unit of size, beyond that of the smallest size.

Example:
    python benchmarks/scaling.py --out benchmarks/results/scaling
    python benchmarks/scaling.py --quick --parts tokenising,"plan methods"
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scaling_parts import PARTS, STEPS, Point, in_child
from scipy.stats import linregress

from align_bench.runner.environment import environment
from align_bench.store.files import make_folder, write_atomically

GIGABYTE = 1e9
STEEPEST = 1.1  # of an exponent that still counts as linear: sorting, and what a busy machine adds
MOST_REPORT_BYTES = 2 * GIGABYTE


@dataclass(frozen=True)
class Axis:
    """What one part is measured against.

    Attributes:
        of: what grows.
        sizes: how large it is, ascending.
        quick: the same for a test.
        fitted: how many of the largest sizes the exponent is fitted to.
        against: what the exponent is of, where it is not the size: a count of the points.
        most_bytes: peak memory that the largest size may take.
        note: what a reader has to know.
    """

    of: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    fitted: int = 2
    against: str | None = None
    most_bytes: float | None = None
    note: str = ""


ROWS, QUICK_ROWS = (1_000, 10_000, 100_000, 1_000_000), (40, 80)
AXES: Mapping[str, Axis] = {
    "tokenising": Axis("pairs", ROWS, QUICK_ROWS, note="the whole stage: reading a Parquet file, tokenising, storing"),
    "training": Axis(
        "pairs", ROWS, QUICK_ROWS, note=f"{STEPS} steps of SimPO; their batches are drawn from the whole table"
    ),
    "length": Axis(
        "tokens of a sequence",
        (128, 256, 512, 1024),
        (32, 64),
        against="megaflops",
        note="the same number of sequences. The operations of attention grow with the square of the length: time is "
        "held against the operations of all passes",
    ),
    "vocabulary": Axis("entries of the vocabulary", (1_000, 8_000, 64_000, 128_000), (900, 1_800)),
    "plan methods": Axis("methods", (1, 5, 20, 50), (1, 2), note="`align-bench plan`: graph, estimate, tables"),
    "plan seeds": Axis("seeds of two methods", (1, 5, 20, 50), (1, 2), note="`align-bench plan`"),
    "report methods": Axis(
        "methods",
        (1, 5, 20, 50),
        (1, 2),
        against="comparisons",
        note="every two policies are compared, so that 50 have 1,225 comparisons per metric: time is held against the "
        "comparisons",
    ),
    "report seeds": Axis(
        "seeds of two methods",
        (1, 4, 8, 16),
        (1, 2),
        against="comparisons",
        note="every two checkpoints are compared: time is held against the comparisons",
    ),
    "report examples": Axis(
        "scored examples", ROWS, QUICK_ROWS, most_bytes=MOST_REPORT_BYTES, note="half pairs, half answers"
    ),
}


@dataclass(frozen=True)
class Growth:
    """How one part grows.

    Attributes:
        exponent: slope of log(processor seconds) over log(size).
        bytes_per_unit: slope of the peak memory over the size, of the largest sizes.
        linear: whether the exponent is at most `STEEPEST`.
        bounded: whether the largest size took no more memory than it may; None where nothing is asked.
    """

    exponent: float
    bytes_per_unit: float
    linear: bool
    bounded: bool | None


@dataclass(frozen=True)
class Kept(Point):
    """A measurement that the file holds.

    Attributes:
        commit: of the code that was measured.
    """

    commit: str = ""


def growth(axis: Axis, points: Sequence[Point]) -> Growth:
    """The fits through the largest sizes."""
    largest = points[-axis.fitted :]
    sizes = [point.counts[axis.against] if axis.against else point.size for point in largest]
    exponent = float(linregress(np.log(sizes), np.log([point.processor_seconds for point in largest])).slope)
    slope = float(linregress([point.size for point in largest], [point.peak_bytes for point in largest]).slope)
    bounded = None if axis.most_bytes is None else points[-1].peak_bytes <= axis.most_bytes
    return Growth(round(exponent, 3), round(slope, 1), exponent <= STEEPEST, bounded)


def page(measured: Mapping[str, Sequence[Kept]], machine: str) -> str:
    """The tables and the verdict."""
    grown = {part: growth(AXES[part], points) for part, points in measured.items() if len(points) > 1}
    steep = [part for part, found in grown.items() if not found.linear]
    commits = {point.commit for points in measured.values() for point in points}
    too_large = [part for part, found in grown.items() if found.bounded is False]
    lines = [
        "# How time and memory grow",
        "",
        f"Machine: {machine}, one thread per process; code of {', '.join(sorted(commits))}. Made by "
        "`python benchmarks/scaling.py --out benchmarks/results/scaling`.",
        "",
        f"Steeper than linear (an exponent above {STEEPEST}): {', '.join(steep) or 'none'}."
        + (f" More memory than allowed: {', '.join(too_large)}." if too_large else ""),
        "",
        "| part | grows with | largest size | exponent of time | memory per unit of size, bytes | peak, GB |",
        "|:---|:---|---:|---:|---:|---:|",
    ]
    for part, found in grown.items():
        last = measured[part][-1]
        against = AXES[part].against or AXES[part].of
        lines.append(
            f"| {part} | {against} | {last.size:,} | {found.exponent:.2f} | {found.bytes_per_unit:,.0f} "
            f"| {last.peak_bytes / GIGABYTE:.2f} |"
        )
    for part, points in measured.items():
        axis = AXES[part]
        lines += [
            "",
            f"## {part[0].upper()}{part[1:]}",
            "",
            *([f"{axis.note[0].upper()}{axis.note[1:]}.", ""] if axis.note else []),
        ]
        lines += [
            f"| {axis.of} | processor, s | wall, s | peak, MB | before the work, MB |",
            "|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {point.size:,} | {point.processor_seconds:.1f} | {point.seconds:.1f} | {point.peak_bytes / 1e6:,.0f} "
            f"| {point.start_bytes / 1e6:,.0f} |"
            for point in points
        ]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, list[Kept]]:
    """What an earlier run has measured."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["parts"]
    return {part: [Kept(**point) for point in one["points"]] for part, one in found.items()}


def main() -> None:
    """Measure what is missing, and write JSON and Markdown after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write, without suffix")
    parser.add_argument("--parts", default=",".join(AXES), help="which, with commas between")
    parser.add_argument("--again", action="store_true", help="measure these parts anew")
    parser.add_argument("--quick", action="store_true", help="two small sizes of each part")
    parser.add_argument("--machine", help="in words; the processor and the number of cores by default")
    parser.add_argument("--work", type=Path, help="a folder for rows and tables, kept; a temporary one by default")
    given = parser.parse_args()
    asked = [part.strip() for part in given.parts.split(",")]
    if unknown := [part for part in asked if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    about = environment()
    machine = given.machine or f"{about.processor}, {len(os.sched_getaffinity(0))} cores"
    measured = _read(given.out.with_suffix(".json")) if given.out else {}
    for part in asked if given.again else ():
        measured.pop(part, None)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        for part in asked:
            sizes = AXES[part].quick if given.quick else AXES[part].sizes
            points = measured.setdefault(part, [])
            for size in sizes:
                if any(point.size == size for point in points):
                    continue
                point = Kept(**asdict(in_child(part, size, work)), commit=str(about.commit))
                points.append(point)
                points.sort(key=lambda point: point.size)
                print(part, point, flush=True)
                _write(given.out, measured, machine)
    print(page(measured, machine))


def _write(out: Path | None, measured: Mapping[str, Sequence[Kept]], machine: str) -> None:
    if out is None:
        return
    make_folder(out.parent)
    parts = {
        part: {
            **(asdict(growth(AXES[part], points)) if len(points) > 1 else {}),
            "points": [asdict(point) for point in points],
        }
        for part, points in measured.items()
    }
    found = {
        "machine": machine,
        "steepest": STEEPEST,
        "load_average": round(os.getloadavg()[0], 1),
        "parts": parts,
    }
    write_atomically(out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    write_atomically(out.with_suffix(".md"), page(measured, machine))


if __name__ == "__main__":
    main()
