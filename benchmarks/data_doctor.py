"""Measure what `align-bench data` costs on many pairs: reading, lengths, and all that the doctor looks for.

The rows are synthetic, of the length of public sets: words by Zipf's law, prompts of about 60 words and answers of
about 180; one in twenty is a copy, one in twenty a copy with a few other words, one in a hundred a copy with the other
label. Each number of pairs runs in a process of its own, so that its peak memory is its own. All work is on one core;
on a machine with other work the processor's seconds are what it needs.

Example:
    python benchmarks/data_doctor.py --out benchmarks/results/data-doctor.json
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
from pathlib import Path
from typing import Any

from measured import timed

from align_bench.store.files import make_folder, write_atomically

PAIRS = (25_000, 100_000)
MOST_SECONDS = 90.0  # wanted of 100,000 pairs
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def rows(count: int) -> Iterator[dict[str, str]]:
    """Pairs, among them copies of earlier ones."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, weights=range(26, 0, -1), k=rng.randint(2, 9))) for _ in range(20_000)]
    totals, total = [], 0.0
    for rank in range(1, len(words) + 1):
        total += 1 / rank
        totals.append(total)

    def text(mean: float) -> str:
        return " ".join(rng.choices(words, cum_weights=totals, k=max(3, round(rng.gammavariate(2.0, mean / 2)))))

    made: list[dict[str, str]] = []
    for number in range(count):
        kind = rng.random() if number > 100 else 1.0
        row = made[rng.randrange(len(made))] if kind < 0.11 else None
        if row is None:
            row = {"prompt": text(60), "chosen": text(190), "rejected": text(170)}
            made.append(row)
        elif kind < 0.01:
            row = {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
        elif kind < 0.06:
            row = {name: f"{cell} {text(2)}" for name, cell in row.items()}
        yield row


def write(path: Path, count: int) -> None:
    """Pairs as Parquet."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(count))), path)


def measure(path: Path) -> dict[str, Any]:
    """Seconds of each step, what was found, and the peak memory of this process."""
    from align_bench.data.doctor import examine
    from align_bench.data.preferences import DataSource, read
    from align_bench.data.summary import summarise

    seconds: dict[str, dict[str, float]] = {}
    found = timed(seconds, "read", lambda: read(DataSource(str(path))))
    summary = timed(seconds, "lengths", lambda: summarise(found))
    findings = timed(seconds, "checks", lambda: examine(found, summary))
    total = {clock: round(sum(step[clock] for step in seconds.values()), 2) for clock in ("wall", "processor")}
    return {
        "pairs": len(found.rows),
        "megabytes": round(
            sum(len(text or "") for row in found.rows for text in (row.prompt[0].content, row.chosen, row.rejected))
            / 1e6
        ),
        "seconds": {**seconds, "total": total},
        "found": {finding.what: finding.rows for finding in findings},
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Measure every number of pairs; exit code 1 where the last one takes longer than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to write; printed when left out")
    parser.add_argument("--file", type=Path, help="measure this file alone, in this process")
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(measure(arguments.file)))
        return
    from align_bench.runner.environment import environment

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in PAIRS:
            path = Path(folder) / f"{count}.parquet"
            write(path, count)
            ran = [sys.executable, __file__, "--file", str(path)]
            found[f"{count:,} pairs"] = json.loads(
                subprocess.run(ran, check=True, capture_output=True, text=True).stdout
            )
    load = round(os.getloadavg()[0], 1)  # over the last minute: above the number of cores, wall times are too long
    about = {
        "command": "python benchmarks/data_doctor.py",
        "environment": environment().model_dump(exclude_none=True),
        "load_average": load,
    }
    text = json.dumps({**about, "wanted_seconds": MOST_SECONDS, **found}, indent=1)
    if arguments.out:
        make_folder(arguments.out.parent)
        write_atomically(arguments.out, text + "\n")
    print(text)
    last = found[f"{PAIRS[-1]:,} pairs"]["seconds"]["total"]["processor"]
    raise SystemExit(last > MOST_SECONDS)


if __name__ == "__main__":
    main()
