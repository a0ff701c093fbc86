"""The log of performance: what each measured commit came to, on which machine, as ratios and exact counts.

A row is one commit under one precision and allocator on one machine. Times stand there as ratios alone, for seconds of
two machines, or of two hours on one, say nothing beside each other; tokens and bytes are exact. `vs_trl.py` and
`gpu.py` write their rows when they are done; a result file that is measured again replaces its old ones.

Examples:
    python benchmarks/history.py                                   # show the log
    python benchmarks/history.py benchmarks/results/2026-*.json    # take these results in
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import vs_trl_table as table

from align_bench.store.files import write_atomically

FILE = Path(__file__).with_name("history.json")
COUNTS = Path(__file__).with_name("counts.json")


class Ratio(TypedDict):
    """How many times less ours took, over the repeats."""

    median: float
    low: float
    high: float


class Part(TypedDict):
    """One part of a measurement.

    `tokens` are those of ours over all repeats, None where it has none; `peak_bytes` is by side; `times_smaller` is
    TRL's peak over ours.
    """

    part: str
    tokens: int | None
    peak_bytes: dict[str, int]
    times_smaller: float | None


class Row(TypedDict):
    """One commit, machine and setting.

    `counts` are the exact ones of `check_counts.py` at that commit; None where they were not counted then.
    """

    date: str
    commit: str | None
    source: str
    machine: dict[str, Any]
    libraries: dict[str, str]
    setting: dict[str, Any]
    times_faster: dict[str, Ratio]
    parts: list[Part]
    counts: dict[str, Any] | None


def rows_of(result: Mapping[str, Any], source: str) -> list[Row]:
    """The rows of one result of `vs_trl.py`, one for each precision and allocator, without counts.

    Args:
        result: the content of its JSON file.
        source: the file's name, which begins with the day.
    """
    where = result["environment"]
    kept = ("base", "pairs_per_step", "max_length", "repeats")
    rows: list[Row] = []
    for precision, allocator in dict.fromkeys((part["precision"], part["allocator"]) for part in result["parts"]):
        parts = {
            part["part"]: part
            for part in result["parts"]
            if (part["precision"], part["allocator"]) == (precision, allocator)
        }
        computes = sorted({part["compute"] for part in parts.values()})
        setting = {"precision": precision, "compute": computes, "allocator": allocator}
        setting |= {name: result["settings"][name] for name in kept}
        times = {one.what: one.ratios for one in table.comparisons(parts)}
        rows.append(row(where, source, setting, times, {name: part["sides"] for name, part in parts.items()}))
    return rows


def row(
    where: Mapping[str, Any],
    source: str,
    setting: Mapping[str, Any],
    times_faster: Mapping[str, table.Spread],
    parts: Mapping[str, Mapping[str, Any]],
) -> Row:
    """One row, without counts.

    Args:
        where: the result's `environment`.
        source: the result's file, whose name begins with the day.
        setting: what the result depends on, beside the machine.
        times_faster: ratios by what was compared.
        parts: the sides of each part.
    """
    return Row(
        date=source[:10],
        commit=where["commit"],
        source=source,
        machine={name: where[name] for name in ("processor", "threads", "device", "system")},
        libraries=dict(where["libraries"]),
        setting=dict(setting),
        times_faster={what: _rounded(ratios) for what, ratios in times_faster.items()},
        parts=[_part(name, sides) for name, sides in parts.items()],
        counts=None,
    )


def _rounded(found: table.Spread) -> Ratio:
    return Ratio(median=round(found.median, 3), low=round(found.low, 3), high=round(found.high, 3))


def _part(name: str, sides: Mapping[str, Any]) -> Part:
    peaks = {side: int(facts["peak_bytes"]) for side, facts in sides.items()}
    tokens = sides["ours"].get("tokens")
    return Part(
        part=name,
        tokens=sum(tokens) if tokens and any(tokens) else None,
        peak_bytes=peaks,
        times_smaller=round(peaks["trl"] / peaks["ours"], 3) if "trl" in peaks else None,
    )


def with_rows(log: Sequence[Row], new: Iterable[Row]) -> list[Row]:
    """The log with new rows, by day; those of a source that is there already are replaced."""
    added = list(new)
    sources = {row["source"] for row in added}
    kept = [row for row in log if row["source"] not in sources]
    return sorted([*kept, *added], key=lambda row: (row["date"], row["source"]))


def read(path: Path = FILE) -> list[Row]:
    """The log; empty where there is none."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def add(rows: Iterable[Row], path: Path = FILE) -> None:
    """Put rows that the code as it is here has made into the log, with the counts that it is held to."""
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    _write(with_rows(read(path), [{**one, "counts": counts} for one in rows]), path)


def _write(rows: Sequence[Row], path: Path) -> None:
    write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def shown(rows: Iterable[Row]) -> str:
    """The log as a table: what a row was measured on, and its ratios."""
    lines = ["| day | commit | device | setting | times faster than TRL |", "|---|---|---|---|---|"]
    for row in rows:
        setting = row["setting"]
        ratios = ", ".join(f"{name} {ratio['median']:.2f}" for name, ratio in row["times_faster"].items())
        words = f"{setting['precision']}, {setting['allocator']}, {setting['pairs_per_step']} pairs a step"
        lines.append(f"| {row['date']} | {row['commit']} | {row['machine']['device']} | {words} | {ratios} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the log, or take results in, of which nobody counted what they needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help="results of vs_trl.py")
    given = parser.parse_args(arguments)
    log = read(FILE)
    for path in given.results:
        log = with_rows(log, rows_of(json.loads(path.read_text(encoding="utf-8")), path.name))
    if given.results:
        _write(log, FILE)
    print(shown(log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
