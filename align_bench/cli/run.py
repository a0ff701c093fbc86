"""Commands that run a suite, or show past runs: run, report, plan, runs, clean."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from align_bench.cli.app import (
    Form,
    Overrides,
    Plugins,
    Quick,
    Reports,
    Runs,
    Strict,
    SuiteName,
    Trust,
    app,
    command,
    console,
    errors,
    exit_on_failure,
    prepared_for,
    write,
)
from align_bench.cli.interrupts import interrupts_said
from align_bench.report.formats import Format

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.report.schema import Report
    from align_bench.runner.execution import Execution
    from align_bench.runner.progress import Progress


class Where(Enum):
    """Where stages are made."""

    LOCAL = "local"
    RAY = "ray"


Full = Annotated[bool, typer.Option("--full", help="First print every table of the report, and its notes.")]


@app.command()
def run(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    strict: Strict = False,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    profile: Annotated[
        bool, typer.Option("--profile", help="Also trace a few steps of each training, into runs/profile/NAME.")
    ] = False,
    full: Full = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")] = False,
    json_log: Annotated[
        Path | None,
        typer.Option("--json-log", metavar="FILE", help="Also append events to this file, a JSON object per line."),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N|auto",
            help="Worker processes; auto: one per GPU, or as many as memory and cores allow.  \\[default: 1]",
        ),
    ] = None,
    executor: Annotated[
        Where, typer.Option("--executor", help="Where the workers are: on this machine, or on a Ray cluster.")
    ] = Where.LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="With --executor ray: a cluster that runs, or auto for this machine's; one is started here without.",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Also log steps, tables and report to tensorboard, mlflow, wandb or trackio; may be repeated.",
        ),
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Run a suite: train every method, evaluate, judge, test the differences, print verdict and leaderboard.

    Results are cached: a second run does nothing, one that was interrupted or killed resumes where it stopped, and
    results that another suite has computed are reused.

    Exit codes: 0 done, 1 a cell failed, 2 a mistake in what was given, 130 after Ctrl-C, 143 after SIGTERM.

    Example: align-bench run assignment --set methods='\\[dpo, simpo]' --set seeds='[0, 1, 2]'
    """
    execution = execution_of(jobs, executor, ray_address, track or [])
    with interrupts_said(lambda: "outside of any stage"):
        prepared = prepared_for(suite, overrides, plugin, quick=quick, trust=trust, strict=strict)
        report = compute(
            prepared,
            runs,
            reports,
            profile=profile,
            quiet=quiet,
            json_log=json_log,
            execution=execution,
        )
        show_report(report, form, reports, full=full)
    exit_on_failure(report)


def execution_of(jobs: str | None, executor: Where, ray_address: str | None, track: list[str]) -> Execution:
    """Where and how many stages are made at a time, and what takes their steps, as the user typed it."""
    from align_bench.runner.execution import Execution

    number = int(jobs) if jobs is not None and jobs.isdecimal() and len(jobs) < 10 else None
    if jobs not in (None, "auto") and not number:
        raise typer.BadParameter(f"{jobs!r}: expected a whole number from 1 to 1,024, or auto", param_hint="--jobs")
    return Execution("auto" if jobs == "auto" else number, executor.value, ray_address, tuple(dict.fromkeys(track)))


@app.command()
def report(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    full: Full = False,
    form: Form = Format.TABLE,
) -> None:
    """Rebuild a suite's report from stored results, and print verdict and leaderboard; loads no model.

    Example: align-bench report assignment
    """
    prepared = prepared_for(suite, overrides, plugin, quick=quick, trust=trust)
    built = compute(prepared, runs, reports, only_stored=True)
    show_report(built, form, reports, full=full)
    exit_on_failure(built)


@app.command()
def plan(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    strict: Strict = False,
    runs: Runs = Path("runs"),
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="NAME[xN]",
            help="Plan the whole suite for other devices, which this machine need not have: h100x8, rtx4090, cpu, ….",
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(
            "--utilisation",
            metavar="SHARE",
            help="With --hardware: the share of the peak, above 0 and at most 1, where no rate was measured.",
        ),
    ] = None,
) -> None:
    """Show a suite's settings and where they come from, its rows and what would be cut, which results are stored, and a
    rough cost of the rest in hours and memory; trains nothing.

    With --hardware: tokens, operations, memory and hours per cell and in all, on the devices that you name. Where a
    cell does not fit into their memory, the exit code is 2, and settings that fit are proposed.

    A base of which only config.json and the tokenizer are at hand is enough; run needs its weights.

    Example: align-bench plan assignment --set train.epochs=2
    """
    from align_bench.cli.plan_view import plan_tables
    from align_bench.suite.load import read_layers

    if utilisation is not None and (hardware is None or not 0 < utilisation <= 1):
        raise typer.BadParameter(
            f"{utilisation:g}: expected a share above 0 and at most 1, and --hardware", param_hint="--utilisation"
        )
    if hardware is not None:
        from align_bench.cli.hardware_view import View, forecast
        from align_bench.planning.hardware import parse_hardware

        named = parse_hardware(hardware)
        planned = prepared_for(
            suite, overrides, plugin, quick=quick, trust=trust, strict=strict, hardware=named, weights=False
        )
        view = View(forecast(planned, runs, named, utilisation))
        for part in view.renderables():
            console.print(part)
        view.refuse()
        return
    prepared = prepared_for(suite, overrides, plugin, quick=quick, trust=trust, strict=strict, weights=False)
    for table in plan_tables(prepared, runs, read_layers(suite, overrides or ())):
        console.print(table)


@app.command()
def runs(
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    form: Form = Format.TABLE,
) -> None:
    """List past runs: when, how many cells succeeded or failed, the best cell, where the report is.

    Example: align-bench runs --reports reports
    """
    from align_bench.report.formats import section_text
    from align_bench.report.history import history_section, past_runs
    from align_bench.report.render.terminal import section_table

    section = history_section(past_runs(runs, reports))
    if form is Format.TABLE:
        console.print(section_table(section))
    else:
        write(section_text(section, form))


@app.command()
def clean(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Names of suites that are no longer needed.")
    ] = None,
    runs: Runs = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Show results that no suite needs any more, and delete them.

    A suite needs the results behind its report, and those of a run that has not finished. If you name suites, what
    only these need is deleted too. Results that another process is working on are left alone.

    Example: align-bench clean debias --yes
    """
    from align_bench.cli.clean_view import leftovers_table
    from align_bench.store.clean import remove, unneeded
    from align_bench.store.store import Store

    store = Store(runs)
    store.check()
    without = _known(suites or [], list(store.notes.all()), runs)
    found = unneeded(store, without=without)
    console.print(leftovers_table(found, without))
    if not found and not without:
        return
    if not (yes or typer.confirm("Delete this?")):
        raise typer.Exit(1)
    for suite in without:
        store.notes.delete(suite)
    kept = [leftover for leftover in found if not remove(store, leftover)]
    freed = sum(leftover.size_bytes for leftover in found if leftover not in kept)
    console.print(f"freed {freed / 1e6:,.1f} MB" + (f"; kept {len(kept)} that are in use" if kept else ""))


def _known(suites: list[str], known: list[str], runs: Path) -> list[str]:
    from align_bench.errors import SuiteError, nearest

    for suite in suites:
        if suite not in known:
            raise SuiteError(f"no suite {suite!r} was run in {runs}. {nearest(suite, known, what='suite')}")
    return suites


def compute(
    prepared: Prepared,
    runs: Path,
    reports: Path,
    *,
    methods: list[str] | None = None,
    only_stored: bool = False,
    profile: bool = False,
    typed: str | None = None,
    quiet: bool = False,
    json_log: Path | None = None,
    execution: Execution | None = None,
) -> Report:
    """A suite's report: what is missing of it is computed, unless only what is stored may be used.

    Args:
        prepared: the suite.
        runs, reports: folders of what has been computed, and of reports.
        methods: compute the cells of these methods only.
        only_stored: compute nothing.
        profile: also trace a few steps of each training.
        typed: the command that the report names; what was typed if None.
        quiet: show no progress.
        json_log: file of events for other programs.
        execution: where stages are made, and how many at a time; in this process, one by one, if None.
    """
    from align_bench.cli.plan_view import Remaining, remaining
    from align_bench.cli.progress import progress_bars
    from align_bench.runner.execution import Execution
    from align_bench.runner.run import Folders
    from align_bench.runner.run import run as run_suite

    def run_with(progress: Progress) -> Report:
        folders = Folders(runs, reports)
        return run_suite(
            prepared,
            progress,
            folders,
            command=typed or command(),
            methods=methods,
            compute=not only_stored,
            execution=where,
        )

    where = execution or Execution()
    if profile and json_log is not None:
        raise typer.BadParameter("give one of the two", param_hint="--profile --json-log")
    if profile and (where.executor != "local" or where.jobs not in (None, 1)):
        raise typer.BadParameter("only what runs in this process is traced", param_hint="--profile --jobs")
    ahead = Remaining({}, 0, 0) if only_stored else remaining(prepared, runs, methods)
    with progress_bars(Console(quiet=True) if quiet else errors, ahead.seconds) as bars:
        if found := ahead.found():
            bars.log(found)
        if json_log is not None:
            from align_bench.runner.json_log import JsonLog

            events = JsonLog(bars, json_log)
            report = run_with(events)
            events.report(report, reports / report.suite.name)
            return report
        if not profile:
            return run_with(bars)
        from align_bench.cli.profile import STEPS, Traced

        traced = Traced(bars, runs / "profile" / prepared.suite.name)
        report = run_with(traced)
        if not traced.written:
            traced.log(
                "--profile: nothing was traced: no training was left to do, or none has more than one step; "
                f"another --runs folder trains again, and {STEPS + 1} steps are enough"
            )
        return report


def show_report(report: Report, form: Format, reports: Path, *, full: bool) -> None:
    """The last screen, after all tables if these are asked for; or the report's text for a pipe."""
    if form is not Format.TABLE:
        from align_bench.report.formats import report_text

        write(report_text(report, form))
        return
    from align_bench.report.export import PAGE
    from align_bench.report.render.screen import last_screen
    from align_bench.report.render.terminal import comparison_tables

    for table in comparison_tables(report) if full else []:
        console.print(table)
    for line in last_screen(report, str(reports / report.suite.name / PAGE), console):
        console.print(line)
