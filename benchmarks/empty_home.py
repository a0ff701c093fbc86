"""A home folder and a Python environment of their own, as somebody has them who sees the project for the first time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# What decides where pip finds packages, through which proxy, and how many threads compute; nothing else is passed on.
KEPT = (
    "PIP_",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "HF_HUB_OFFLINE",
    "OMP_",
)
LAST_WORDS = 2_000  # characters of a failed command's output that are kept


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code.
        seconds: on the clock.
        output: what it printed on both streams.
    """

    code: int
    seconds: float
    output: str

    @property
    def last_words(self) -> str:
        """The end of its output."""
        return self.output[-LAST_WORDS:]


@dataclass(frozen=True)
class Home:
    """An empty home, with an environment in it.

    Attributes:
        folder: what holds both.
    """

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Home:
        """Make the home and the environment in a folder that is empty or not there."""
        home = cls(folder)
        (folder / "home").mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        return home

    def environment(self) -> dict[str, str]:
        """The variables that commands see."""
        kept = {name: value for name, value in os.environ.items() if name.upper().startswith(KEPT)}
        path = os.pathsep.join([str(self.folder / "venv" / "bin"), "/usr/local/bin", "/usr/bin", "/bin"])
        return {**kept, "PATH": path, "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}

    def run(self, line: str, at: Path) -> Done:
        """Run a line of shell in a folder."""
        start = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=at,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return Done(done.returncode, time.perf_counter() - start, done.stdout)
