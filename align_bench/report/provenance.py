"""What a report was made from, as lines of a name and a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from align_bench.data.counts import describe_counts
from align_bench.report.formatting import counted
from align_bench.suite.names import BASE_CELL, GOLD, JUDGE_CELL

if TYPE_CHECKING:
    from align_bench.records import Json
    from align_bench.report.schema import Report, Result

Line = tuple[str, str]
MOST_NAMED = 8
MAIN_LIBRARIES = ("torch", "transformers", "peft")


def inputs(report: Report) -> list[Line]:
    """The base, what became of the rows of each data set, and the judges."""
    lines = list(_lines("base", report.base.model_dump()))
    lines += [(f"data.{split}", describe_counts(facts.model_dump()) or "") for split, facts in report.data.items()]
    for judge in report.judges:
        facts = judge.model_dump(exclude={"name"})
        facts |= {"cells": [str(cell) for cell in judge.cells], "rewarded": [str(cell) for cell in judge.rewarded]}
        lines += _lines(f"judge {judge.name}", facts)
    return lines


def environment(report: Report) -> list[Line]:
    """The machine and the libraries."""
    return list(_lines("environment", report.environment.model_dump()))


def compared(report: Report) -> str:
    """One sentence on what was compared: methods, base, data, seeds, and who judged how much."""
    done = [one for one in report.results if one.status == "done" and one.algorithm not in (BASE_CELL, JUDGE_CELL)]
    return f"{', '.join(_trained(report, done))}{_measured(report)}." if done else ""


def _trained(report: Report, done: Sequence[Result]) -> Iterator[str]:
    methods = list(dict.fromkeys(one.algorithm for one in done))
    named = ", ".join(methods[:MOST_NAMED]) + (", …" if len(methods) > MOST_NAMED else "")
    settings = len({one.cell.method for one in done})
    grid = f" in {settings} settings" if settings > len(methods) else ""
    yield f"{counted(len(methods), 'method')} ({named}){grid} on {report.base.name}"
    if (train := report.data.get("train")) is not None:
        source = split_path(report.suite.settings, "train")
        yield f"trained on {counted(train.tokens.get('kept', 0), 'pair')}{f' of {source}' if source else ''}"
    yield counted(len({one.seed for one in done}), "seed")


def _measured(report: Report) -> str:
    sizes, judge = report.detectable, report.policies.judge
    judges = [name for name in (judge, GOLD) if name is not None]
    if all(row.gold.mean is None for row in report.leaderboard):
        judges = [name for name in judges if name == judge]
    if judges and sizes.prompts:
        by = " and ".join(dict.fromkeys(judges))
        return f"; judged by {by} on the answers to {counted(sizes.prompts.n, 'prompt')}"
    return f"; measured on {counted(sizes.pairs.n, 'validation pair')}" if sizes.pairs else ""


def in_three_lines(report: Report) -> list[str]:
    """Base, data, and software with machine, a line each."""
    made, base, settings = report.environment, report.base, report.suite.settings
    libraries = [f"{name} {made.libraries[name]}" for name in MAIN_LIBRARIES if name in made.libraries]
    data = [
        f"{split} {split_path(settings, split) or facts.shape}, {counted(facts.tokens.get('kept', 0), 'row')}"
        for split, facts in report.data.items()
    ]
    software = [f"align-bench {made.align_bench}{f' ({made.commit})' if made.commit else ''}", f"Python {made.python}"]
    machine = f"{made.device if made.device != 'cpu' else made.processor}, {counted(made.threads, 'thread')}"
    return [
        f"Base: {base.name}, {base.precision}, SHA-256 {base.digest[:12]}",
        f"Data: {'; '.join(data) or 'none'}",
        f"Software: {', '.join([*software, *libraries])}; {machine}",
    ]


def split_path(settings: Mapping[str, object], split: str) -> str:
    """The path of a split's rows, as the suite's settings have it; empty where they say none.

    Args:
        settings: the suite's.
        split: `train`, `val`, `test`, or a judge's cell (`judge`, `judge2`).
    """
    data, judges = settings.get("data"), settings.get("judge")
    entry = data.get(split) if isinstance(data, Mapping) else None
    if split.startswith("judge") and isinstance(judges, Sequence):
        place = int(split.removeprefix("judge") or 1) - 1
        judge = judges[place] if place < len(judges) else None
        entry = judge.get("data") if isinstance(judge, Mapping) else None
    path = entry.get("path") if isinstance(entry, Mapping) else entry
    return ", ".join(map(str, path)) if isinstance(path, list | tuple) else str(path or "")


def _lines(name: str, value: Json) -> Iterator[Line]:
    """A block as a flat list: `base.digest`, `5c61…`. What is not known, and what is empty, is left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _lines(f"{name}.{key}", item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if value:
            yield name, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield name, str(value)
