"""A run that is interrupted says where it stopped and how to go on, and the next one what it found."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from align_bench.cli import interrupts, run
from align_bench.cli.main import app
from align_bench.cli.progress import progress_bars
from tests.commands import StartCommand


def test_a_terminated_run_goes_on_where_it_stopped(
    write_suite: Callable[..., Path], tmp_path: Path, start_command: StartCommand
) -> None:
    long = {"batch_size": 8, "max_length": 128, "epochs": 2000}
    suite = write_suite(methods=["rm"], train=long)
    command = [sys.executable, "-m", "align_bench", "run", str(suite)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        assert run.stderr is not None
        assert any("parameters" in line for line in run.stderr)  # the base is loaded, and training comes
        time.sleep(1)
        run.send_signal(signal.SIGTERM)
        said = run.stderr.read()
    assert run.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert re.search(r"^terminated in (judge|rm): train", said, re.MULTILINE), said
    assert f"go on where it stopped: align-bench run {suite}" in said
    again = start_command("run", str(suite), cwd=tmp_path)
    while not (found := [line for line in again.said.splitlines() if "results are stored" in line]):
        assert again.running(), again.said
        time.sleep(0.05)
    assert " of " in found[0]
    assert "the rest takes about" in found[0]


def test_an_interrupt_between_stages_says_after_which(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(interrupts, "errors", Console(file=errors, width=200))
    monkeypatch.setattr(sys, "argv", ["align-bench", "run", "mine.yaml"])
    handler = signal.getsignal(signal.SIGTERM)

    def interrupted() -> None:
        with progress_bars(Console(file=io.StringIO(), width=80), {}) as progress:
            with progress.stage("[b]dpo", "train") as update:
                update(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        interrupted()
    assert ended.value.exit_code == 130
    assert errors.getvalue() == ("interrupted after [b]dpo: train\ngo on where it stopped: align-bench run mine.yaml\n")
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(("interrupt", "code"), [(KeyboardInterrupt, 130), (interrupts.Terminated, 143)])
def test_an_interrupt_before_the_first_stage_is_said(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[KeyboardInterrupt], code: int
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(interrupts, "errors", Console(file=errors, width=200))
    monkeypatch.setattr(sys, "argv", ["align-bench", "run", "assignment"])

    def interrupted(*given: object, **named: object) -> None:
        raise interrupt

    monkeypatch.setattr(run, "prepared_for", interrupted)
    assert CliRunner().invoke(app, ["run", "assignment"]).exit_code == code
    assert errors.getvalue().endswith(" outside of any stage\ngo on where it stopped: align-bench run assignment\n")


def test_an_interrupt_while_modules_are_loaded_leaves_no_traceback() -> None:
    loading = (
        "import sys, types\n"
        "def absent(name): raise KeyboardInterrupt\n"
        "module = types.ModuleType('align_bench.cli.main')\n"
        "module.__getattr__ = absent\n"
        "sys.modules['align_bench.cli.main'] = module\n"
        "from align_bench.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def assert_said(monkeypatch: pytest.MonkeyPatch, number: int, interrupted: Callable[[], object]) -> None:
    """The signal that comes while this runs ends it, and is said."""
    errors = io.StringIO()
    monkeypatch.setattr(interrupts, "errors", Console(file=errors, width=200))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    @interrupts.interrupts_said(lambda: "here")
    def heard() -> None:
        interrupted()
        time.sleep(5)
        raise AssertionError("the interrupt was lost")

    try:
        with pytest.raises(typer.Exit) as ended:
            heard()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.exit_code == 128 + number
    assert " here\n" in errors.getvalue()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_an_import_would_swallow_comes_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    sends = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\n    passed = True\n"
    sends += "except BaseException:\n    passed = False\n"
    (tmp_path / "swallows.py").write_text(sends)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("swallows", None)
    assert_said(monkeypatch, number, lambda: importlib.import_module("swallows"))
    assert sys.modules["swallows"].passed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_garbage_collection_swallows_comes_again(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Freed:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0)

    def interrupted() -> None:
        Freed()

    hook = sys.unraisablehook
    assert_said(monkeypatch, number, interrupted)
    assert sys.unraisablehook is hook
