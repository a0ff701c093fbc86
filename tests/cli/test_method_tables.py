"""What `algorithms` and `show` print."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Gt
from rich.console import Console, RenderableType

from align_bench.api import Job, Loss, ReferencedPairLogps, algorithm, recipe
from align_bench.api.docstrings import elsewhere, held_equal
from align_bench.cli.method_tables import algorithms_table, method_page
from align_bench.plugins.registry import Broken, Plugin, Registry, load_registry


@algorithm(paper="[link=https://x.example]arXiv[/link]", learning_rate=2e-5, reward="β·ρ")
def hostile(
    logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0)] = 0.1, mode: str = "[/red]", flag: bool = False
) -> Loss:
    """A [bold]loud[/bold] summary with a stray [/] in it.

    Equation:
        y = [red]x[/red]

    Args:
        logps: the batch.
        beta: one of [b]many[/b].
            It goes on.

        mode: anything.

    Returns:
        A loss.

    Source:
        Nobody.
    """
    raise NotImplementedError


PLUGIN = Plugin(hostile, Path("/somewhere/[red]/mine[/].py"), "option", "digest")


def shown(*renderables: RenderableType) -> str:
    """The text that a wide terminal would show."""
    text = io.StringIO()
    console = Console(file=text, width=400)
    for renderable in renderables:
        console.print(renderable)
    return text.getvalue()


def line(text: str, start: str) -> str:
    """The table row that begins with a word."""
    (found,) = [each for each in text.splitlines() if each.strip(" │┃").startswith(start)]
    return found


def row_of(text: str, name: str) -> str:
    """All lines of a method's row."""
    lines = text.splitlines()
    (start,) = [place for place, each in enumerate(lines) if each.startswith(f"  {name} ")]
    rest = lines[start + 1 :]
    own = next(place for place, each in enumerate(rest) if not each.strip() or not each.startswith("    "))
    return " ".join("\n".join([lines[start], *rest[:own]]).split())


def test_every_method_is_a_row_of_its_family() -> None:
    registry = load_registry()
    text = shown(*algorithms_table(registry))
    assert f"{len(registry.plugins)} methods" in text
    assert len(registry.plugins) >= 45
    families: dict[str, int] = {}
    for name, plugin in registry.plugins.items():
        algorithm, row = plugin.algorithm, row_of(text, name)
        families[algorithm.family] = families.get(algorithm.family, 0) + 1
        assert algorithm.summary.partition(":")[0] in row
        assert algorithm.paper in row
        assert held_equal(algorithm.doc) in row
        for place in elsewhere(algorithm.doc).split("; "):
            assert place in row
    for family, count in families.items():
        assert f"{family} ({count})" in text


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("rm", " pairs, scalar head; reference: no "),
        ("dpo", " pairs; reference: yes "),
        ("kto", " single answers, with mismatched answers; reference: yes "),
        ("simpo", " pairs; reference: no "),
        ("odpo", " pairs, with a margin; reference: yes "),
        ("aot", " pairs, with the whole batch; reference: yes "),
    ],
)
def test_row_tells_what_a_method_needs(name: str, facts: str) -> None:
    assert facts in row_of(shown(*algorithms_table(load_registry())), name)


def test_where_else_a_method_exists_and_what_it_is_held_equal_to_is_read_from_its_source() -> None:
    doc = (
        "One line.\n\nSource:\n    A paper.\n\n    In TRL: XTrainer with\n    `a: b`, the same loss. Tests hold both\n"
    )
    doc += "    equal in value.\n\n    Also in OpenRLHF, others.\n\nDiffers from the source:\n    In TRL: nothing.\n"
    assert (elsewhere(doc), held_equal(doc)) == ("TRL: XTrainer with `a: b`; OpenRLHF, others", "TRL, in value")
    assert (elsewhere("No sections."), held_equal("No sections.")) == ("", "")
    assert held_equal("Source:\n    A paper. Tests hold it to its equation.") == "its equation"


def test_text_of_plugins_is_shown_and_not_obeyed() -> None:
    broken = Broken("[blink]x", Path("/some/[red]path[/].py"), "ValueError: closing [/nothing] and [bold]")
    text = shown(*algorithms_table(Registry({"hostile": PLUGIN}, (broken,))))
    for said in (hostile.summary, hostile.paper, str(PLUGIN.path), "[blink]x", str(broken.path), broken.reason):
        assert said in text


def test_broken_files_come_last_with_their_reason() -> None:
    broken = Broken("aaa", Path("/x/aaa.py"), "RuntimeError: no luck")
    rows = shown(*algorithms_table(Registry({"hostile": PLUGIN}, (broken,)))).splitlines()
    places = {name: next(place for place, row in enumerate(rows) if name in row) for name in ("hostile", "aaa")}
    assert places["hostile"] < places["aaa"]
    assert "/x/aaa.py" in rows[places["aaa"]]
    assert "RuntimeError: no luck" in rows[places["aaa"]]


def test_origin_of_a_foreign_method_is_its_file() -> None:
    row = row_of(shown(*algorithms_table(Registry({"hostile": PLUGIN}))), "hostile")
    assert f"option: {PLUGIN.path}" in row


def test_page_shows_docstring_and_parameters() -> None:
    text = shown(*method_page(PLUGIN))
    assert hostile.summary in text
    assert "y = [red]x[/red]" in text
    assert "Source:" in text
    assert "Nobody." in text
    assert "reads reference log-probabilities" in text
    assert "its reward: β·ρ" in text
    assert "> 0" in line(text, "beta")
    assert "0.1" in line(text, "beta")
    assert "one of [b]many[/b]." in line(text, "beta")
    assert "[/red]" in line(text, "mode")
    assert "False" in line(text, "flag")
    assert "any" in line(text, "flag").split("│")[4]


def test_page_shows_the_learning_rate_as_a_parameter() -> None:
    row = line(shown(*method_page(PLUGIN)), "learning_rate")
    assert "2e-05" in row
    assert "> 0" in row
    assert "none declared" in row


def test_page_leaves_out_the_arguments_that_the_table_shows() -> None:
    text = shown(*method_page(PLUGIN))
    assert "Args:" not in text
    assert text.count("It goes on.") == 1
    assert "Returns:" in text, "what follows the arguments stays"
    assert text.count("one of [b]many[/b].") == 1


def test_a_recipe_says_who_trains() -> None:
    @recipe(data="unpaired", paper="arXiv:0", learning_rate=1e-3, libraries=["foreign"])
    def taken(job: Job) -> None:
        """Takes the whole training."""

    plugin = replace(PLUGIN, algorithm=taken)
    assert "takes the whole training with foreign" in shown(*method_page(plugin))
    text = shown(*algorithms_table(Registry({"taken": plugin})))
    assert "Trainings of other libraries (1)" in text
    assert " single answers; reference: its own " in row_of(text, "taken")


def test_page_of_a_method_without_sections() -> None:
    plain = replace(PLUGIN, algorithm=replace(hostile, doc="One line.", reference=False, parameters={}))
    text = shown(*method_page(plain))
    assert "One line." in text
    assert "reads no reference" in text


@pytest.mark.parametrize("name", sorted(load_registry().plugins))
def test_page_of_every_built_in_method(name: str) -> None:
    plugin = load_registry()[name]
    text = shown(*method_page(plugin))
    assert "Equation:" in text
    assert "Differs from " in text
    if plugin.algorithm.learning_rate is not None:
        assert str(plugin.algorithm.learning_rate_range) in line(text, "learning_rate")
    for parameter in plugin.algorithm.parameters.values():
        row = line(text, f"{parameter.name} ")
        assert parameter.bounds in row
        assert str(parameter.range or "none declared") in row
        assert parameter.description in row


@pytest.mark.parametrize(
    ("method", "meaning", "with_reference"),
    [
        ("rm", "trained on", False),
        ("best_of_n", "picked among", False),
        ("simpo", "trained on", False),
        ("dpo", "trained on", True),
    ],
)
def test_every_method_has_a_start(method: str, meaning: str, with_reference: bool) -> None:
    text = shown(*method_page(load_registry()[method]))
    assert meaning in line(text, "start_from")
    assert ("reference_policy" in text) == with_reference
