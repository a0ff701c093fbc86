"""The command-line application, and what its commands share. Heavy imports wait until a command needs them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from align_bench.cli.terminal import Commands, VisibleConsole
from align_bench.report.formats import Format
from align_bench.report.formatting import one_line, visible
from align_bench.suite.names import TRIED_OUT, TRY_OUT

if TYPE_CHECKING:
    from align_bench.planning.hardware import Hardware
    from align_bench.planning.inputs import Prepared
    from align_bench.plugins.modules import PluginFile
    from align_bench.plugins.registry import Registry
    from align_bench.report.schema import Report

app = typer.Typer(
    name="align-bench",
    cls=Commands,
    epilog="Start with: align-bench run assignment",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = VisibleConsole()
errors = VisibleConsole(stderr=True)

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a packaged suite.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite, such as train.epochs=2."),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE_OR_DIR", help="Also load methods from this file or folder."),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="A try-out: few rows, prompts and trials, reported as NAME-quick. Its numbers mean nothing."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute the plugin files that the suite names, without being asked.")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a suite whose val or test shares a prompt with train or with a judge's rows."
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder for computed results, shared by all suites.")]
Reports = Annotated[Path, typer.Option("--reports", help="Folder for reports.")]
Form = Annotated[
    Format,
    typer.Option(
        "--format", help="Tables for the terminal; or, to pipe elsewhere, json, csv (all digits) or md (Markdown)."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="STANDARD=NAME", help="Map a standard column to the file's own."),
]


def _show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"align-bench {version('align-bench')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compare preference-alignment methods on the same base, rows and judge."""


def registry_for(
    plugins: list[str] | None, suite: str | None = None, named: list[str] | None = None, *, trust: bool = False
) -> Registry:
    """Every method that a command can find: built in, of installed packages, and named; the user is asked for the last.

    Args:
        plugins: what the user named with `--plugin`.
        suite: the suite in use.
        named: what the suite names.
        trust: whether the user agrees beforehand that these are executed.
    """
    from align_bench.plugins.registry import load_registry
    from align_bench.plugins.trust import confirm
    from align_bench.suite.load import find_suite

    asked = ask if sys.stdin.isatty() and sys.stderr.isatty() else None
    folders = [Path.cwd(), *([find_suite(suite).parent] if suite else [])]
    return load_registry(
        named or (),
        plugins or (),
        approve=lambda files: confirm(suite or "", files, trust=trust, ask=asked),
        announce=announce,
        beside=[folder / "algorithms" for folder in folders],
    )


def ask(question: str) -> bool:
    """A question on the terminal; no is the default."""
    return typer.confirm(visible(question), err=True)


def announce(file: PluginFile) -> None:
    """Say which file that is not built in is about to be executed."""
    text = f"plugin {file.place} (sha256 {file.digest[:16]}) is executed"
    errors.print(one_line(text), style="dim", highlight=False, markup=False, soft_wrap=True)


def prepared_for(
    suite: str,
    overrides: list[str] | None,
    plugins: list[str] | None,
    *,
    quick: bool = False,
    trust: bool = False,
    strict: bool = False,
    hardware: Hardware | None = None,
    weights: bool = True,
) -> Prepared:
    """A suite with its methods and all that lies outside it; a mistake in the suite is reported first.

    Its precision is that of the hardware where one is named, else this machine's. Without `weights`, its base may be a
    configuration and a tokenizer alone.
    """
    from align_bench.suite.load import load_suite, packaged_suites

    if (name := suite.removesuffix(TRIED_OUT)) != suite and name in packaged_suites():  # as its report is called
        suite, quick = name, True
    loaded = load_suite(suite, [*(overrides or ()), *(["quick=true"] if quick else [])])
    if loaded.quick:
        errors.print(TRY_OUT, style="bold yellow")
    from align_bench.errors import PluginError
    from align_bench.models.precision import resolve_precision
    from align_bench.planning.inputs import prepare

    registry = registry_for(plugins, suite, loaded.plugins, trust=trust)
    try:
        resolve = hardware.device.precision if hardware else resolve_precision
        prepared = prepare(loaded, registry, resolve, weights=weights)
    except PluginError as error:
        raise PluginError(f"{suite}: methods: {error.message}", fix=error.fix) from None
    if strict:
        from align_bench.planning.strict import refuse_shared_prompts

        refuse_shared_prompts(prepared.inputs.rows)
    return prepared


def command() -> str:
    """What the user typed, with the program's name instead of its path."""
    return shlex.join(["align-bench", *sys.argv[1:]])


def write(text: str) -> None:
    """Text for a pipe; it ends with its own line break."""
    from align_bench.report.files import unicode

    typer.echo(unicode(text), nl=False)


def exit_on_failure(report: Report) -> None:
    """Exit code 1 when a cell failed."""
    if any(result.status == "failed" for result in report.results):
        raise typer.Exit(1)


def pair_of(item: str, option: str) -> tuple[str, str]:
    """The two sides of an option such as `STANDARD=NAME`."""
    key, equals, value = item.partition("=")
    if not equals:
        raise typer.BadParameter(f"{item!r}: expected STANDARD=NAME", param_hint=option)
    return key, value
