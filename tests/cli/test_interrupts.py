"""A run that is interrupted says where it stopped and how to go on, and the next one what it found."""

from __future__ import annotations

import io
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

from align_bench.cli import interrupts
from align_bench.cli.progress import progress_bars


def test_a_terminated_run_goes_on_where_it_stopped(write_suite: Callable[..., Path], tmp_path: Path) -> None:
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
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        assert run.stderr is not None
        found = next(line for line in run.stderr if "results are stored" in line)
        run.kill()
    assert " of " in found
    assert "the rest takes about" in found


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
