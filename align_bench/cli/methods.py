"""Commands on methods: algorithms, show, check, new; and the schema of suites."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from align_bench.cli.app import Plugins, app, console, registry_for
from align_bench.suite.names import BASE_CELL, JUDGE_CELL, RESERVED

NO_METHODS = {
    BASE_CELL: "base is not a method: it is the model that every method starts from, as it was (`base:` of a suite). "
    "`align-bench compare base METHOD` sets its results beside those of a method.",
    JUDGE_CELL: "judge is not a method: it is the reward model that scores every answer (`judge:` of a suite; judge2 "
    "is the second one). `align-bench score FILE --judge SUITE` scores answers of your own with it.",
}


@app.command()
def algorithms(plugin: Plugins = None) -> None:
    """List all available methods by family, and plugin files that fail to load.

    Example: align-bench algorithms --plugin my_method.py
    """
    from align_bench.cli.method_tables import algorithms_table

    for table in algorithms_table(registry_for(plugin)):
        console.print(table)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method, a sum (dpo+sft), or any name that a table prints: parameters and seed are ignored."
        ),
    ],
    plugin: Plugins = None,
) -> None:
    """Show a method: equation, hyper-parameters with their ranges, source.

    Example: align-bench show dpo
    """
    from align_bench.cli.method_tables import method_page

    method = re.split(r"[\[# ]", name)[0]
    if RESERVED.fullmatch(method):
        console.print(NO_METHODS[re.sub(r"\d", "", method)])
        return
    for renderable in method_page(registry_for(plugin).of_terms(method)):
        console.print(renderable)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plugin's Python file.")],
    method: Annotated[
        str | None, typer.Option("--method", metavar="NAME", help="Check only this method of the file.")
    ] = None,
) -> None:
    """Check a plugin's methods against the contract: values, gradients, extremes, batches, documentation.

    Takes seconds. Exit code 1 when a check fails.

    Example: align-bench check algorithms/dpo.py
    """
    from align_bench.cli.method_tables import checks_table
    from align_bench.errors import PluginError, nearest
    from align_bench.plugins.registry import load_file
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="The method's name in suites, such as my_dpo.")],
    data: Annotated[
        str, typer.Option(metavar="KIND", help="What its loss reads: pairs, chosen, unpaired or scores.")
    ] = "pairs",
    folder: Annotated[Path, typer.Option(help="Folder for the file.")] = Path("algorithms"),
) -> None:
    """Write the skeleton of a plugin; you fill in its loss.

    Example: align-bench new my_dpo --data pairs
    """
    from align_bench.plugins.template import write_template
    from align_bench.suite.load import builtin_folder

    path = write_template(name, data, folder, taken=registry_for(None))
    ours = path.parent.resolve() == builtin_folder("algorithms").resolve()
    named = "" if ours else f". Runs are told of it by --plugin {escape(str(path))}"
    console.print(
        f"{escape(str(path))}: write the loss in it, then run: align-bench check {escape(str(path))}{named}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def schema(
    report: Annotated[bool, typer.Option("--report", help="Print the schema of report.json instead.")] = False,
) -> None:
    """Print the JSON schema of suite files, for editors, or of report.json, for programs that read reports.

    Example: align-bench schema > suite.schema.json
    """
    if report:
        from align_bench.report.schema import Report

        typer.echo(json.dumps(Report.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False))
        return
    from align_bench.suite.load import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
