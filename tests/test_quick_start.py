"""What computes nothing loads nothing that computes: it would take longer than all the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.progress import NoProgress
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite

pytestmark = pytest.mark.usefixtures("few_figures")

HEAVY = (
    "torch",
    "transformers",
    "scipy",
    "datasets",
    "peft",
    "trl",
    "accelerate",
    "sklearn",
    "statsmodels",
    "matplotlib",
)
# What nothing needs before the first step of a training in fp32: what reads tables, fits, draws, and compiles.
LATER = (
    "datasets",
    "matplotlib",
    "pandas",
    "sklearn",
    "statsmodels",
    "torch._inductor.compile_fx",
    "trl",
)
STEP = """
import sys
from contextlib import contextmanager
from pathlib import Path
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite

class Reached(BaseException):
    pass

class UntilFirstStep:
    @contextmanager
    def stage(self, cell, label):
        def update(done, total, note=""):
            if label == "train":
                raise Reached
        yield update
    def log(self, text):
        pass

try:
    run(prepare(load_suite({suite!r}), load_registry()), UntilFirstStep(), Folders(), command="x")
except Reached:
    print("loaded:", *[name for name in {names!r} if name in sys.modules])
"""
PLANNED = ["transformers", "scipy"]  # rows are tokenised, without torch, and the power of seeds is computed
CODE = """
import sys
from align_bench.cli.main import main

try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("loaded:", *[name for name in {names!r} if name in sys.modules], file=sys.stderr)
"""


def called(*arguments: str, folder: Path, names: tuple[str, ...] = HEAVY) -> tuple[str, list[str]]:
    """What a command prints, and which of these packages it has loaded."""
    code = CODE.format(names=names)
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("loaded:")
    return done.stdout, last.split()[1:]


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--help"], "Compare preference-alignment methods"),
        (["algorithms"], "simpo"),
        (["show", "dpo"], "beta"),
        (["plan", "assignment"], "cells on embedded/tiny"),
        (["runs"], ""),
        (["clean"], "nothing to delete"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_computes_nothing(tmp_path: Path, arguments: list[str], printed: str) -> None:
    shown, loaded = called(*arguments, folder=tmp_path)
    assert printed in shown
    assert loaded == (PLANNED if arguments[0] == "plan" else [])


def test_a_run_of_what_is_finished(tmp_path: Path, small_suite: dict[str, Any]) -> None:
    generate = {"prompts": 2, "max_new_tokens": 2}
    small = {**small_suite, "judge": None, "methods": ["rm", "dpo"], "generate": generate}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small), encoding="utf-8")
    prepared = prepare(load_suite(str(path)), load_registry())
    run(prepared, NoProgress(), Folders(tmp_path / "runs", tmp_path / "reports"), command="align-bench run small.yaml")
    for arguments in (["run", str(path)], ["plan", str(path)]):
        shown, loaded = called(*arguments, folder=tmp_path)
        assert "dpo" in shown
        assert loaded == (PLANNED if arguments[0] == "plan" else [])


def test_a_run_until_its_first_step(tmp_path: Path, small_suite: dict[str, Any]) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, "judge": None, "methods": ["rm"]}), encoding="utf-8")
    code = STEP.format(suite=str(path), names=(*LATER, "peft"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded:", "peft"], done.stderr


def test_the_search_finds_what_is_loaded(tmp_path: Path) -> None:
    _, loaded = called("--help", folder=tmp_path, names=("typer", "torch"))
    assert loaded == ["typer"]
