"""What keeping freed memory gains and costs: the same work with glibc as it is, and told to keep what is freed.

A run tells it so by itself (`align_bench/runner/allocator.py`). Work is that of `vs_trl.py`, here without that, each
setting in a process of its own, taking turns: ours, and that of TRL's trainers, which runs have as methods, too.

Examples:
    python benchmarks/allocators.py                                  # embedded model and rows
    python benchmarks/allocators.py --base FOLDER --data train.parquet --val val.parquet --parts simpo scoring \\
        --precision fp32 --sides ours trl
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from vs_trl import HERE, shown, side, side_variables
from vs_trl_table import METHODS

from align_bench.runner.environment import environment
from align_bench.store.files import write_atomically

STOCK, KEPT = "as it is", "keeps what is freed"
FACTS = ("seconds", "faults", "system_seconds", "peak_bytes")


def measured(settings: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Turns of both processes, the warm-up left out.

    Args:
        settings: of a side, as `vs_trl.py` sends them.
    """
    heard: dict[str, list[dict[str, float]]] = {STOCK: [], KEPT: []}
    warm = 2 if settings["part"] in METHODS else 1
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(side({**settings, "keeps_freed": name == KEPT}, side_variables()))
            for name in heard
        }
        for started in running.values():
            started.heard()
        for number in range(warm + settings["repeats"]):
            for name in list(running)[:: 1 if number % 2 else -1]:
                turn = running[name].turn()
                if number >= warm:
                    heard[name].append({fact: turn[fact] for fact in FACTS})
            print(f"{settings['side']}, {settings['part']}: turn {number}", flush=True)
    return heard


def page(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    where = result["environment"]
    lines = [
        "# Keeping freed memory",
        "",
        f"`{result['command']}`",
        "",
        f"{where['processor']}, {where['threads']} threads, device {where['device']}, commit {where['commit']}. glibc "
        "as it is, and as a run sets it by itself; medians, the highest peak.",
        "",
        "| work | seconds: as it is → kept | times faster (range) | page faults | seconds in the system | peak, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(_row(part) for part in result["parts"]), ""])


def _row(part: Mapping[str, Any]) -> str:
    stock, kept = part["turns"][STOCK], part["turns"][KEPT]
    ratios = [before["seconds"] / after["seconds"] for before, after in zip(stock, kept, strict=True)]

    def both(fact: str, form: str) -> str:
        return " → ".join(format(median(turn[fact] for turn in turns), form) for turns in (stock, kept))

    peaks = " → ".join(f"{max(turn['peak_bytes'] for turn in turns) / 1e6:,.0f}" for turns in (stock, kept))
    return (
        f"| {part['side']}, {part['part']} | {both('seconds', '.2f')} | {median(ratios):.2f} ({min(ratios):.2f}–"
        f"{max(ratios):.2f}) | {both('faults', ',.0f')} | {both('system_seconds', '.2f')} | {peaks} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write what was found; `--append` keeps the parts that are in the file already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded/tiny")
    parser.add_argument("--data", default="embedded/planted", help="training pairs: a file, or embedded/planted")
    parser.add_argument("--val", help="validation pairs; --data if not given")
    parser.add_argument("--precision", default="fp32", choices=("nf4", "bf16", "fp32"))
    parser.add_argument("--parts", nargs="+", default=["simpo"], choices=(*METHODS, "scoring", "generation"))
    parser.add_argument("--sides", nargs="+", default=["ours"], choices=("ours", "trl"))
    parser.add_argument("--pairs-per-step", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3, help="at least")
    parser.add_argument("--scored-pairs", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--append", action="store_true", help="keep what the file has, but for these parts")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "allocators", help="without a suffix")
    given = parser.parse_args(arguments)
    settings = {
        "base": given.base,
        "train": given.data,
        "val": given.val or given.data,
        "precision": given.precision,
        "pairs_per_step": given.pairs_per_step,
        "max_length": given.max_length,
        "repeats": given.repeats,
        "scored_pairs": given.scored_pairs,
        "prompts": given.prompts,
        "new_tokens": given.new_tokens,
        "checkpointing": False,
        "device": "cpu",
    }
    file = given.out.with_suffix(".json")
    own = [(one, part) for one in given.sides for part in given.parts]
    before = json.loads(file.read_text(encoding="utf-8"))["parts"] if given.append else []
    parts = [part for part in before if (part["side"], part["part"]) not in own]
    for name, part in own:
        turns = measured({**settings, "side": name, "part": part})
        parts.append({"side": name, "part": part, "turns": turns, "settings": settings})
    command = "python benchmarks/allocators.py " + " ".join(map(shown, sys.argv[1:]))
    result = {"command": command, "environment": environment().model_dump(), "parts": parts}
    write_atomically(file, json.dumps(result, indent=1))
    write_atomically(given.out.with_suffix(".md"), page(result))
    print(page(result))


if __name__ == "__main__":
    main()
