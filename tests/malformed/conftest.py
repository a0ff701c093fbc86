"""The program, run in this process on what is malformed."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align_bench.cli import main as program
from align_bench.cli.app import console, errors

Refused = Callable[..., str]
SLOWEST = 10  # seconds of a core, for any one case


def align_bench(*arguments: object) -> tuple[int, str]:
    """Run the program; an error that it does not handle fails the test.

    Args:
        arguments: of the command line.

    Returns:
        The exit code, and all that was shown.
    """
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["align-bench", *map(str, arguments)])
        patch.setattr(console, "_width", 400)
        patch.setattr(errors, "_width", 400)
        patch.setenv("COLUMNS", "400")
        code: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                program.main()
            except SystemExit as end:
                code = end.code
    return int(str(code or 0)), out.getvalue()


@pytest.fixture
def refused() -> Refused:
    """Runs the program, which has to refuse its arguments as the user's mistake; returns what it said."""

    def run(*arguments: object) -> str:
        started = time.process_time()
        code, said = align_bench(*arguments)
        assert code == 2, said
        assert "Traceback" not in said
        assert time.process_time() - started < SLOWEST
        assert len(said) < 6000, "the message is too long to read"
        assert all(letter.isprintable() or letter in "\n " for letter in said), "a terminal would obey it"
        return said

    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every case runs in a folder of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder
