"""Names and messages that a terminal would obey are shown, in every place where the program prints them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from align_bench.cli import app as application
from align_bench.cli import terminal
from align_bench.cli.progress import progress_bars
from align_bench.errors import SuiteError
from align_bench.report.formatting import one_line, visible

Refused = Callable[..., str]

# Erase the screen; the window's title; from right to left; an invisible joiner; a bell; C1; backspaces; a surrogate.
HOSTILE = [
    *("\x1b[2J", "\x1b]0;owned\x07", "\u202egnp.exe", "a\u200bb", "\x07", "\x9b2J", "abc\x08\x08\x08", "\x7f"),
    *("\ud800", "\r"),
]


def harmless(text: str) -> bool:
    """Whether a terminal shows the whole text and does nothing else."""
    return all(letter.isprintable() or letter == "\n" for letter in text)


def printed(shown: RenderableType, width: int = 100) -> str:
    """What the program's console writes."""
    out = io.StringIO()
    terminal.VisibleConsole(file=out, width=width).print(shown)
    return out.getvalue()


@pytest.fixture(params=HOSTILE, ids=ascii)
def text(request: pytest.FixtureRequest) -> str:
    """A hostile name."""
    found: str = request.param
    return found


def test_functions_for_text_spell_it_out(text: str) -> None:
    assert harmless(one_line(text))
    assert harmless(visible(text))
    assert visible(f"first\n{text}").startswith("first\n")


def test_every_part_of_a_table_is_harmless(text: str) -> None:
    table = Table(escape(text), title=escape(text), caption=escape(text), show_footer=True)
    table.add_column(Text(text), footer=text)
    table.add_row(escape(text), Text(text, style="bold"))
    assert harmless(printed(table))
    assert harmless(printed(table, width=12))


def framed(text: str) -> RenderableType:
    """A text in a frame, and beside others."""
    return Group(Panel(Text(text), title=escape(text)), Padding(Text(text)), escape(text))


@pytest.mark.parametrize("wrap", [Text, escape, framed])
def test_whatever_is_printed_is_harmless(text: str, wrap: Callable[[str], RenderableType]) -> None:
    assert harmless(printed(wrap(text)))


def test_both_consoles_of_the_program_are_such() -> None:
    assert isinstance(application.console, terminal.VisibleConsole)
    assert isinstance(application.errors, terminal.VisibleConsole)


def test_progress_bars_and_their_lines_are_harmless(text: str) -> None:
    out = io.StringIO()
    console = terminal.VisibleConsole(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with progress_bars(console, {(text, text): 1.0}) as bars:
        bars.log(text)
        with bars.stage(text, text) as update:
            update(1, 2, escape(text))
    shown = out.getvalue()
    spelled = text.encode("unicode_escape").decode("ascii")
    assert spelled in shown
    for harm in ("\x1b[2J", "\x1b]0;", "\u202e", "\u200b", "\x07", "\x9b", "\x08", "\x7f", "\ud800"):
        assert harm not in shown


def test_errors_are_harmless(text: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SuiteError(f"{text}: wrong\nsecond line", fix=f"write {text}")

    monkeypatch.setattr("align_bench.suite.load.load_suite", fails)
    said = refused("plan", "mine.yaml")
    assert "second line" in said
    assert said.count(text.encode("unicode_escape").decode("ascii")) >= 2


USAGE = [
    *(("{}",), ("plan",), ("plan", "--{}"), ("plan", "x", "{}"), ("data", "x", "--rows", "{}")),
    ("data", "x", "--column", "{}"),
]


@pytest.mark.parametrize("arguments", USAGE)
def test_usage_errors_are_harmless(text: str, refused: Refused, arguments: tuple[str, ...]) -> None:
    refused(*(argument.format(text) for argument in arguments))


def test_questions_are_harmless(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(typer, "confirm", lambda question, **_: asked.append(question))
    application.ask(f"{text} names plugin files")
    assert harmless(asked[0])


def test_names_of_files_and_columns_are_harmless(text: str, elsewhere: Path, refused: Refused) -> None:
    (elsewhere / "rows.csv").write_text(f"a{text.replace(chr(0xD800), '')},b\n1,2\n", encoding="utf-8", newline="")
    assert "rows.csv" in refused("data", "rows.csv")
    refused("data", f"{text}.csv")
    refused("data", "rows.csv", "--column", f"prompt={text}")
    refused("plan", f"{text}.yaml")
    refused("show", text)
