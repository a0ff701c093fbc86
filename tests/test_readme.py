"""What the README shows is what there is."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from align_bench.plugins.registry import load_registry
from align_bench.records import OWN_SETTINGS
from align_bench.report.export import read_report
from align_bench.report.render.screen import last_screen
from align_bench.suite.load import load_suite, packaged_suites

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
SUITES = {"README.md": README, "quick-start.md": (DOCS / "quick-start.md").read_text(encoding="utf-8")}
PLUGINS = {"README.md": README, "your-method.md": (DOCS / "your-method.md").read_text(encoding="utf-8")}
SCREEN = (DOCS / "reading-a-report.md").read_text(encoding="utf-8")


def block(language: str, page: str, number: int = 0) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    return blocks[number]


def test_the_readme_fits_on_two_screens() -> None:
    assert README.count("\n") <= 120


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^(pip install tox && tox)\b", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", SUITES.values(), ids=SUITES)
def test_the_suite_shown_is_valid(tmp_path: Path, page: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml", page), encoding="utf-8")
    suite = load_suite(str(path))
    assert suite.name == yaml.safe_load(block("yaml", page))["name"]
    for method in suite.methods:
        load_registry().with_sums([method])[method.name].algorithm.resolve(
            {key: values[0] for key, values in method.grid.items() if key not in ("learning_rate", *OWN_SETTINGS)}
        )


def test_the_tune_shown_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml", SUITES["quick-start.md"]).replace("# tune:", "tune:"), encoding="utf-8")
    tune = load_suite(str(path)).tune
    assert tune is not None
    assert tune.trials == 8


@pytest.mark.parametrize("page", PLUGINS.values(), ids=PLUGINS)
def test_the_plugin_shown_is_the_built_in_loss(tmp_path: Path, page: str) -> None:
    import torch

    from align_bench.api import OfflineAlgorithm, ReferencedPairLogps

    plugin = tmp_path / "my_dpo.py"
    plugin.write_text(block("python", page), encoding="utf-8")
    registry = load_registry(extra=[str(plugin)])
    batch = ReferencedPairLogps(*torch.tensor([[-1.0], [-2.0], [3.0], [4.0], [-1.5], [-1.0]]))
    ours, theirs = registry["my_dpo"].algorithm, registry["dpo"].algorithm
    assert isinstance(ours, OfflineAlgorithm)
    assert isinstance(theirs, OfflineAlgorithm)
    assert torch.equal(ours(batch).values, theirs(batch).values)


def test_every_packaged_suite_and_command_is_named() -> None:
    from align_bench.cli.main import app

    for name in packaged_suites():
        assert f"| `{name}` |" in SUITES["quick-start.md"]
    commands = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"## `{command.callback.__name__}`\n" in commands


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")
@pytest.mark.parametrize("suite", packaged_suites())
def test_a_run_leaves_the_checkout_clean(suite: str) -> None:
    written = [f"reports/{suite}/report.json", "reports/runs.html", "reports/compare.html", f"runs/{suite}/x"]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *written], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.split() == written


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_screen_shown_is_the_published_reports() -> None:
    published = read_report(ROOT / "reports" / "published" / "assignment")
    console = Console(file=io.StringIO(), width=80, color_system=None)
    for line in last_screen(published, "reports/assignment/report.html", console):
        console.print(line)
    assert isinstance(console.file, io.StringIO)
    assert block("text", SCREEN) == console.file.getvalue()


def test_the_tables_shown_are_the_published_reports() -> None:
    report = (ROOT / "reports" / "published" / "assignment" / "report.md").read_text(encoding="utf-8")
    published = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in report.splitlines()}
    shown = [tuple(line.split()) for line in block("text", SCREEN).splitlines() if re.match(r" \w+  +-?\d", line)]
    assert len(shown) == 6
    for name, *figures in shown:
        rows = [set(" ".join(row).split()) for row in published if row[0] == name]
        assert any(set(figures) <= row for row in rows), name
