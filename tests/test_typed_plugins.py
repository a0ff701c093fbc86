"""`mypy --strict` finds nothing in the project or in any method, printed or shipped, and what is wrong in a plugin."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from align_bench.plugins.registry import load_registry
from align_bench.plugins.template import write_template
from align_bench.train.feeds import FEEDS

ROOT = Path(__file__).parents[1]
HEAD = """\
from torch import Tensor

from align_bench.api import CriticRollouts, Experience, LengthHeadScores, Loss, PairLogps, PairScores, Rollouts
from align_bench.api import algorithm


"""
# What a plugin may get wrong, each with what mypy says of it.
WRONG = {
    "reference": (
        "def wrong(batch: PairLogps) -> Loss:\n    return Loss(batch.chosen - batch.ref_chosen)\n",
        "ref_chosen",
    ),
    "scorer": ("def wrong(batch: PairScores) -> Loss:\n    return Loss(batch.length_chosen)\n", "length_chosen"),
    "critic": ("def wrong(batch: Rollouts) -> Loss:\n    return Loss(batch.values.sum(1))\n", "values"),
    "mean": ("def wrong(batch: CriticRollouts) -> Loss:\n    return batch.values.sum(1)\n", 'expected "Loss"'),
    "field": ("def wrong(batch: LengthHeadScores) -> Loss:\n    return Loss(batch.head_cosin.abs())\n", "head_cosine"),
    "loss": (
        "@algorithm(paper='', learning_rate=1e-5, reward='')\n"
        "def wrong(batch: PairLogps) -> Tensor:\n    return batch.chosen\n",
        "Callable[..., Loss]",
    ),
    "experience": ("def wrong(batch: Experience) -> Loss:\n    return Loss(batch.values[:, 0])\n", "values"),
}


def mypy(files: Sequence[Path] = ()) -> str:
    """What `mypy --strict` says of these files, by default of those that pyproject.toml names."""
    options = ["--strict", "--explicit-package-bases", *map(str, files)] if files else []
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def printed(page: Path) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The plugins of three pages and the skeleton of each kind, as files."""
    folder = tmp_path_factory.mktemp("plugins")
    pages = ("README.md", "docs/your-method.md", "algorithms/README.md")
    blocks = [block for page in pages for block in printed(ROOT / page)]
    assert sum("@algorithm(" in block for block in blocks) == 3
    files = [folder / f"printed_{number}.py" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block, encoding="utf-8")
    return files + [write_template(f"my_{data}", data, folder, taken=load_registry()) for data in FEEDS]


def test_the_project_passes_strict_types() -> None:
    assert (said := mypy()).startswith("Success: no issues found"), said


def test_every_method_passes_strict_types(plugins: Sequence[Path]) -> None:
    shipped = sorted((ROOT / "algorithms").glob("*.py"))
    assert len(shipped) > 20
    assert mypy([*shipped, *plugins]).startswith("Success: no issues found")


def test_types_tell_what_a_record_does_not_hold(tmp_path: Path) -> None:
    files = [tmp_path / f"wrong_{name}.py" for name in WRONG]
    for file, (text, _) in zip(files, WRONG.values(), strict=True):
        file.write_text(HEAD + text, encoding="utf-8")
    lines = mypy(files).splitlines()
    for file, (_, said) in zip(files, WRONG.values(), strict=True):
        (line,) = (line for line in lines if file.name in line and "error:" in line)
        assert said in line
