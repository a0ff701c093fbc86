"""Consoles and usage errors on which foreign text cannot act: what a terminal would obey is spelled out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typer.core import TyperGroup

from align_bench.report.formatting import visible

_TEXTS = ("message", "option_name", "param_hint")  # attributes of a usage error that may quote the user


class VisibleConsole(Console):
    """A console on which foreign text is shown as it is, and never obeyed; its own control codes stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console.render`; cells of tables and progress bars come through here too."""
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable() or segment.text == "\n"
            yield segment if plain else Segment(visible(segment.text), segment.style)


class Commands(TyperGroup):
    """Commands whose usage errors spell out what a terminal would obey."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.make_context`."""
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:
            _make_visible(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """See `click.Command.invoke`."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            _make_visible(error)
            raise


def _make_visible(error: Exception) -> None:
    """Spell out what a usage error quotes; other errors stay as they are."""
    for name in _TEXTS if hasattr(error, "format_message") else ():
        if isinstance(text := getattr(error, name, None), str):
            setattr(error, name, visible(text))
