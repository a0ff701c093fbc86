"""The command line. Commands hand over to the pipeline and print; heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from align_bench.errors import AlignBenchError
from align_bench.report.formats import Format

if TYPE_CHECKING:
    from align_bench.pipeline import Folders, Prepared
    from align_bench.registry import Registry

app = typer.Typer(
    name="align-bench",
    help="Compare preference-alignment methods on the same base, rows and judge.",
    epilog="Start with: align-bench run assignment",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a packaged suite.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite, such as train.epochs=2."),
]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE_OR_DIR", help="Load methods from here too.")
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the working stores.")]
Reports = Annotated[Path, typer.Option("--reports", help="Folder that reports are written to.")]
Form = Annotated[
    Format,
    typer.Option("--format", help="Tables for the terminal, or for a pipe: json, csv (all digits) or md (Markdown)."),
]


def main() -> None:
    """Entry point of the console script: errors of the user's making are shown without a traceback."""
    # OpenMP's threads wait by spinning. By default they do so for long: a step of the embedded model took 0.42 s alone
    # on two cores, but 1.75 s beside another busy process. With no spin it was 0.73 s and 0.94 s, with a short one
    # 0.47 s both times. torch reads this when it is first imported, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except AlignBenchError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on from here")
        sys.exit(130)


@app.command()
def run(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    profile: Annotated[
        bool, typer.Option("--profile", help="Also trace a few steps of each training, into runs/NAME/profile.")
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """Run a suite: train every method, evaluate, judge, test the differences, print the tables.

    A second run does nothing; a killed one goes on where it was. Exit code 1 when a cell failed.

    Example: align-bench run assignment --set methods='\\[dpo, simpo]' --set seeds='[0, 1, 2]'
    """
    report = _compute(suite, overrides, plugin, runs, reports, profile=profile)
    _show_report(report, form)
    where = reports / report["suite"]["name"]
    if form is Format.TABLE:
        console.print(
            f"report: {escape(str(where / 'report.html'))}; beside it report.md, report.json, rows, tables/*.csv"
        )
    _exit_on_failure(report)


@app.command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="METHOD METHOD... [SUITE]", help="Methods (or base); last, a suite file or name."),
    ],
    overrides: Overrides = None,
    plugin: Plugins = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    stored: Annotated[bool, typer.Option("--stored", help="Forbid computing; fail when a result is missing.")] = False,
    within: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="NAME", help="Compare within this stored report; two or more: between them."),
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Compare methods of a suite, pair by pair; computes what is missing. Also writes a page, compare.html.

    Example: align-bench compare dpo simpo
    """
    from align_bench.report.compare import PAGE, merge, pairs_of, read_run, write_comparison
    from align_bench.report.formats import pairwise_text
    from align_bench.report.tables import pairwise_table

    if within:
        found = {name: read_run(reports / name) for name in dict.fromkeys(within)}
        folder = reports / within[0] if len(found) == 1 else reports
        compared, names = merge(found, names) if len(found) > 1 else (found[within[0]], names)
        _check_two(names)
    else:
        names, folder = _compared(names, overrides, plugin, runs, reports, stored)
        compared = read_run(folder)
    if form is Format.TABLE:
        for a, b in pairs_of(names):
            console.print(pairwise_table(compared.report, a, b))
    else:
        _write(pairwise_text(compared.report, pairs_of(names), form))
    write_comparison(folder / PAGE, compared, names, _command())
    errors.print(f"page: {escape(str(folder / PAGE))}", highlight=False, soft_wrap=True)


@app.command()
def report(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    form: Form = Format.TABLE,
) -> None:
    """Rebuild a suite's report from what is stored; loads no model.

    Example: align-bench report assignment
    """
    built = _compute(suite, overrides, plugin, runs, reports, compute=False)
    _show_report(built, form)
    _exit_on_failure(built)


@app.command()
def runs(
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    form: Form = Format.TABLE,
) -> None:
    """List what has been run: when, how many cells ended how, the best one, where the report is.

    Example: align-bench runs --reports reports
    """
    from align_bench.report.formats import section_text
    from align_bench.report.history import history_section, past_runs
    from align_bench.report.tables import section_table

    section = history_section(past_runs(runs, reports))
    if form is Format.TABLE:
        console.print(section_table(section, hidden={"skipped", "artefacts"}))
    else:
        _write(section_text(section, form))


@app.command()
def plan(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    runs: Runs = Path("runs"),
) -> None:
    """Show a suite's cells, what is stored of each, and a rough cost of the rest; trains nothing.

    Example: align-bench plan assignment --set train.epochs=2
    """
    from align_bench.pipeline import Folders
    from align_bench.preview import plan_tables

    for table in plan_tables(_prepare(suite, overrides, plugin), Folders(runs=runs)):
        console.print(table)


@app.command()
def data(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a hub id, or embedded/planted.")],
    split: Annotated[str | None, typer.Option(help="Split of a hub data set or of embedded/planted.")] = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=0)] = 3,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="STANDARD=NAME", help="Map a standard column to the file's own."),
    ] = None,
    bias: Annotated[
        str, typer.Option(help="Length bias of embedded/planted: none, default, strong or a number.")
    ] = "default",
) -> None:
    """Show what a preference set holds: its shape, counts, lengths and a few rows.

    Example: align-bench data embedded/planted --split val
    """
    from align_bench.data.preferences import DataSource, read
    from align_bench.data.summary import rich_summary

    mapped = dict(_pair(item, "--column") for item in columns or ())
    embedded = file.startswith("embedded/")
    dial = _number(bias)
    source = DataSource(path=file, split=split or ("train" if embedded else None), columns=mapped, bias=dial)
    console.print(rich_summary(source, read(source), rows=rows))


@app.command()
def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file of prompts with answers.")],
    judge: Annotated[
        str,
        typer.Option(help="A suite that was run (or SUITE:JUDGE, or its folder in runs), a hub id, a folder, or gold."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; .jsonl or .parquet. By default FILE.scored.SUFFIX.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="STANDARD=NAME", help="Map prompt, response, … to the file's own columns."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new column.")] = "score",
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub model.")] = None,
    template: Annotated[
        str | None, typer.Option(metavar="chat|pair", help="How a model from the hub or a folder reads texts.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, nf4 or auto; by default the run's own, or auto.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Padded tokens per forward pass; changes no score.", min=1)] = 8192,
    runs: Runs = Path("runs"),
) -> None:
    """Score prompts with answers by a judge: writes the file with a column of scores, and prints a summary.

    Columns are recognised: messages; prompt or question with response, completion, answer, text, response_1 and
    response_2, chosen and rejected; a report's generations.jsonl.

    Example: align-bench score answers.jsonl --judge assignment
    """
    from align_bench.errors import SuiteError

    for given, known in ((template, (None, "chat", "pair")), (precision, (None, "fp32", "bf16", "nf4", "auto"))):
        if given not in known:
            raise SuiteError(f"got {given!r}, expected {', '.join(filter(None, known))}")
    from align_bench.scoring import score_file, summary
    from align_bench.watch import watching

    with watching(errors, {}) as watch, watch.stage(file.name, "score") as tick:
        scored = score_file(
            file,
            judge,
            runs=runs,
            out=out,
            columns=dict(_pair(item, "--column") for item in columns or ()),
            name=name,
            revision=revision,
            template=template,  # type: ignore[arg-type]
            precision=precision,
            max_tokens=max_tokens,
            tick=tick,
        )
    for renderable in summary(scored):
        console.print(renderable)


@app.command()
def algorithms(plugin: Plugins = None) -> None:
    """List every method that can be found, and the plugin files that cannot be loaded.

    Example: align-bench algorithms --plugin my_method.py
    """
    from align_bench.catalogue import algorithms_table

    console.print(algorithms_table(_registry(plugin)))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method's name.")], plugin: Plugins = None) -> None:
    """Show a method: equation, hyper-parameters with their ranges, source.

    Example: align-bench show dpo
    """
    from align_bench.catalogue import method_page

    for renderable in method_page(_registry(plugin)[name]):
        console.print(renderable)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plugin's Python file.")],
    method: Annotated[
        str | None, typer.Option("--method", metavar="NAME", help="Check this method of the file only.")
    ] = None,
) -> None:
    """Check that a plugin's methods keep the contract: values, gradients, extremes, batches, documentation.

    Takes seconds. Exit code 1 when a check fails.

    Example: align-bench check algorithms/dpo.py
    """
    from align_bench.catalogue import checks_table
    from align_bench.errors import PluginError, nearest
    from align_bench.registry import load_file
    from align_bench.testing import check_algorithm

    plugins = {plugin.algorithm.name: plugin for plugin in load_file(file)}
    if method is not None and method not in plugins:
        raise PluginError(f"{file} has no method {method!r}. {nearest(method, plugins, what='method')}")
    failed = False
    for plugin in plugins.values() if method is None else [plugins[method]]:
        report = check_algorithm(plugin.algorithm)
        console.print(checks_table(plugin, report))
        failed |= bool(report.having("failed"))
    if failed:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What suites will call the method, such as my_dpo.")],
    data: Annotated[
        str, typer.Option(metavar="KIND", help="What its loss reads: pairs, chosen, unpaired or scores.")
    ] = "pairs",
    folder: Annotated[Path, typer.Option(help="Where the file is written.")] = Path("algorithms"),
) -> None:
    """Write the skeleton of a plugin, in which the loss is still to be filled in.

    Example: align-bench new my_dpo --data pairs
    """
    from align_bench.skeleton import write_skeleton

    path = write_skeleton(name, data, folder, taken=_registry(None))
    console.print(
        f"{escape(str(path))}: write the loss in it, then run: align-bench check {escape(str(path))}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of suite files, for editors.

    Example: align-bench schema > suite.schema.json
    """
    from align_bench.suite.load import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _registry(plugins: list[str] | None, suite: str | None = None, suite_plugins: list[str] | None = None) -> Registry:
    from align_bench.registry import load_registry
    from align_bench.suite.load import find_suite, packaged_suites

    # Without a suite of one's own, `algorithms/` of the current folder counts as beside it.
    file = find_suite(suite) if suite else None
    if file is None or file in packaged_suites().values():
        file = Path.cwd() / "suite.yaml"
    return load_registry(file, suite_plugins or (), plugins or ())


def _prepare(suite: str, overrides: list[str] | None, plugins: list[str] | None) -> Prepared:
    from align_bench.suite.load import load_suite

    loaded = load_suite(suite, overrides or ())
    # torch is first imported here; a mistake in the suite is told before that.
    from align_bench.pipeline import prepare

    return prepare(loaded, _registry(plugins, suite, loaded.plugins))


def _compute(
    suite: str,
    overrides: list[str] | None,
    plugins: list[str] | None,
    runs: Path,
    reports: Path,
    *,
    methods: list[str] | None = None,
    compute: bool = True,
    profile: bool = False,
) -> dict[str, Any]:
    prepared = _prepare(suite, overrides, plugins)
    from align_bench.pipeline import Folders
    from align_bench.pipeline import run as run_pipeline
    from align_bench.preview import expected_seconds
    from align_bench.watch import watching

    folders: Folders = Folders(runs, reports)
    expected = expected_seconds(prepared, folders, methods) if compute else {}
    with watching(errors, expected) as watch:
        if not profile:
            return run_pipeline(prepared, watch, folders, command=_command(), methods=methods, compute=compute)
        from align_bench.trace import STEPS, Traced

        traced = Traced(watch, runs / prepared.suite.name / "profile")
        report = run_pipeline(prepared, traced, folders, command=_command(), methods=methods, compute=compute)
        if not traced.written:
            traced.say(
                "--profile: no trace, for no training was left to do, or none has more than one step; "
                f"another --runs folder trains anew, and {STEPS + 1} steps are enough"
            )
        return report


def _check_two(names: list[str]) -> None:
    if len(names) < 2:
        raise typer.BadParameter("two methods are the least that can be compared", param_hint="METHOD METHOD")


def _compared(
    names: list[str], overrides: list[str] | None, plugin: list[str] | None, runs: Path, reports: Path, stored: bool
) -> tuple[list[str], Path]:
    """The methods of a suite with their results in its report's folder, computed where allowed."""
    from align_bench.errors import MissingResultError
    from align_bench.report.export import read_report
    from align_bench.suite.load import load_suite, packaged_suites
    from align_bench.suite.models import BASE_CELL

    last = names[-1]
    suite = last if last in packaged_suites() or last.endswith((".yaml", ".yml")) else "assignment"
    names = names[:-1] if suite == last else names
    _check_two(names)
    loaded = load_suite(suite, overrides or ())
    _check_known(names, {BASE_CELL, *(method.name for method in loaded.methods)}, loaded.name)
    folder = reports / loaded.name
    if not stored:
        _compute(suite, overrides, plugin, runs, reports, methods=names)
        return names, folder
    report = read_report(folder)
    if report["suite"]["settings"] != loaded.model_dump(mode="json"):
        raise MissingResultError(
            f"the report in {folder} is of other settings than {suite}",
            fix="align-bench run computes what is missing; or leave --stored out",
        )
    _check_stored(report, names)
    return names, folder


def _command() -> str:
    """What the user typed, with the program's name instead of its path."""
    return shlex.join(["align-bench", *sys.argv[1:]])


def _show_report(report: dict[str, Any], form: Format) -> None:
    if form is not Format.TABLE:
        from align_bench.report.formats import report_text

        _write(report_text(report, form))
        return
    from align_bench.report.tables import comparison_tables

    for table in comparison_tables(report):
        console.print(table)


def _write(text: str) -> None:
    """Text for a pipe; it ends with its own line break."""
    from align_bench.report.files import unicode

    typer.echo(unicode(text), nl=False)


def _exit_on_failure(report: dict[str, Any]) -> None:
    if any(result["status"] == "failed" for result in report["results"]):
        raise typer.Exit(1)


def _check_known(names: list[str], known: set[str], suite: str) -> None:
    from align_bench.errors import SuiteError, nearest

    for name in names:
        if name not in known:
            raise SuiteError(f"the suite {suite} has no method {name!r}. {nearest(name, known, what='method')}")


def _check_stored(report: dict[str, Any], names: list[str]) -> None:
    from align_bench.errors import MissingResultError

    done = {result["algorithm"] for result in report["results"] if result["status"] == "done"}
    for name in names:
        if name not in done:
            raise MissingResultError(f"no result of {name} is stored", fix="leave --stored out to compute it")


def _pair(item: str, option: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise typer.BadParameter(f"{item!r}: expected STANDARD=NAME", param_hint=option)
    return key, value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
