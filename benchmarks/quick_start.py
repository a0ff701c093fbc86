"""Measure what commands cost that compute nothing: processor seconds, user and system, the best of three.

They run in a fresh folder. The last one repeats a run whose results are stored, so that it has only to find that
nothing is left to do. Processor seconds, not those of the wall: other work on the machine changes them least.

Example:
    python benchmarks/quick_start.py --out benchmarks/results/quick_start.md
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_bench.runner.environment import environment
from align_bench.store.files import make_folder, write_atomically

CODE = "from align_bench.cli.main import main; main()"
# A small part of the packaged suite, all of its methods: made once before it is measured.
SETTINGS = (
    "data.train.rows=64",
    "data.val={path: embedded/planted, rows: 64}",
    "judge={method: rm, data: {path: embedded/planted, rows: 64}}",
    "generate.prompts=16",
    "generate.max_new_tokens=8",
    "audit.pairs=16",
)
STORED = ("run", "assignment", *(part for setting in SETTINGS for part in ("--set", setting)))
COMMANDS: dict[str, Sequence[str]] = {
    "--help": ("--help",),
    "algorithms": ("algorithms",),
    "show dpo": ("show", "dpo"),
    "plan assignment": ("plan", "assignment", "--runs", "none"),
    "run assignment, all stored": STORED,
}


@dataclass(frozen=True)
class Measured:
    """Processor seconds of a command.

    Attributes:
        command: the command, as it is shown.
        seconds: user and system, one number a repetition.
    """

    command: str
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least of them: other work on a machine only adds."""
        return min(self.seconds)


def processor_seconds(arguments: Sequence[str], folder: Path) -> float:
    """User and system seconds of a command and of all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, repetitions: int) -> list[Measured]:
    """Every command, in turn, so that a busy moment is not one command's alone."""
    processor_seconds(STORED, folder)
    seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(repetitions):
        for command, arguments in COMMANDS.items():
            seconds[command].append(processor_seconds(arguments, folder))
    return [Measured(command, tuple(found)) for command, found in seconds.items()]


def table(measured: Sequence[Measured]) -> str:
    """The results in Markdown."""
    lines = ["| `align-bench …` | processor seconds, best | all |", "|:---|---:|:---|"]
    for one in measured:
        every = ", ".join(f"{seconds:.2f}" for seconds in one.seconds)
        lines.append(f"| `{one.command}` | {one.best:.2f} | {every} |")
    return "\n".join(lines) + "\n"


def page(measured: Sequence[Measured], command: str) -> str:
    """The table, with what made it."""
    about = environment()
    made = f"Made by `{command}`, with the code of commit {about.commit}, on {about.processor}"
    stored = " ".join(f"--set '{setting}'" for setting in SETTINGS)
    return (
        "# What commands cost that compute nothing\n\n"
        f"{made}, Python {about.python}, {about.system}. User and system seconds of the whole process.\n\n"
        f"{table(measured)}\nThe last one is `run assignment {stored}`, a second time.\n"
    )


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments.repetitions)
    text = page(measured, f"python benchmarks/quick_start.py {' '.join(sys.argv[1:])}".strip())
    if arguments.out:
        make_folder(arguments.out.parent)
        write_atomically(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
