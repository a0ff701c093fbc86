"""Sides that benchmarks hold against each other can be copies of a process that has loaded the libraries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkServerContext
from types import SimpleNamespace
from typing import IO

import pytest

# What `python SCRIPT …` does, with its standard streams in place and the libraries loaded.
SCRIPT = """
import os, runpy, sys
import torch

for place, stream in enumerate(streams):
    os.dup2(stream.fileno(), place)
sys.stdin = open(0, closefd=False)
os.environ.update(variables)
sys.argv = words
sys.path.insert(0, os.path.dirname(words[0]))
torch.set_num_threads(1)
runpy.run_path(words[0], run_name="__main__")
"""


class Copy:
    """What a side uses of `subprocess.Popen`."""

    def __init__(
        self,
        copies: ForkServerContext,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: IO[str],
        text: bool,
        env: Mapping[str, str],
    ) -> None:
        assert text
        assert (stdin, stdout) == (subprocess.PIPE, subprocess.PIPE)
        its_in, ours_in = Pipe(duplex=False)
        ours_out, its_out = Pipe(duplex=False)
        streams = (its_in, its_out, Connection(os.dup(stderr.fileno())))
        known = {"words": command[1:], "variables": dict(env), "streams": streams}
        self._process = copies.Process(target=exec, args=(SCRIPT, known))
        self._process.start()
        for stream in streams:
            stream.close()
        self.stdin, self.stdout = (
            os.fdopen(os.dup(ours_in.fileno()), "w"),
            os.fdopen(os.dup(ours_out.fileno()), encoding="utf-8"),
        )
        ours_in.close()
        ours_out.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a copy", timeout or 0.0)

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture
def sides_are_copies(copies: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """`vs_trl.side` starts copies; that it starts a script alone is tested in test_vs_trl_sides."""
    instead = SimpleNamespace(
        Popen=partial(Copy, copies), PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
    monkeypatch.setattr("vs_trl.subprocess", instead)
