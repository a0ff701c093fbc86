"""How fast preference pairs become tokens, and what they weigh in memory.

python benchmarks/tokenising.py BASE DATA --rows 6000 --out benchmarks/results/tokenising.md

BASE is a folder with a fast tokenizer, DATA a file of pairs that `align-bench data` reads. Reading the file is not
measured. A busy machine makes wall time longer: the CPU time per pair, of all threads together, tells it apart.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
import pyarrow

from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.models.base import find_base
from align_bench.planning.lengths import plain_tokenizer
from align_bench.records import PreferenceSet
from align_bench.stages.tokens import tokens_in


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass over the rows.

    Attributes:
        wall, cpu: seconds; `cpu` of all threads together.
    """

    wall: float
    cpu: float


def main() -> None:
    """Measure, and print or write a page of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    tokenizer = plain_tokenizer(find_base(str(given.base)))
    preferences = read(DataSource(path=str(given.data), rows=given.rows))
    tokenize(tokenizer, PreferenceSet(preferences.rows[:500], "", {}), max_length=given.max_length)  # warm
    half = PreferenceSet(preferences.rows[: len(preferences.rows) // 2], "", {})
    start = _resident()
    tokenize(tokenizer, half, max_length=given.max_length)
    after_half, arrow = _resident(), pyarrow.total_allocated_bytes()
    table = tokenize(tokenizer, preferences, max_length=given.max_length)
    held, after_all = pyarrow.total_allocated_bytes() - arrow, _resident()
    ids = sum(len(row.prompt) + len(row.chosen or ()) + len(row.rejected or ()) for row in table.rows)
    passes = [_measured(tokenizer, preferences, given.max_length) for _ in range(given.times)]
    lines = _page(given.base.name, given.data.name, passes, len(preferences.rows))
    lines += [
        f"Memory: {ids:,} ids ({tokens_in(table):,} tokens of prompts with answers) are held in {held / ids:.1f} bytes "
        f"each, in Arrow. The process grew by {(after_half - start) / 1e6:.0f} MB while it made half of them, and by "
        f"{(after_all - after_half) / 1e6:.0f} MB more while it made all of them anew.",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


def _measured(tokenizer: object, preferences: PreferenceSet, max_length: int) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    tokenize(tokenizer, preferences, max_length=max_length)
    return Measured(time.perf_counter() - wall, time.process_time() - cpu)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _page(base: str, data: str, passes: list[Measured], rows: int) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    wall, cpu = (median(getattr(one, name) for one in passes) for name in ("wall", "cpu"))
    amx = "with" if "amx" in Path("/proc/cpuinfo").read_text(encoding="utf-8") else "without"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "transformers", "jinja2", "pyarrow"))
    return [
        "# Tokenising preference pairs",
        "",
        f"{rows:,} pairs of {data} with the tokenizer and chat template of {base}, on {cores} cores {amx} AMX, at a "
        f"load of {os.getloadavg()[0]:.1f}; {libraries}. Medians of {len(passes)}:",
        "",
        "| pairs per second | CPU ms per pair, all threads | pairs per second if nothing else ran and nothing waited |",
        "|---|---|---|",
        f"| {rows / wall:,.0f} | {1000 * cpu / rows:.3f} | {cores * rows / cpu:,.0f} |",
        "",
    ]


if __name__ == "__main__":
    main()
