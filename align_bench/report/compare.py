"""Two or more methods held against each other: of one report, or of several stored runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import MissingResultError, StoreError, SuiteError, nearest
from align_bench.metrics.finite import is_finite
from align_bench.records import CellId, Comparison, Kind, Outcome
from align_bench.report.build import build_report
from align_bench.report.cells import Cell, gather, judges_of
from align_bench.report.export import (
    ReportRows,
    outcome_of,
    read_generations,
    read_pairs,
    read_report,
    read_scores,
    read_training,
    right_answers,
)
from align_bench.report.files import write_text
from align_bench.report.formatting import interval, one_line, p_value, signed
from align_bench.report.labels import bare_name, called, labels, names_of
from align_bench.report.rows import REBUILD
from align_bench.report.schema import Header, JudgeFacts, Report
from align_bench.report.tables.cost import costs
from align_bench.report.tables.pairwise import LEVELS, members, pairwise
from align_bench.report.tables.results import judged, policies, reward_models
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import difference, number
from align_bench.report.verdict import verdict
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from pydantic import JsonValue

PAGE = "compare.html"
MOST = 10  # prompts that differ most, each way
MOST_OTHERS = 5  # methods that a message proposes
# What decides which answers are of one base, and which judge scores are of one judge: all that it is trained from.
ANSWERED_BY = ("base", "precision", "generate", "seeds")
JUDGED_BY = ("base", "precision", "lora", "train", "judge")


@dataclass(frozen=True, slots=True)
class Run:
    """A report with its rows, as its folder holds them."""

    report: Report
    rows: ReportRows


def read_run(folder: Path) -> Run:
    """What a report's folder holds, but for audits and training texts.

    Raises:
        MissingResultError: a file is missing.
        StoreError: a file is damaged.
    """
    report = read_report(folder)
    pairs = read_pairs(folder)
    rows = ReportRows(read_scores(folder), read_generations(folder), read_training(folder), pairs=pairs)
    try:
        gather([outcome_of(result) for result in report.results], rows.scores, rows.generations)
    except ValueError as error:
        raise StoreError(f"{folder} is damaged: {error}", fix=REBUILD) from error
    return Run(report, rows)


def merge(runs: Mapping[str, Run], methods: Sequence[str]) -> tuple[Run, list[str]]:
    """Several runs as one, with the cells of some methods as `run/cell`, and their differences tested anew.

    The base stays one where all runs have the same. Judges of different making keep different names, `run/judge`, and
    so do all reward models that policies learned from: no score is held against one of another scale.

    Args:
        runs: name → run; two or more.
        methods: names of methods or cells; each must be in at least one run.

    Returns:
        The merged run, and the names in it of what is compared.

    Raises:
        MissingResultError: a method is in no run, or the runs answered different prompts.
    """
    _check_prompts(runs)
    _check_known(runs, methods)
    one_judge = _agree(runs, JUDGED_BY)
    bases = [run.report.base for run in runs.values()]
    one_base = _agree(runs, ANSWERED_BY) and all(base == bases[0] for base in bases)
    outcomes: dict[CellId, Outcome] = {}
    compared: dict[str, None] = {}
    rows = ReportRows([], [])
    for name, run in runs.items():
        renamed: dict[str, CellId] = {}
        meant = {cell for method in methods for cell in called(method, _cells(run))}
        for result in run.report.results:
            wanted = result.cell in meant
            if not wanted and result.kind != "base":
                continue
            cell = result.cell if result.kind == "base" and one_base else replace(result.cell, run=name)
            if cell in outcomes:  # the base
                continue
            renamed[result.name] = cell
            outcomes[cell] = replace(outcome_of(result), cell=cell, algorithm=bare_name(cell))
            if wanted:
                compared[str(cell.method)] = None
        rows = _joined(rows, _renamed(run.rows, renamed, name, one_judge=one_judge))
    if len(compared) < 2:
        raise MissingResultError("there is only one cell to compare", fix="name two methods, or a method of two runs")
    header = _header(runs, one_judge=one_judge)
    return Run(build_report(header, list(outcomes.values()), rows.scores, rows.generations), rows), list(compared)


def _header(runs: Mapping[str, Run], *, one_judge: bool) -> Header:
    """That of the first run, with the judges of all."""
    first = next(iter(runs.values())).report
    judges: dict[str, JudgeFacts] = {}
    for run, stored in runs.items():
        for judge in stored.report.judges:
            name = _judge(judge.name, run, one_judge=one_judge)
            earlier = judges[name].rewarded if name in judges else []
            rewarded = [*earlier, *(replace(cell, run=run) for cell in judge.rewarded)]
            judges[name] = judges.get(name, judge).model_copy(update={"name": name, "rewarded": rewarded})
    return Header(
        command=first.command,
        suite=first.suite,
        base=first.base,
        data=first.data,
        judges=list(judges.values()),
        environment=first.environment,
    )


def _judge(name: str, run: str, *, one_judge: bool) -> str:
    """What a merged report calls a judge; gold is the same wherever the data is."""
    return name if one_judge or name == GOLD else f"{run}/{name}"


def _renamed(rows: ReportRows, cells: Mapping[str, CellId], run: str, *, one_judge: bool) -> ReportRows:
    """The rows of some cells of a run, under their new names."""
    names = {old: str(new) for old, new in cells.items()}
    return ReportRows(
        scores=[replace(row, cell=names[row.cell]) for row in rows.scores if row.cell in names],
        generations=[
            replace(
                answer,
                cell=names[answer.cell],
                scores={_judge(name, run, one_judge=one_judge): score for name, score in answer.scores.items()},
                proxies={f"{run}/{reward}": score for reward, score in answer.proxies.items()},
            )
            for answer in rows.generations
            if answer.cell in names
        ],
        training=[replace(row, cell=names[row.cell]) for row in rows.training if row.cell in names],
        pairs=rows.pairs,
    )


def _joined(rows: ReportRows, more: ReportRows) -> ReportRows:
    return ReportRows(
        scores=[*rows.scores, *more.scores],
        generations=[*rows.generations, *more.generations],
        training=[*rows.training, *more.training],
        pairs=rows.pairs or more.pairs,  # one data.val
    )


def _setting(run: Run, *path: str) -> JsonValue:
    """A setting of a run's suite; None where it has none of that name."""
    found: JsonValue = run.report.suite.settings
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _agree(runs: Mapping[str, Run], settings: Sequence[str]) -> bool:
    """Whether all runs have the same of these settings."""
    first, *others = runs.values()
    return all(_setting(run, key) == _setting(first, key) for run in others for key in settings)


def _check_known(runs: Mapping[str, Run], methods: Sequence[str]) -> None:
    for method in methods:
        if not any(called(method, _cells(run)) for run in runs.values()):
            known = dict.fromkeys(name for run in runs.values() for name in names_of(_cells(run)))
            raise MissingResultError(f"no run has {method!r}. {nearest(method, known, what='method')}")


def _cells(run: Run) -> list[CellId]:
    return [result.cell for result in run.report.results]


def _check_prompts(runs: Mapping[str, Run]) -> None:
    """Runs are compared prompt by prompt, so a number of a prompt must mean the same text in all of them."""
    (first, run), *others = runs.items()
    texts = {answer.prompt_id: answer.prompt for answer in run.rows.generations}
    for name, other in others:
        differ = any(texts.get(answer.prompt_id, answer.prompt) != answer.prompt for answer in other.rows.generations)
        if differ or _setting(other, "data", "val") != _setting(run, "data", "val"):
            raise MissingResultError(
                f"the runs {first} and {name} were measured on different validation pairs",
                fix="compare runs of one data.val",
            )


@dataclass(frozen=True, slots=True)
class Comparable:
    """A cell as far as it decides whom it is compared with.

    Attributes:
        cell: which one.
        what: `policy`, which the base counts as, `reward model` or `judge`.
    """

    cell: CellId
    what: str

    @classmethod
    def of(cls, cell: CellId, kind: Kind, *, is_judge: bool) -> Comparable:
        """A cell of a suite or of a report."""
        return cls(cell, "judge" if is_judge else "reward model" if kind == "reward" else "policy")

    def with_(self, other: Comparable) -> bool:
        """Whether there are tests between the two: never of judges, nor of seeds of one method."""
        return self.what == other.what != "judge" and self.cell.method != other.cell.method


def refuse_incomparable(names: Sequence[str], cells: Sequence[Comparable]) -> None:
    """Refuse names of which one can be compared with no other.

    Args:
        names: of methods or cells, as tables print them; one that stands for no cell is passed over.
        cells: all of the suite, or of the report.

    Raises:
        SuiteError: it names who that is, and with whom it can be compared.
    """
    meant = {name: [one for one in cells if one.cell in called(name, [each.cell for each in cells])] for name in names}
    meant = {name: own for name, own in meant.items() if own}
    pairs = pairs_of(list(meant)) if meant else []
    fit = {name for pair in pairs if _any_with(*(meant[one] for one in pair)) for name in pair}
    alone = [name for name in meant if name not in fit]
    if not alone:
        return
    short = labels(each.cell for each in cells)
    others = {
        name: list(dict.fromkeys(short[one.cell.method] for one in cells if _any_with(meant[name], [one])))
        for name in alone
    }
    got = " and ".join(f"{one_line(name)} (a {meant[name][0].what})" for name in meant)
    raise SuiteError(
        f"compare: got {got}{'' if len(meant) > 1 else ' alone'}, which leaves nothing to compare "
        f"{' or '.join(map(one_line, alone))} with; expected different methods of one kind: policies and the base, or "
        "reward models. Judges are compared with none, nor are a method's seeds with each other",
        fix="; ".join(
            f"compare {one_line(name)} with {' or '.join(map(one_line, found[:MOST_OTHERS]))}"
            for name, found in others.items()
            if found
        )
        or None,
    )


def _any_with(some: Sequence[Comparable], others: Sequence[Comparable]) -> bool:
    return any(one.with_(other) for one in some for other in others)


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
    from align_bench.report.render.html import Content, page

    chosen = {cell for name in names for cell in members(run.report, name)["checkpoint"]}
    part = _part(run, chosen, command)
    report = part.report
    cells = gather([outcome_of(result) for result in report.results], part.rows.scores, part.rows.generations)
    first = {name: next(cell.id for cell in cells if cell.id in members(report, name)["checkpoint"]) for name in names}
    pairs = pairs_of(names)
    between = [(first[a], first[b]) for a, b in pairs if a != b]
    tests = [pairwise(report, a, b) for a, b in pairs]
    judge = report.policies.judge
    tables = [*(most_different(cells, a, b, judge) for a, b in between), judged(report), policies(report)]
    tables += [reward_models(report), costs(report)]
    content = Content(
        title=" against ".join(map(one_line, names)),
        points=list(verdicts(report, pairs)),
        tables=[*tests, *(table for table in tables if table.rows)],
        figures=comparison_figures(Material(report, cells, part.rows.training), between),
        against=next(iter(between), None),
        gold=right_answers(part.rows.pairs),
        opened=("verdict", "differences", "examples"),
    )
    write_text(path, page(content, report, cells))


def _part(run: Run, chosen: set[CellId], command: str) -> Run:
    """The run with nothing but some cells and the base in what the page's tables and figures are made from."""
    whole, rows = run.report, run.rows
    cells = chosen | {result.cell for result in whole.results if result.kind == "base"}
    kept = {"checkpoint": cells, "method": {cell.method for cell in cells}}
    names = {str(cell) for cell in cells}
    report = whole.model_copy(
        update={
            "command": command,
            "results": [result for result in whole.results if result.cell in cells],
            "comparisons": [one for one in whole.comparisons if {one.a, one.b} <= kept[one.level]],
            "policies": whole.policies.model_copy(
                update={
                    "win_rates": [one for one in whole.policies.win_rates if {one.a, one.b} <= kept[one.level]],
                    "frontier": [point for point in whole.policies.frontier if point.cell in cells],
                }
            ),
            "audit": [audit for audit in whole.audit if audit.scorer in names],
            "agreement": [],  # of the judges, whoever is compared
            "keywords": whole.keywords.model_copy(
                update={"lists": [own for own in whole.keywords.lists if own.of in names]}
            ),
        }
    )
    return Run(
        report,
        ReportRows(
            scores=[row for row in rows.scores if row.cell in names],
            generations=[answer for answer in rows.generations if answer.cell in names],
            training=[row for row in rows.training if row.cell in names],
            pairs=rows.pairs,
        ),
    )


def verdicts(report: Report, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What the tests say of each pair, one sentence per level: methods where seeds allow it, and checkpoints."""
    for a, b in pairs:
        left, right = members(report, a), members(report, b)
        for level in LEVELS:
            who = f"{one_line(a)} against {one_line(b)}, as {level}s"
            found = [
                each
                for each in report.comparisons
                if each.level == level
                and (
                    (each.a in left[level] and each.b in right[level])
                    or (each.b in left[level] and each.a in right[level])
                )
            ]
            if found:
                yield f"{who}: {'; '.join(map(_told, found))}."
            elif level == "method":
                yield f"{who}: no claim. It needs at least 3 seeds of each; the tests below compare checkpoints."


def most_different(cells: Sequence[Cell], a: CellId, b: CellId, main: str | None) -> Section:
    """The prompts on which a judge's scores of two cells differ most, in both directions.

    Args:
        cells: every cell with its rows.
        a, b: the two cells.
        main: the main judge; where it scored no answer of `a`, which is of another run then, the first one that did.
    """
    own = {cell.id: cell for cell in cells}
    answers = own[a].generations
    judge = main if any(main in answer.scores for answer in answers) else next(iter(judges_of(answers)), None)
    columns = [text("prompt"), *map(Column, (str(a), str(b), "difference"))]
    title = f"Prompts on which {one_line(a)} and {one_line(b)} differ most"
    if judge is None:
        return Section(title, columns, [])
    left, right = own[a].judged_by_prompt(judge), own[b].judged_by_prompt(judge)
    texts = {answer.prompt_id: answer.prompt for answer in own[a].generations}
    gaps = sorted((left[prompt] - right[prompt], prompt) for prompt in texts if prompt in left and prompt in right)
    picked = gaps if len(gaps) <= 2 * MOST else [*gaps[:MOST], *gaps[-MOST:]]
    rows = [
        (_clipped(texts[prompt]), number(left[prompt]), number(right[prompt]), difference(gap))
        for gap, prompt in reversed(picked)
        if is_finite(gap)
    ]
    caption = f"By the judge {one_line(judge)}; up to {MOST} prompts each way, of {len(gaps)} that both answered."
    return Section(title, columns, rows, [caption], "examples")


def _told(found: Comparison) -> str:
    shown = f"{signed(found.difference)} {interval(found.low, found.high)}"
    who = f"{one_line(found.a)} − {one_line(found.b)}"
    return f"{one_line(found.metric)}: {verdict(found)} ({who} {shown}, Holm p {p_value(found.p_holm)})"


def _clipped(prompt: str) -> str:
    line = one_line(prompt[:400])
    return line if len(line) <= 120 else f"{line[:119]}…"
