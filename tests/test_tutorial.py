"""The tutorial in algorithms/README.md, from the first block to the last, in an empty folder."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from align_bench.cli.app import console
from align_bench.cli.main import main
from align_bench.plugins.registry import load_file
from align_bench.suite.load import builtin_folder
from align_bench.testing import SECTIONS, check_algorithm

pytestmark = pytest.mark.usefixtures("few_figures")

PAGE = builtin_folder("algorithms") / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
# The page's suite on a smaller model and fewer rows.
SMALL = [
    *("data.train.rows=16", "data.val.rows=8", "judge.data.rows=16", "train.max_length=128"),
    "generate={prompts: 4, max_new_tokens: 3}",
]


def run_line(line: str, base: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one line of a `sh` block in the current folder; returns what it printed."""
    command, _, comment = line.partition(" #")
    program, *arguments = shlex.split(command)
    if program == "pytest":
        for name, test in runpy.run_path(arguments[0]).items():
            if name.startswith("test_"):
                test()
        return ""
    assert program == "align-bench"
    if any(argument.endswith(".yaml") for argument in arguments):
        arguments += [item for override in (f"base={base}", *SMALL) for item in ("--set", override)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        patch.setattr(console, "_width", 300)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    printed = capsys.readouterr()
    assert code == int("exit code 1" in comment), f"{line}\n{printed.out}{printed.err}"
    return printed.out


def test_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed: dict[str, str] = {}
    for language, block in BLOCKS:
        if language in ("python", "yaml"):
            (name,) = re.findall(r"^# (\S+)\n", block.partition("\n")[0] + "\n")
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(block, encoding="utf-8")
        elif language == "sh":
            for line in block.splitlines():
                printed[line.partition(" #")[0].strip()] = run_line(line, base_folder, capsys)
    assert set(map(first_two, printed)) >= {("align-bench", name) for name in ("new", "check", "run", "compare")}
    comparison = " ".join(printed["align-bench compare dpo my_hinge mine.yaml --plugin algorithms"].split())
    assert "dpo" in comparison
    assert "my_hinge" in comparison


def first_two(line: str) -> tuple[str, ...]:
    return tuple(line.split()[:2])


def test_failing_check_is_shown_as_it_is(tmp_path: Path) -> None:
    (plugin,) = (block for language, block in BLOCKS if language == "python" and "def my_hinge" in block)
    (shown,) = (block for language, block in BLOCKS if language == "text")
    sound, swapped = "(1 - (chosen - rejected))", "(1 - (rejected - chosen))"
    assert sound in plugin
    assert f"`{swapped[1:-1]}`" in TEXT
    path = tmp_path / "my_hinge.py"
    path.write_text(plugin.replace(sound, swapped), encoding="utf-8")
    (failed,) = check_algorithm(load_file(path)[0].algorithm).having("failed")
    said = f"{failed.name} failed {failed.expected} {failed.found} → {failed.hint}"
    assert " ".join(shown.split()) == said.partition(";")[0]


def test_every_check_is_explained() -> None:
    (plugin,) = load_file(PAGE.parent / "dpo.py")
    rows = re.findall(r"^\| ([A-Za-z ]+) \| ", TEXT, re.MULTILINE)
    assert [row for row in rows if row != "check"] == [check.name for check in check_algorithm(plugin.algorithm).checks]
    assert all(f"`{section}`" in TEXT for section in SECTIONS if section != "Args")


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_lead_somewhere(target: str) -> None:
    assert (Path(__file__).parents[1] / "algorithms" / target).exists()
