"""Measure what commands cost that compute nothing, and how soon a run trains: the best of three.

Commands run in a fresh folder. The last one repeats a run whose results are stored, so that it has only to find that
nothing is left to do. Processor seconds, user and system, not those of the wall: other work on the machine changes them
least. Of a cold start (a run of the packaged suite in an empty folder, through the first optimizer step of its first
training) both are measured.

Example:
    python benchmarks/quick_start.py --out benchmarks/results/quick_start.md
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
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
COLD = ("run", "assignment")
LOOKS_EVERY = 0.02  # seconds
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


@dataclass(frozen=True)
class ColdStart:
    """A run from its command to the first optimizer step of its first training.

    Attributes:
        processor: seconds, user and system, of the whole process.
        wall: seconds on the clock.
    """

    processor: float
    wall: float


def cold_start() -> ColdStart:
    """Start a run in an empty folder, and end it as soon as it reports a step."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "events.jsonl")
        run = subprocess.Popen(
            [sys.executable, "-c", CODE, *COLD, "--json-log", str(log)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while (stepped := _first_step(log)) is None:
                if run.poll() is not None:
                    raise SystemExit(f"{' '.join(COLD)} ended with {run.returncode} before its first step")
                time.sleep(LOOKS_EVERY)
        finally:
            run.kill()
            run.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ColdStart(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, stepped - began)


def _first_step(log: Path) -> float | None:
    """When the first step was reported, in seconds since 1970."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
    steps = (event for event in map(json.loads, lines) if event["event"] == "progress" and event["stage"] == "train")
    return next((float(event["time"]) for event in steps), None)


def cold_table(starts: Sequence[ColdStart]) -> str:
    """The cold starts in Markdown."""
    lines = ["| seconds to the first training step | best | all |", "|:---|---:|:---|"]
    for name in ("processor", "wall"):
        seconds = [getattr(start, name) for start in starts]
        lines.append(f"| {name} | {min(seconds):.2f} | {', '.join(f'{each:.2f}' for each in seconds)} |")
    return "\n".join(lines) + "\n"


def table(measured: Sequence[Measured]) -> str:
    """The results in Markdown."""
    lines = ["| `align-bench …` | processor seconds, best | all |", "|:---|---:|:---|"]
    for one in measured:
        every = ", ".join(f"{seconds:.2f}" for seconds in one.seconds)
        lines.append(f"| `{one.command}` | {one.best:.2f} | {every} |")
    return "\n".join(lines) + "\n"


def page(measured: Sequence[Measured], starts: Sequence[ColdStart], command: str) -> str:
    """The tables, with what made them."""
    about = environment()
    made = f"Made by `{command}`, with the code of commit {about.commit}, on {about.processor}"
    stored = " ".join(f"--set '{setting}'" for setting in SETTINGS)
    return (
        "# What commands cost that compute nothing\n\n"
        f"{made}, Python {about.python}, {about.system}. User and system seconds of the whole process.\n\n"
        f"{table(measured)}\nThe last one is `run assignment {stored}`, a second time.\n\n"
        f"`{' '.join(COLD)}` in an empty folder, through the first optimizer step of its first training:\n\n"
        f"{cold_table(starts)}"
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
    starts = [cold_start() for _ in range(arguments.repetitions)]
    text = page(measured, starts, f"python benchmarks/quick_start.py {' '.join(sys.argv[1:])}".strip())
    if arguments.out:
        make_folder(arguments.out.parent)
        write_atomically(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
