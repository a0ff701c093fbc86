"""What `align-bench algorithms`, `align-bench show` and `align-bench check` print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from align_bench.api import Algorithm, Selection
from align_bench.api.docstrings import elsewhere, held_equal
from align_bench.plugins.methods_page import by_family, data_in_words
from align_bench.plugins.registry import Plugin, Registry
from align_bench.records import OWN_SETTINGS

if TYPE_CHECKING:
    from align_bench.testing import CheckReport, Status  # they import torch, and methods are listed without it


def algorithms_table(registry: Registry) -> Iterator[Table]:
    """A table per family, a row per method; broken files last, with their reason.

    A row says what the method is and reads, its paper, where else it exists, and what tests hold it equal to.
    """
    families = by_family(registry.plugins.values())
    for number, (family, plugins) in enumerate(families.items()):
        total = f"{len(registry.plugins)} methods\n\n" if number == 0 else ""
        table = Table(title=f"{total}{family} ({len(plugins)})", title_justify="left", box=box.SIMPLE_HEAD, leading=1)
        for heading in ("method", "what it is; data; reference; paper", "also in", "held equal to, by tests"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "method")
        for plugin in plugins:
            algorithm = plugin.algorithm
            facts = [
                algorithm.summary.split(":")[0],
                f"{data_in_words(algorithm)}; reference: {algorithm.reference_in_words}",
                algorithm.paper,
                *([] if plugin.origin == "built-in" else [f"{plugin.origin}: {plugin.path}"]),
            ]
            cells = ("\n".join(facts), elsewhere(algorithm.doc).replace("; ", "\n"), held_equal(algorithm.doc))
            table.add_row(escape(algorithm.name), *map(escape, cells))
        yield table
    if registry.broken:
        table = Table(title="files that fail to load", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("file", "reason", "path"):
            table.add_column(heading, overflow="fold")
        for broken in registry.broken:
            table.add_row(
                f"[red]{escape(broken.name)}[/]", f"[red]{escape(broken.reason)}[/]", escape(str(broken.path))
            )
        yield table


def method_page(plugin: Plugin) -> Iterator[RenderableType]:
    """Docstring, hyper-parameters and origin of one method."""
    algorithm = plugin.algorithm
    yield Text(f"{algorithm.name} · {algorithm.paper} · {plugin.origin}: {plugin.path}", style="bold")
    yield Text(_without_args(algorithm.doc))
    table = Table(title="hyper-parameters", title_justify="left")
    for heading in ("name", "type", "default", "bounds", "range", "meaning"):
        table.add_column(heading, overflow="fold")
    if algorithm.learning_rate is not None:
        rates = str(algorithm.learning_rate_range or "none declared")
        meaning = "peak learning rate for LoRA adapters"
        table.add_row("learning_rate", "float", f"{algorithm.learning_rate:g}", "> 0", rates, meaning)
        for setting in OWN_SETTINGS:
            table.add_row(setting, "int", f"train.{setting}", "> 0", "none declared", "in place of the suite's")
    for setting, default, values, meaning in _starts(algorithm):
        table.add_row(setting, "str", default, values, "none declared", meaning)
    for parameter in algorithm.parameters.values():
        default = f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default)
        table.add_row(
            escape(parameter.name),
            parameter.type.__name__,
            escape(default),
            parameter.bounds or "any",
            str(parameter.range or "none declared"),
            escape(parameter.description),
        )
    yield table
    if isinstance(algorithm, Selection):
        bound = algorithm.bound(algorithm.resolve({}))
        yield Text(
            "picks among answers of the base, or of what start_from names; with its defaults, KL to them of at most "
            f"{bound:.3f} nats per prompt"
        )
        return
    yield Text(f"data: {data_in_words(algorithm)}; {algorithm.needs}; its reward: {algorithm.reward}")


def _starts(algorithm: Algorithm) -> Iterator[tuple[str, str, str, str]]:
    """The settings of what a method starts from: name, default, values, meaning."""
    does = "picked among answers of" if isinstance(algorithm, Selection) else "trained on"
    yield "start_from", "base", "a cell or a folder", f"what is {does}: a cell of the suite, an adapter or a model"
    if algorithm.reference:
        yield "reference_policy", "start", "start, base", "the reference, where it starts from another than the base"


_STYLES: dict[Status, str] = {"passed": "green", "failed": "bold red", "not applicable": "dim", "unchecked": "yellow"}


def checks_table(plugin: Plugin, report: CheckReport) -> Table:
    """One row per check: what was expected, what was found, what to do where it failed; unchecked ones come last."""
    given = ", ".join(f"{name}={value}" for name, value in report.parameters.items()) or "no hyper-parameters"
    title = escape(f"{report.method} · {plugin.algorithm.data} · {given}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, leading=1, caption_justify="left")
    for heading in ("check", "result", "expected", "found"):
        table.add_column(heading, overflow="fold")
    for check in report.checks:
        if check.status != "unchecked":
            hint = f"\n[bold]→ {escape(check.hint)}[/]" if check.hint else ""
            table.add_row(check.name, _styled(check.status), check.expected, escape(check.found) + hint)
    if unchecked := report.having("unchecked"):
        table.add_row("the others", _styled("unchecked"), "", escape(unchecked[0].found))
    table.caption = ", ".join(f"{len(found)} {status}" for status in _STYLES if (found := report.having(status)))
    return table


def _styled(status: Status) -> str:
    return f"[{_STYLES[status]}]{'n/a' if status == 'not applicable' else status}[/]"


def _without_args(doc: str) -> str:
    """The docstring without its `Args`, which the table shows."""
    return re.sub(r"\nArgs:\n(?:[ \t]+.*\n|\n)+", "\n", doc + "\n").strip() + "\n"
