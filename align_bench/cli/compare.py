"""The command that compares methods, pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from align_bench.cli.app import (
    Form,
    Overrides,
    Plugins,
    Quick,
    Reports,
    Runs,
    Trust,
    app,
    command,
    console,
    errors,
    prepared_for,
    write,
)
from align_bench.cli.run import compute
from align_bench.report.formats import Format
from align_bench.report.formatting import visible
from align_bench.suite.names import TRIED_OUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from align_bench.planning.inputs import Prepared
    from align_bench.report.schema import Report


@app.command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD METHOD... [SUITE]",
            help="Methods or cells as tables print them (or base), then a suite file or name.",
        ),
    ],
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    stored: Annotated[bool, typer.Option("--stored", help="Compute nothing; fail when a result is missing.")] = False,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="Compare within this stored report; give it twice or more to compare between reports.",
        ),
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Compare methods of a suite pairwise; computes missing results. Also writes a page, compare.html.

    Example: align-bench compare dpo simpo
    """
    from align_bench.report.compare import (
        PAGE,
        Comparable,
        merge,
        pairs_of,
        read_run,
        refuse_incomparable,
        write_comparison,
    )
    from align_bench.report.formats import pairwise_text
    from align_bench.report.labels import full_name
    from align_bench.report.render.terminal import pairwise_table
    from align_bench.store.files import as_store_error
    from align_bench.suite.names import JUDGE_CELL

    if within:
        found = {name: read_run(reports / name) for name in dict.fromkeys(within)}
        folder = reports / within[0] if len(found) == 1 else reports
        compared, names = merge(found, names) if len(found) > 1 else (found[within[0]], names)
        _check_two(names)
        results = compared.report.results
        refuse_incomparable(
            names, [Comparable.of(one.cell, one.kind, is_judge=one.algorithm == JUDGE_CELL) for one in results]
        )
    else:
        names, folder = _compared(
            names,
            lambda suite: prepared_for(suite, overrides, plugin, quick=quick, trust=trust),
            runs,
            reports,
            stored=stored,
        )
        compared = read_run(folder)
    cells = [result.cell for result in compared.report.results]
    names = [full_name(name, cells) for name in names]
    if form is Format.TABLE:
        for a, b in pairs_of(names):
            console.print(pairwise_table(compared.report, a, b))
    else:
        write(pairwise_text(compared.report, pairs_of(names), form))
    with as_store_error(folder / PAGE):
        write_comparison(folder / PAGE, compared, names, command())
    errors.print(f"page: {escape(str(folder / PAGE))}", highlight=False, soft_wrap=True)


def _check_two(names: list[str]) -> None:
    if len(names) < 2:
        raise typer.BadParameter("name at least two methods to compare", param_hint="METHOD METHOD")


def _compared(
    names: list[str], prepare: Callable[[str], Prepared], runs: Path, reports: Path, *, stored: bool
) -> tuple[list[str], Path]:
    """The methods of a suite with their results in its report's folder, computed where allowed."""
    from align_bench.errors import MissingResultError
    from align_bench.report.export import read_report
    from align_bench.suite.load import packaged_suites

    last = names[-1]
    is_suite = last.removesuffix(TRIED_OUT) in packaged_suites() or last.endswith((".yaml", ".yml"))
    suite = last if is_suite else "assignment"
    names = names[:-1] if suite == last else names
    _check_two(names)
    prepared = prepare(suite)
    methods, folder = _methods(names, prepared, runs), reports / prepared.suite.name
    if not stored:
        _say_what_is_computed(prepared, methods, runs)
        compute(prepared, runs, reports, methods=methods)
        return names, folder
    report = read_report(folder)
    if report.suite.settings != prepared.suite.model_dump(mode="json"):
        raise MissingResultError(
            f"the report in {folder} was made with other settings than {suite}",
            fix="align-bench run computes what is missing; or drop --stored",
        )
    _check_stored(report, names)
    return names, folder


def _say_what_is_computed(prepared: Prepared, methods: list[str], runs: Path) -> None:
    """Where only the suite's try-out was run, that the whole suite's results are made now, and what avoids it."""
    from align_bench.cli.plan_view import remaining, roughly
    from align_bench.runner.results import only_tried_out
    from align_bench.store.store import Store

    suite = prepared.suite.name
    if only_tried_out(Store(runs), suite):
        seconds = sum(remaining(prepared, runs, methods).seconds.values())
        said = (
            f"the suite {suite} was not run here, only its try-out {suite}{TRIED_OUT}: {', '.join(methods)} with the "
            f"base and the judges are computed on the whole suite, which takes about {roughly(seconds)}\n"
            f"  → to compare what the try-out has: {command()} --quick"
        )
        errors.print(visible(said), style="yellow", highlight=False, markup=False, soft_wrap=True)


def _methods(names: list[str], prepared: Prepared, runs: Path) -> list[str]:
    """The methods whose cells the names mean.

    Raises:
        SuiteError: a name means none, or one that can be compared with no other.
    """
    from align_bench.errors import SuiteError, nearest
    from align_bench.planning.graph import make_graph
    from align_bench.report.compare import Comparable, refuse_incomparable
    from align_bench.report.labels import called, names_of
    from align_bench.runner.results import Results
    from align_bench.store.store import Store

    store = Store(runs)
    store.check()
    cells = {cell.id: cell for cell in make_graph(prepared, Results(store, read_only=True)).shown}
    found = [cells[one].algorithm for name in names for one in called(name, cells)]
    for name in names:
        if not called(name, cells):
            known = names_of(cells)
            raise SuiteError(
                f"the suite {prepared.suite.name} has no method {name!r}. {nearest(name, known, what='method')}"
            )
    refuse_incomparable(names, [Comparable.of(one.id, one.kind, is_judge=one.is_judge) for one in cells.values()])
    return list(dict.fromkeys(found))


def _check_stored(report: Report, names: list[str]) -> None:
    from align_bench.errors import MissingResultError
    from align_bench.report.labels import called

    status = {result.cell: result.status for result in report.results}
    for name in names:
        if "done" not in (status[cell] for cell in called(name, status)):
            raise MissingResultError(f"no result of {name} is stored", fix="drop --stored to compute it")
