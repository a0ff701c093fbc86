"""Two or more methods held against each other: of one report, or of several stored runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from align_bench.errors import MissingResultError, nearest
from align_bench.metrics.finite import is_finite
from align_bench.records import Generation, Outcome
from align_bench.report.build import build_report
from align_bench.report.cells import GOLD, Cell, gather, judges_of
from align_bench.report.export import (
    outcome_of,
    read_generations,
    read_report,
    read_scores,
    read_training,
)
from align_bench.report.files import write_text
from align_bench.report.formatting import interval, number, one_line, p_value
from align_bench.report.naming import method_of
from align_bench.report.report_sections import costs, judged, members, pairwise, policies, reward_models
from align_bench.report.section import Column, Section, verdict

PAGE = "compare.html"
MOST = 10  # prompts that differ most, each way
# What decides which judge scores are of one judge: all that it is trained from.
ANSWERED_BY = ("base", "precision", "generate", "seeds")
JUDGED_BY = ("base", "precision", "lora", "train", "judge")


@dataclass(frozen=True, slots=True)
class Run:
    """A report with its rows, as its folder holds them."""

    report: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    generations: Sequence[Generation]
    training: Sequence[Mapping[str, Any]]


def read_run(folder: Path) -> Run:
    """What a report's folder holds.

    Raises:
        MissingResultError: a file is missing.
        StoreError: a file is damaged.
    """
    return Run(read_report(folder), read_scores(folder), read_generations(folder), read_training(folder))


def merge(runs: Mapping[str, Run], methods: Sequence[str]) -> tuple[Run, list[str]]:
    """Several runs as one, with the cells of some methods as `run/cell`, and their differences tested anew.

    The base stays one where all runs have the same. Judges of different making keep different names, `run/judge`, so
    that no score is held against one of another scale.

    Args:
        runs: name → run; two or more.
        methods: names of methods or cells; each must be in at least one run.

    Returns:
        The merged run, and the names in it of what is compared.

    Raises:
        MissingResultError: a method is in no run, or the runs answered different prompts.
    """
    _same_prompts(runs)
    made = [_settings(run) for run in runs.values()]
    one_judge = all(_part(found, JUDGED_BY) == _part(made[0], JUDGED_BY) for found in made)
    one_base = all(_part(found, ANSWERED_BY) == _part(made[0], ANSWERED_BY) for found in made)
    one_base = one_base and all(run.report["base"] == next(iter(runs.values())).report["base"] for run in runs.values())
    merged = Run({}, [], [], [])
    outcomes: list[Outcome] = []
    names: dict[str, None] = {}
    for place, (name, run) in enumerate(runs.items()):
        renamed = {}
        for found in run.report["results"]:
            wanted = not {found["cell"], found["algorithm"], method_of(found["cell"])}.isdisjoint(methods)
            if found["kind"] == "base" and one_base:
                if place > 0:
                    continue
                cell = found["cell"]
            elif wanted or found["kind"] == "base":
                cell = f"{name}/{found['cell']}"
            else:
                continue
            renamed[found["cell"]] = cell
            outcomes.append(replace(outcome_of(found), cell=cell, algorithm=method_of(cell).partition("[")[0]))
            if wanted:
                names[method_of(cell)] = None
        judges = {} if one_judge else {judge: f"{name}/{judge}" for judge in _judges(run)}
        merged = _added(merged, run, renamed, judges)
    known = {result[key] for run in runs.values() for result in run.report["results"] for key in ("cell", "algorithm")}
    for method in methods:
        if method not in known:
            raise MissingResultError(f"no run has {method!r}. {nearest(method, known, what='method')}")
    if len(names) < 2:
        raise MissingResultError("there is only one cell to compare", fix="name two methods, or a method of two runs")
    first = next(iter(runs.values())).report
    header = {key: first.get(key) for key in ("suite", "base", "data", "judge", "environment")}
    return replace(merged, report=build_report(header, outcomes, merged.scores, merged.generations)), list(names)


def _added(merged: Run, run: Run, renamed: Mapping[str, str], judges: Mapping[str, str]) -> Run:
    """A merged run with the rows of some cells of another, under their new names."""
    answers = [
        replace(
            answer,
            cell=renamed[answer.cell],
            scores={judges.get(judge, judge): score for judge, score in answer.scores.items()},
        )
        for answer in run.generations
        if answer.cell in renamed
    ]
    return replace(
        merged,
        scores=[*merged.scores, *_of(run.scores, renamed)],
        generations=[*merged.generations, *answers],
        training=[*merged.training, *_of(run.training, renamed)],
    )


def _of(rows: Sequence[Mapping[str, Any]], renamed: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{**row, "cell": renamed[row["cell"]]} for row in rows if row["cell"] in renamed]


def _judges(run: Run) -> set[str]:
    """Every scorer but gold, which is the same wherever the data is."""
    return {judge for answer in run.generations for judge in answer.scores} - {GOLD}


def _settings(run: Run) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = run.report["suite"].get("settings", {})
    return settings


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every two of the names; one name alone against itself, which compares a method's own cells."""
    return list(combinations(dict.fromkeys(names), 2)) or [(names[0], names[0])]


def write_comparison(path: Path, run: Run, names: Sequence[str], command: str) -> None:
    """The page of the methods' differences: verdict, tests, prompts that differ most, figures, every example.

    Args:
        path: where it is written, atomically.
        run: a report with its rows.
        names: two or more names of methods or cells.
        command: what the user typed, for the page.

    Raises:
        MissingResultError: a name is not in the report, or none of its cells finished.
    """
    from align_bench.report.figures import comparison_figures
    from align_bench.report.figures.base import Material
    from align_bench.report.html import comparison_page

    chosen = {cell for name in names for cell in members(run.report, name)["checkpoint"]}
    kept = chosen | {found["cell"] for found in run.report["results"] if found["kind"] == "base"}
    results = [found for found in run.report["results"] if found["cell"] in kept]
    methods = {method_of(cell) for cell in kept}
    comparisons = [
        found
        for found in run.report["comparisons"]
        if {found["a"], found["b"]} <= (kept if found["level"] == "checkpoint" else methods)
    ]
    report = {
        **run.report,
        **_blocks_of(run.report, kept, methods),
        "results": results,
        "comparisons": comparisons,
        "command": command,
    }
    cells = gather(
        [outcome_of(found) for found in results],
        [row for row in run.scores if row["cell"] in kept],
        [answer for answer in run.generations if answer.cell in kept],
    )
    material = Material(report, cells, [row for row in run.training if row["cell"] in kept])
    pairs = pairs_of(names)
    tables = [pairwise(report, a, b) for a, b in pairs]
    others = [judged(report), policies(report), reward_models(report), costs(report)]
    firsts = {
        name: next(cell.name for cell in cells if cell.name in members(report, name)["checkpoint"]) for name in names
    }
    gaps = [section for a, b in pairs if a != b and (section := most_different(cells, firsts[a], firsts[b])).rows]
    title = " against ".join(map(one_line, names))
    page = comparison_page(
        title,
        report,
        cells,
        verdicts=list(verdicts(report, pairs)),
        tables=[*tables, *gaps, *(section for section in others if section.rows)],
        against=next(((firsts[a], firsts[b]) for a, b in pairs if a != b), None),
        figures=comparison_figures(material, [(firsts[a], firsts[b]) for a, b in pairs if a != b]),
    )
    write_text(path, page)


def _blocks_of(report: Mapping[str, Any], cells: set[str], methods: set[str]) -> dict[str, Any]:
    """Of the blocks that figures are drawn from, what is about some cells."""
    policies = report.get("policies") or {}
    kept = {"checkpoint": cells, "method": methods}
    rates = [one for one in policies.get("win_rates", ()) if {one["a"], one["b"]} <= kept[one["level"]]]
    return {
        "policies": {
            **policies,
            "win_rates": [
                one for one in rates if {one["a"], one["b"]} <= (cells if one["level"] == "checkpoint" else methods)
            ],
            "frontier": [one for one in policies.get("frontier", ()) if one["cell"] in cells],
        },
        "audit": [one for one in report.get("audit") or () if one["scorer"] in cells],
        "agreement": [],  # of the judges, whoever is compared
        "keywords": {"lists": [one for one in (report.get("keywords") or {}).get("lists", ()) if one["of"] in cells]},
    }


def verdicts(report: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What the tests say of each pair, a sentence a level: the methods where seeds allow it, and the checkpoints."""
    for a, b in pairs:
        left, right = members(report, a), members(report, b)
        for level, what in (("method", "as methods"), ("checkpoint", "as checkpoints")):
            found = [
                one
                for one in report["comparisons"]
                if one["level"] == level
                and (
                    (one["a"] in left[level] and one["b"] in right[level])
                    or (one["b"] in left[level] and one["a"] in right[level])
                )
            ]
            told = "; ".join(map(_told, found))
            if told:
                yield f"{one_line(a)} against {one_line(b)}, {what}: {told}."
            elif level == "method":
                yield (
                    f"{one_line(a)} against {one_line(b)}, {what}: no claim. It needs at least 3 seeds of each; the "
                    "tests below compare checkpoints."
                )


def most_different(cells: Sequence[Cell], a: str, b: str) -> Section:
    """The prompts on which the first judge's scores of two cells differ most, in both directions."""
    own = {cell.name: cell for cell in cells}
    judge = next(iter(judges_of(own[a].generations)), None)
    columns = [Column("prompt", numeric=False, wraps=True), *map(Column, (a, b, "difference"))]
    title = f"Prompts on which {one_line(a)} and {one_line(b)} differ most"
    if judge is None:
        return Section(title, columns, [])
    left, right = own[a].judged_by_prompt(judge), own[b].judged_by_prompt(judge)
    texts = {answer.prompt_id: answer.prompt for answer in own[a].generations}
    gaps = sorted((left[prompt] - right[prompt], prompt) for prompt in left if prompt in right)
    picked = gaps if len(gaps) <= 2 * MOST else [*gaps[:MOST], *gaps[-MOST:]]
    rows = [
        (_short(texts[prompt]), number(left[prompt]), number(right[prompt]), number(gap, signed=True))
        for gap, prompt in reversed(picked)
        if is_finite(gap)
    ]
    caption = f"By the judge {one_line(judge)}; up to {MOST} prompts each way, of {len(gaps)} that both answered."
    return Section(title, columns, rows, [caption], "examples")


def _told(found: Mapping[str, Any]) -> str:
    shown = f"{number(found['difference'], signed=True)} {interval(found['low'], found['high'])}"
    who = f"{one_line(found['a'])} − {one_line(found['b'])}"
    return f"{one_line(found['metric'])}: {verdict(found)} ({who} {shown}, Holm p {p_value(found['p_holm'])})"


def _short(text: str) -> str:
    line = one_line(text[:400])
    return line if len(line) <= 120 else f"{line[:119]}…"


def _part(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: settings.get(key) for key in keys}


def _same_prompts(runs: Mapping[str, Run]) -> None:
    """Runs are compared prompt by prompt, so a number of a prompt must mean the same text in all of them."""
    (first, run), *others = runs.items()
    texts = {answer.prompt_id: answer.prompt for answer in run.generations}
    val = _settings(run).get("data", {}).get("val")
    for name, other in others:
        differ = {
            answer.prompt_id
            for answer in other.generations
            if texts.get(answer.prompt_id, answer.prompt) != answer.prompt
        }
        if differ or _settings(other).get("data", {}).get("val") != val:
            raise MissingResultError(
                f"the runs {first} and {name} were measured on different validation pairs",
                fix="compare runs of one data.val",
            )
