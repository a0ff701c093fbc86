"""The command that checks what a run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from align_bench.cli.app import (
    Overrides,
    Plugins,
    Quick,
    Reports,
    Runs,
    SuiteName,
    Trust,
    app,
    console,
    errors,
    prepared_for,
)
from align_bench.report.formatting import one_line


@app.command()
def verify(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    trust: Trust = False,
    quick: Quick = False,
    sample: Annotated[int, typer.Option(help="How many stored results to make once more.", min=0)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the sample.", min=0)] = 0,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Check what a run left: checksums of all stored results, the report from its rows, and a sample made again.

    Changes nothing, except that a damaged result is moved aside, so that the next run makes it again. Exit code 1 when
    something does not hold.

    Example: align-bench verify assignment --sample 5
    """
    from align_bench.cli.progress import progress_bars
    from align_bench.runner.results import Results
    from align_bench.runner.verify import stored_graph
    from align_bench.runner.verify import verify as checks
    from align_bench.store.store import Store

    prepared = prepared_for(suite, overrides, plugin, quick=quick, trust=trust)
    store = Store(runs)
    store.check()
    results = Results(store, read_only=True)
    graph = stored_graph(prepared, results)
    folder = reports / prepared.suite.name
    with progress_bars(errors, {}) as progress:
        found = list(checks(prepared, graph, results, folder, progress, sample=sample, seed=seed))
    table = Table("checked", "", "found")
    for one in found:
        mark = Text("holds", style="green") if one.held else Text("does not hold", style="bold red")
        table.add_row(Text(one_line(one.what)), mark, Text(one_line(one.said)))
    console.print(table)
    if not all(one.held for one in found):
        raise typer.Exit(1)
