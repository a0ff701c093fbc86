"""Measure align-bench against TRL: speed and memory of the same work, side by side, the sides taking turns.

Each side of each part runs in a process of its own, so that neither shares memory or an allocator with the other. They
take turns step by step (ours, TRL's, ours, TRL's, …), so that a machine that slows down slows both. Equal losses are
asserted first; a part whose sides do not agree is a failure and has no time.

Examples:
    python benchmarks/vs_trl.py                                    # embedded model and rows, minutes
    python benchmarks/vs_trl.py --base FOLDER --data train.parquet --val val.parquet --max-length 320 \
        --precision nf4 bf16 fp32 --allocator stock tuned --budget-minutes 60
    python benchmarks/vs_trl.py … --append benchmarks/results/2026-01-31-cpu.json   # go on with what is left
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import history
import vs_trl_table as table
from rich.console import Console
from rich.markdown import Markdown

from align_bench.runner.environment import environment
from align_bench.store.files import make_folder, write_atomically

HERE = Path(__file__).parent
SIDES = HERE / "vs_trl_sides.py"
PARTS = (*table.METHODS, "scoring", "generation", "suite", *table.ONLINE)
# Without decay, jemalloc keeps pages that big logits will need again.
JEMALLOC = {"MALLOC_CONF": "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1"}
# glibc maps every big block anew and faults its pages in; with these it keeps them.
GLIBC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
QUICK = {"repeats": 3, "scored_pairs": 16, "prompts": 16, "new_tokens": 32, "suite_pairs": 8}

console = Console()


class SideError(Exception):
    """A side's process ended before its work did."""


class Side:
    """A process that does one turn's work when told to."""

    def __init__(
        self, settings: Mapping[str, Any], variables: Mapping[str, str], errors: IO[str], script: Path = SIDES
    ) -> None:
        self.name = settings["side"]
        self._errors = errors
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(dict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **variables},
        )

    def turn(self) -> dict[str, Any]:
        """Let it work, and return what it says of that.

        Raises:
            SideError: with the end of what it printed.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; why is in what it printed
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = "\n".join(self._errors.read().splitlines()[-12:])
            raise SideError(f"{self.name} ended with exit code {self._process.returncode}:\n{said}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def side(settings: Mapping[str, Any], variables: Mapping[str, str], script: Path = SIDES) -> Iterator[Side]:
    """A side's process, ended with the context."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        started = Side(settings, variables, errors, script)
        try:
            yield started
        finally:
            started.close()


@dataclass(frozen=True, slots=True)
class Task:
    """One part under one precision and one allocator."""

    precision: str
    allocator: str
    part: str


def sides_of(part: str, settings: Mapping[str, Any]) -> list[str]:
    """Who takes part."""
    if part == "scoring":
        return ["ours", "naive", "trl"]
    if part == "online":
        return ["ours", "ours, ppo", "trl"]
    if part in table.METHODS and settings["checkpointing"]:
        return ["ours", "trl", "trl, checkpointing"]
    return ["ours", "trl"]


def measured(task: Task, settings: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """The result of a part.

    Raises:
        SideError: when a side fails.
        UnequalError: when the sides did not do the same work.
    """
    names = sides_of(task.part, settings)
    trained = task.part in table.TRAINED
    load = [os.getloadavg()[0]]
    heard: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with ExitStack() as stack:
        shared = {**settings, "part": task.part, "precision": task.precision}
        running = [stack.enter_context(side({**shared, "side": name}, variables)) for name in names]
        ready = [started.heard() for started in running]
        compute = ready[0]["compute"]
        equal: dict[str, float] = {}
        for number in range(1 + trained + settings["repeats"]):
            for started in running:
                heard[started.name].append(started.turn())
            if number == (0 if trained else 1):
                equal = equality_of(task.part, compute, {name: turns[-1] for name, turns in heard.items()})
            console.print(f"  turn {number}: {seconds_of(heard)}", highlight=False)
    kept = {name: kept_of(turns[1 + trained :]) for name, turns in heard.items()}
    load.append(os.getloadavg()[0])
    return {
        "precision": task.precision,
        "allocator": task.allocator,
        "part": task.part,
        "compute": compute,
        "device": ready[0]["device"],
        "equal": equal,
        "load": load,
        "sides": kept,
    }


def equality_of(part: str, compute: str, said: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How far apart the sides are in what they have to agree on.

    Raises:
        UnequalError: too far.
    """
    if part in table.METHODS:
        return table.check_training(part, compute, said["ours"], said["trl"])
    if part == "scoring":
        return table.check_scoring(compute, said)
    if part in table.ONLINE:
        return table.check_online(part, compute, said)
    check = table.check_generation if part == "generation" else table.check_suite
    return check(compute, said["ours"], said["trl"])


def seconds_of(heard: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the last turn of each side took, in words."""
    last = {name: turns[-1].get("seconds") for name, turns in heard.items()}
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in last.items() if seconds) or "equal work, warm-up"


def kept_of(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists over the repeats, and the highest memory."""
    lists = ("seconds", "tokens", "reference_seconds", "mismatched_seconds", "policy_seconds", "both_seconds", "stages")
    kept: dict[str, Any] = {name: [turn[name] for turn in turns] for name in lists if name in turns[0]}
    peak = max(turn["peak_bytes"] for turn in turns)
    return {**kept, "peak_bytes": peak, "resting_bytes": turns[0]["resting_bytes"]}


def side_variables() -> dict[str, str]:
    """What every side starts with. As of the command line, threads that wait for each other do not spin for long."""
    return {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000"), "TOKENIZERS_PARALLELISM": "false"}


def allocator_variables(name: str) -> tuple[str, dict[str, str]]:
    """A name that says what it is, and the environment that both sides start with."""
    if name == "stock":
        return "stock", {}
    if (jemalloc := ctypes.util.find_library("jemalloc")) is not None:
        return "tuned (jemalloc)", {"LD_PRELOAD": jemalloc, **JEMALLOC}
    return "tuned (glibc)", GLIBC


def arguments() -> argparse.Namespace:
    """The command line; `--quick` changes defaults only."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--base", default="embedded/tiny", help="model folder, hub id, or embedded/tiny")
    parser.add_argument("--data", default="embedded/planted", help="training pairs: a file, or embedded/planted")
    parser.add_argument("--val", help="validation pairs; must be given with a file as --data")
    parser.add_argument("--precision", nargs="+", choices=("nf4", "bf16", "fp32"), default=["fp32"])
    parser.add_argument("--allocator", nargs="+", choices=("stock", "tuned"), default=["stock"])
    parser.add_argument(
        "--methods", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--pairs-per-step", type=int, default=4)
    parser.add_argument(
        "--max-length", type=int, default=320, help="tokens of prompt + answer; longer rows are dropped"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each side, after a warm-up")
    parser.add_argument("--suite-repeats", type=int, help="of the part suite; --repeats if not given")
    parser.add_argument("--scored-pairs", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--suite-pairs", type=int, default=16, help="training and validation pairs of the part suite")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--no-checkpointing", action="store_true", help="leave TRL with gradient checkpointing out")
    parser.add_argument("--budget-minutes", type=float, help="begin no further part after so long")
    parser.add_argument("--append", type=Path, metavar="JSON", help="go on with a result of the same settings")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK}, no checkpointing, none of {table.ONLINE}")
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(
            **QUICK, no_checkpointing=True, methods=[part for part in PARTS if part not in table.ONLINE]
        )
    given = parser.parse_args()
    if given.val is None and not given.data.startswith("embedded/"):
        parser.error("--data is a file: give --val too, rows that no training sees")
    return given


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What results depend on, beside precision, allocator and part."""
    return {
        "base": given.base,
        "train": given.data,
        "val": given.val or given.data,
        "pairs_per_step": given.pairs_per_step,
        "max_length": given.max_length,
        "repeats": given.repeats,
        "suite_repeats": given.suite_repeats or given.repeats,
        "scored_pairs": given.scored_pairs,
        "prompts": given.prompts,
        "new_tokens": given.new_tokens,
        "suite_pairs": given.suite_pairs,
        "checkpointing": not given.no_checkpointing,
        "device": None if given.device == "auto" else given.device,
    }


def begun(given: argparse.Namespace, settings: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The result's file, and the result as far as it is there."""
    if given.append is not None:
        result = json.loads(given.append.read_text(encoding="utf-8"))
        if result["settings"] != settings:
            raise SystemExit(f"{given.append} has other settings: {result['settings']}, now {dict(settings)}")
        return given.append, result
    where = environment().model_dump()
    kind = "cpu" if where["device"] == "cpu" or given.device == "cpu" else "gpu"
    libraries = {**where["libraries"], "trl": _trl_version()}
    result = {
        "command": "python benchmarks/vs_trl.py " + " ".join(shown(word) for word in sys.argv[1:]),
        "environment": {**where, "libraries": libraries},
        "settings": dict(settings),
        "parts": [],
        "failures": [],
    }
    return given.results / f"{datetime.now(UTC):%Y-%m-%d}-{kind}.json", result


def shown(word: str) -> str:
    """A word of the command without the folders of the machine that it ran on."""
    return Path(word).name if word.startswith("/") else word


def _trl_version() -> str:
    from importlib.metadata import version

    return version("trl")


def main() -> int:
    """Measure what is missing, part by part; every part is written when it is done."""
    given = arguments()
    settings = settings_of(given)
    path, result = begun(given, settings)
    make_folder(path.parent)
    allocators = dict(allocator_variables(name) for name in given.allocator)
    tasks = [Task(*names) for names in ((p, a, m) for p in given.precision for a in allocators for m in given.methods)]
    done = {Task(part["precision"], part["allocator"], part["part"]) for part in result["parts"]}
    left = [task for task in tasks if task not in done]
    variables = side_variables()
    if given.device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    started = time.monotonic()
    while left and (given.budget_minutes is None or time.monotonic() - started < 60 * given.budget_minutes):
        task = left.pop(0)
        console.print(f"{task.precision}, {task.allocator}: {task.part}", highlight=False)
        wanted = settings["suite_repeats"] if task.part == "suite" else settings["repeats"]
        try:
            found = measured(task, {**settings, "repeats": wanted}, {**variables, **allocators[task.allocator]})
            result["parts"].append(found)
        except (SideError, table.UnequalError) as error:
            console.print(f"[red]failed:[/] {error}", highlight=False)
            result["failures"].append(f"{task.precision}, {task.allocator}, {task.part}: {error}")
        write_atomically(path, json.dumps(result, indent=1))
        write_atomically(path.with_suffix(".md"), table.markdown(result))
    console.print(Markdown(table.markdown(result)))
    if left:
        console.print(f"out of time; {len(left)} parts are left: the same command with --append {path} goes on")
    console.print(f"result: {path} and {path.with_suffix('.md').name}")
    if path.parent.resolve() == HERE / "results":
        history.add(history.rows_of(result, path.name))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
