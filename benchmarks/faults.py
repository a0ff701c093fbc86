"""Break runs on purpose, and count what comes of it: kills, signals, full disks, damaged files, clocks, rivals.

After each fault the suite is run again, and must end with the results of a run that nothing disturbed, bit for bit, or
with an error that says what to do, after which it does. Whole runs of a small suite with every kind of stage are made
in children of one process that has the libraries loaded, so that a fault costs seconds.

Example:
    python benchmarks/faults.py --kills 200 --minutes 60 --out benchmarks/results/faults
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from align_bench.data.planted import planted_questions
from align_bench.report import figures
from align_bench.runner.environment import environment
from align_bench.sources import module_digest
from align_bench.store.files import make_folder, write_atomically
from align_bench.store.keys import file_digest
from align_bench.store.store import MANIFEST, Store

SUITE: dict[str, Any] = {
    "name": "faulty",
    "base": "embedded/tiny",
    "precision": "fp32",
    "lora": {"r": 2, "alpha": 4},
    "data": {
        "train": {"path": "embedded/planted", "rows": 16},
        "val": {"path": "embedded/planted", "rows": 12},
        "test": {"path": "embedded/planted", "rows": 8},
    },
    "judge": [{"method": "rm", "data": {"path": "embedded/planted", "rows": 8}}, "gold"],
    "train": {"batch_size": 8, "max_length": 96, "checkpoint_minutes": 1e-9},
    "generate": {"prompts": 4, "max_new_tokens": 4, "temperature": 1.0},
    "audit": {"pairs": 4},
    "tune": {"methods": {"rm": {"learning_rate": [1e-3, 3e-3]}}, "choose_by": "loss"},
    "methods": [
        "rm",
        {"dpo": {"learning_rate": 1e-3}},
        "kto",
        {"rloo": {"reward": "rm", "max_new_tokens": 4}},
        {"best_of_n": {"reward": "rm", "n": 2}},
        "trl_simpo",
    ],
}
SHARED = ["rm", {"dpo": {"learning_rate": 1e-3}}]  # methods that the overlapping suite has, too
FEW = SHARED[1:]  # of a short campaign
RESULTS = ("scores.parquet", "pairs.parquet", "generations.jsonl", "audit.parquet", "training_texts.parquet")
SCENARIOS = {
    "kills at random moments": "`kill -9` after a random time",
    "kills at random writes": "`kill -9` before or after a random fsync, rename or new file",
    "signals": "SIGTERM or SIGINT after a random time",
    "disk full": "a file system or a file that may not grow beyond a random size",
    "damage": "a bit flipped, a file cut, emptied, deleted, or a folder or a dangling link in its place",
    "clock set back": "killed, then resumed by a clock a year behind, beside files from the future",
    "rivals": "two processes at once, of one suite or of two that overlap, some of them killed while they hold locks",
}


@dataclass
class Counts:
    """What came of one kind of fault.

    Attributes:
        faults: how many were made.
        same: results of an undisturbed run, bit for bit, from the next run on.
        told: an error that said what to do, and these results once it was done.
        verified: no later result had need of it; `align-bench verify` found it, and the run after that made it anew.
        wrong: what neither holds of, in words.
    """

    faults: int = 0
    same: int = 0
    told: int = 0
    verified: int = 0
    wrong: list[str] = field(default_factory=list)


Found: TypeAlias = tuple[dict[str, Counts], Sequence[str]]  # by kind of fault, and the kinds of artefact


# What runs import, much of it only when it is first asked for: a process that has is worth copying.
LOADED_BY_RUNS = (
    *("transformers", "peft", "scipy.stats", "pandas", "statsmodels.api", "sklearn.feature_extraction.text"),
    *("statsmodels.genmod.generalized_linear_model", "matplotlib.figure", "align_bench.cli.main"),
    *("align_bench.runner.run", "align_bench.stages.train", "align_bench.models.generate"),
    *("align_bench.testing.checks", "align_bench.report.figures"),
)


class BrokenError(Exception):
    """A promise that does not hold."""


class DiffersError(BrokenError):
    """A run ended well, with other results than an undisturbed one."""


def results_of(folder: Path, suite: str = "faulty") -> dict[str, object]:
    """All results below a folder by name: digests of artefacts and rows, the numbers of the report; no times."""
    found: dict[str, object] = {}
    for artefact in Store(folder / "runs").artefacts():
        for path in sorted(artefact.folder.rglob("*")):
            if path.is_file() and path.name != MANIFEST:
                name = f"{artefact.address}/{path.relative_to(artefact.folder).as_posix()}"
                found[name] = _untimed(path) if path.suffix == ".jsonl" else file_digest(path)
    report = folder / "reports" / suite
    found |= {name: file_digest(report / name) for name in RESULTS}
    numbers = json.loads((report / "report.json").read_bytes(), object_hook=_without_costs)
    kept = ("results", "comparisons", "baselines", "alarms", "data", "judges", "tuning", "summary")
    return found | {name: numbers[name] for name in kept if name in numbers}


def _untimed(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return json.dumps([json.loads(line, object_hook=_without_costs) for line in lines])


def _without_costs(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in ("cost", "seconds", "shared")}


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code; negative for a signal that killed it.
        said: its output.
    """

    code: int
    said: str


class Bench:
    """Runs of suites below one folder, each in a child of this process.

    Args:
        folder: where to work.
        suite: settings of the suite.
        seed: of every draw.
    """

    def __init__(self, folder: Path, suite: dict[str, Any], seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.counts = {name: Counts() for name in SCENARIOS}
        make_folder(folder)
        self.suites = {name: folder / f"{name}.yaml" for name in ("faulty", "overlapping")}
        shared = [one for one in SHARED if one in suite["methods"]]
        overlapping = {**suite, "name": "overlapping", "methods": [*shared, "simpo"]}
        for path, content in zip(self.suites.values(), (suite, overlapping), strict=True):
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
        self.undisturbed = folder / "undisturbed"
        make_folder(self.undisturbed)
        # A process of its own: what hangs on the order of a set would be alike in all children of this one.
        said, suites = folder / "said-undisturbed", [*reversed(self.suites.values())]
        alone = get_context("spawn").Process(
            target=_undisturbed, args=(self.undisturbed, said, suites, bool(figures.DRAWN))
        )
        said.touch()
        alone.start()
        _load_once((*LOADED_BY_RUNS, *(["trl"] if "trl_simpo" in suite["methods"] else [])))
        alone.join()
        if alone.exitcode:
            raise BrokenError(f"an undisturbed run ended with {alone.exitcode}:\n{said.read_text(encoding='utf-8')}")
        self.expected = {name: results_of(self.undisturbed, name) for name in self.suites}
        self.seconds = sum(artefact.cost.seconds for artefact in Store(self.undisturbed / "runs").artefacts())
        print(f"undisturbed: {self.seconds:.0f} s", flush=True)
        self.kinds = sorted(Store(self.undisturbed / "runs").kinds())

    def start(
        self,
        folder: Path,
        *,
        suite: str = "faulty",
        prepare: Callable[[], object] | None = None,
        command: Sequence[str] = ("run",),
    ) -> int:
        """Begin a run in a child, and give its process id.

        Args:
            folder: where it works; `said` in it takes its output.
            suite: which one.
            prepare: called in the child before it runs, if given.
            command: what to do with the suite, and options.
        """
        make_folder(folder)
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            work_in(folder, self.folder / f"said-{suite}-{folder.name}")
            code = _called(_arguments(self.suites[suite], *command), prepare)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def finish(self, child: int, *, kill_after: float | None = None, number: int = signal.SIGKILL) -> Ended:
        """Wait for a run, and send it a signal after so many seconds."""
        if kill_after is not None:
            until = time.monotonic() + kill_after
            while time.monotonic() < until:
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    break
                time.sleep(0.005)
            else:
                os.kill(child, number)
        _, status = os.waitpid(child, 0)
        return Ended(os.waitstatus_to_exitcode(status), self._said())

    def _said(self) -> str:
        newest = max(self.folder.glob("said-*"), key=lambda path: path.stat().st_mtime_ns)
        return newest.read_text(encoding="utf-8", errors="replace")

    def whole(self, folder: Path, suite: str = "faulty") -> bool:
        """Whether another run ends well, with the results of an undisturbed one; False when it tells what to do.

        Raises:
            BrokenError: neither.
        """
        ended = self.finish(self.start(folder, suite=suite))
        if ended.code == 2 and "→" in ended.said and "Traceback" not in ended.said:
            return False
        if ended.code:
            raise BrokenError(f"the next run ended with {ended.code}: {ended.said[-2000:]}")
        self.compare(folder, suite)
        return True

    def compare(self, folder: Path, suite: str = "faulty") -> None:
        """Hold what is stored to the undisturbed run.

        Raises:
            DiffersError: something differs or is missing.
        """
        found, expected = results_of(folder, suite), self.expected[suite]
        other = [name for name, value in expected.items() if name in found and found[name] != value]
        lost = [name for name in ("results", *RESULTS) if name not in found]
        if other or lost:
            raise DiffersError(f"{len(other)} results differ, such as {other[:3]}; {len(lost)} are missing")

    def verified(self, folder: Path, name: str) -> None:
        """Let `align-bench verify` find a damaged file that the last run had no need to read.

        Raises:
            BrokenError: it does not.
        """
        ended = self.finish(self.start(folder, command=("verify", "--sample", "0")))
        if ended.code != 1 or name not in ended.said or "Traceback" in ended.said:
            raise BrokenError(f"verify ended with {ended.code}, and does not name {name}: {ended.said[-1000:]}")

    @contextmanager
    def fault(self, scenario: str) -> Iterator[Counts]:
        """Count one fault; a broken promise within is counted as such."""
        counts = self.counts[scenario]
        counts.faults += 1
        try:
            yield counts
        except BrokenError as error:
            counts.wrong.append(str(error))
            print(f"BROKEN, {scenario}: {error}", flush=True)

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def copied(self, name: str) -> Path:
        """A copy of what the undisturbed run left."""
        folder = self.fresh(name)
        shutil.copytree(self.undisturbed, folder)
        return folder


def _load_once(modules: Iterable[str]) -> None:
    """Import, read and make here what every child of this process would otherwise for itself."""
    for module in modules:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    module_digest("align_bench.runner.report")  # of all sources
    planted_questions()
    gc.freeze()  # no child looks for garbage among what this process holds


def _undisturbed(folder: Path, said: Path, suites: Sequence[Path], draws: bool) -> None:
    """Run suites one after the other, and end with the exit code of the first that fails."""
    work_in(folder, said)
    if not draws:
        figures.DRAWN = ()
    for suite in suites:
        if code := _called(_arguments(suite), None):
            sys.exit(code)


def work_in(folder: Path, said: Path) -> None:
    """Let this process work in a folder, with its output in a file."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)


def _arguments(suite: Path, command: str = "run", *options: str) -> list[str]:
    return [command, str(suite), "--runs", "runs", "--reports", "reports", *options]


def _called(arguments: Sequence[str], prepare: Callable[[], object] | None) -> int:
    """`align-bench`, in this process."""
    from align_bench.cli.main import main

    sys.argv = ["align-bench", *arguments]
    if prepare is not None:
        prepare()
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    return 0


def _die_at_write(number: int, *, after: bool) -> None:
    """Let this process kill itself at its n-th fsync, rename, replacement or opening of a file for writing."""
    left = number

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = call(*given, **more)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return called

    for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, dying(getattr(os, name)))


def kill_at_random(bench: Bench, faults: int, until: float, *, number: int = signal.SIGKILL) -> None:
    """Kill runs at random moments, each from where the last one left off; whole runs are compared and begun anew."""
    scenario = "kills at random moments" if number == signal.SIGKILL else "signals"
    folder, made = bench.fresh("killed"), 0
    while made < faults and (not made or time.monotonic() < until):
        with bench.fault(scenario) as counts:
            sent = bench.draw.choice((signal.SIGTERM, signal.SIGINT)) if number != signal.SIGKILL else number
            after = bench.draw.uniform(0.0, bench.seconds / 4)
            ended = bench.finish(bench.start(folder), kill_after=after, number=sent)
            if ended.code == 0:  # it ended first
                counts.faults -= 1
                bench.compare(folder)
                folder = bench.fresh("killed")
                continue
            made += 1
            if ended.code not in ((-sent,) if sent == signal.SIGKILL else (128 + sent, -sent)):
                raise BrokenError(f"ended with {ended.code} after signal {sent}: {ended.said[-1000:]}")
            if ended.code == 128 + sent and sent == signal.SIGTERM and "go on where it stopped" not in ended.said:
                raise BrokenError(f"does not say how to go on: {ended.said[-1000:]}")
            _whole_artefacts(folder)
            counts.same += 1
    _ends_well(bench, folder, scenario)


def _ends_well(bench: Bench, folder: Path, scenario: str) -> None:
    """Let the last of a chain of killed runs end, and compare."""
    try:
        if not bench.whole(folder):
            raise BrokenError("the last run was refused")
    except BrokenError as error:
        bench.counts[scenario].wrong.append(str(error))
        print(f"BROKEN, {scenario}: {error}", flush=True)


def kill_at_writes(bench: Bench, faults: int, until: float) -> None:
    """Kill runs at random writes."""
    folder, made = bench.fresh("killed"), 0
    while made < faults and (not made or time.monotonic() < until):
        with bench.fault("kills at random writes") as counts:
            at, after = bench.draw.randrange(1, 80), bench.draw.random() < 0.5
            ended = bench.finish(bench.start(folder, prepare=partial(_die_at_write, at, after=after)))
            if ended.code == 0:
                counts.faults -= 1
                bench.compare(folder)
                folder = bench.fresh("killed")
                continue
            made += 1
            if ended.code != -signal.SIGKILL:
                raise BrokenError(f"ended with {ended.code}: {ended.said[-1000:]}")
            _whole_artefacts(folder)
            counts.same += 1
    _ends_well(bench, folder, "kills at random writes")


def _whole_artefacts(folder: Path) -> None:
    """Every artefact under its final name is whole.

    Raises:
        BrokenError: one is not.
    """
    store = Store(folder / "runs")
    for kind in store.kinds():
        for path in (folder / "runs" / kind).iterdir():
            if not (path / MANIFEST).is_file():
                raise BrokenError(f"{path} has no manifest")
    for artefact in store.artefacts():
        if store.get(artefact.address) is None:
            raise BrokenError(f"{artefact.folder} is half-written")


def fill_disks(bench: Bench, faults: int, until: float) -> None:
    """Runs on a disk that fills up, and once more with room."""
    need = sum(path.stat().st_size for path in bench.undisturbed.rglob("*") if path.is_file())
    mounted = _can_mount(bench.folder / "disk")
    largest = max(path.stat().st_size for path in bench.undisturbed.rglob("*") if path.is_file())
    for number in range(faults):
        if number and time.monotonic() > until:
            return
        with bench.fault("disk full") as counts:
            folder = bench.fresh("filled")
            make_folder(folder)
            share = bench.draw.uniform(0.02, 0.6)
            if mounted:
                size = max(64 * 1024, int(share * need))
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            try:
                small = None if mounted else partial(_limit_files, int(share * largest))
                ended = bench.finish(bench.start(folder, prepare=small))
                if ended.code == 0:  # there was room enough
                    counts.faults -= 1
                    bench.compare(folder)
                    continue
                if ended.code not in (1, 2) or "Traceback (most recent" in ended.said:
                    raise BrokenError(f"ended with {ended.code} on a full disk: {ended.said[-2000:]}")
                if not any(said in ended.said for said in ("No space left", "File too large")):
                    raise BrokenError(f"does not say that the disk is full: {ended.said[-2000:]}")
                if mounted:
                    subprocess.run(["mount", "-o", f"remount,size={4 * need}", folder], check=True)
                if not bench.whole(folder):
                    raise BrokenError("refused although there is room again")
                counts.told += 1
            finally:
                if mounted:
                    subprocess.run(["umount", folder], check=True)


def _can_mount(folder: Path) -> bool:
    make_folder(folder)
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and subprocess.run(["umount", folder], check=False).returncode == 0


def _limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)


def _cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))] if data else b"")


def _empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def _gone(path: Path, draw: random.Random) -> None:
    path.unlink()


def _a_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _a_link(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES = (_flip, _cut, _empty, _gone, _a_folder, _a_link)


def damage(bench: Bench, faults: int, until: float) -> None:
    """Damage a file of a finished run, and run again: files of every kind in turn, each time another damage."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(bench.undisturbed.rglob("*")):
        place = path.relative_to(bench.undisturbed)
        if path.is_file() and "overlapping" not in str(place) and "said" not in path.name:
            kinds.setdefault(f"{'/'.join(place.parts[:2])}/{path.name}", []).append(place)
    order = [(kind, hurt) for hurt in DAMAGES for kind in kinds]
    bench.draw.shuffle(order)
    first = {kind: (kind, hurt) for kind, hurt in reversed(order)}  # every kind once, before any twice
    order = [*first.values(), *(one for one in order if one not in first.values())]
    for number, (kind, hurt) in enumerate(order[:faults]):
        if number and time.monotonic() > until:
            return
        with bench.fault("damage") as counts:
            folder = bench.copied("damaged")
            path = folder / bench.draw.choice(kinds[kind])
            hurt(path, bench.draw)
            in_runs = "runs" in path.relative_to(folder).parts[:1]
            if in_runs:  # else nothing is read again: the report is finished
                shutil.rmtree(folder / "reports" / "faulty")
            try:
                _heals(bench, folder, path, counts)
            except BrokenError as error:
                raise BrokenError(f"{kind}, {hurt.__name__.strip('_')}: {error}") from None


def _heals(bench: Bench, folder: Path, path: Path, counts: Counts) -> None:
    """Count what comes of a damaged file: the same results, by itself or once a command has told of it."""
    try:
        same = bench.whole(folder)
    except DiffersError:  # the run had no need of the file
        bench.verified(folder, path.parent.name)
        if not bench.whole(folder):
            raise BrokenError("refused after verify moved it aside") from None
        counts.verified += 1
        return
    if same:
        counts.same += 1
        return
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()  # as it was told to
    if not bench.whole(folder):
        raise BrokenError("refused once more")
    counts.told += 1


def set_clocks_back(bench: Bench, faults: int, until: float) -> None:
    """Resume a killed run by a clock that is a year behind."""

    def behind() -> None:
        now, ns = time.time, time.time_ns
        year = 365 * 24 * 3600
        time.time, time.time_ns = (lambda: now() - year), (lambda: ns() - year * 10**9)

    for number in range(faults):
        if number and time.monotonic() > until:
            return
        with bench.fault("clock set back") as counts:
            folder = bench.fresh("clock")
            bench.finish(bench.start(folder), kill_after=bench.draw.uniform(1.0, bench.seconds / 2))
            for path in folder.rglob("*"):
                os.utime(path, (time.time() + 1e7,) * 2)
            ended = bench.finish(bench.start(folder, prepare=behind))
            if ended.code:
                raise BrokenError(f"ended with {ended.code}: {ended.said[-2000:]}")
            bench.compare(folder)
            counts.same += 1


def set_rivals(bench: Bench, faults: int, until: float) -> None:
    """Two runs at once in one folder, one of which is killed every other time."""
    for number in range(faults):
        if number and time.monotonic() > until:
            return
        with bench.fault("rivals") as counts:
            folder, names = bench.fresh("rivals"), ("faulty", "overlapping" if number % 4 < 2 else "faulty")
            children = [bench.start(folder, suite=name) for name in names]
            if number % 2:
                bench.finish(children[0], kill_after=bench.draw.uniform(0.5, bench.seconds))  # may hold a lock
            else:
                first = bench.finish(children[0])
                if first.code:
                    raise BrokenError(f"ended with {first.code} beside another: {first.said[-2000:]}")
            second = bench.finish(children[1])
            if second.code:
                raise BrokenError(f"ended with {second.code} beside another: {second.said[-2000:]}")
            bench.compare(folder, names[1])
            if not bench.whole(folder):
                raise BrokenError("refused after two at once")
            counts.same += 1


def campaign(bench: Bench, kills: int, others: int, until: float) -> None:
    """Every kind of fault, until the counts or the time are reached.

    Args:
        bench: where.
        kills: `kill -9`, half of them at random moments and half at random writes.
        others: of each other kind; three times as many damages.
        until: when to stop, by `time.monotonic`.
    """
    shares: Sequence[tuple[float, Callable[[float], None]]] = (
        (0.20, lambda end: kill_at_writes(bench, kills // 2, end)),
        (0.20, lambda end: kill_at_random(bench, kills - kills // 2, end)),
        (0.25, lambda end: damage(bench, 3 * others, end)),
        (0.10, lambda end: fill_disks(bench, others, end)),
        (0.10, lambda end: set_rivals(bench, others, end)),
        (0.10, lambda end: kill_at_random(bench, others, end, number=signal.SIGTERM)),
        (0.05, lambda end: set_clocks_back(bench, others, end)),
    )
    for number, (share, make) in enumerate(shares):
        now = time.monotonic()
        make(now + (until - now) * share / sum(one for one, _ in shares[number:]))
        print(
            {
                name: (one.faults, one.same, one.told, one.verified, len(one.wrong))
                for name, one in bench.counts.items()
            },
            flush=True,
        )


def counted(folder: Path, suite: dict[str, Any], seed: int, kills: int, others: int, minutes: float) -> Found:
    """A campaign below a folder: its counts, and the kinds of artefact that a run makes."""
    until = time.monotonic() + 60 * minutes
    bench = Bench(folder, suite, seed)
    campaign(bench, kills, others, until)
    return bench.counts, bench.kinds


def added(found: Sequence[Found]) -> Found:
    """The counts of several campaigns in one."""
    total = {name: Counts() for name in SCENARIOS}
    for counts, _ in found:
        for name, own in counts.items():
            one = total[name]
            one.faults, one.same, one.told = one.faults + own.faults, one.same + own.same, one.told + own.told
            one.verified += own.verified
            one.wrong += own.wrong
    return total, found[0][1]


def row(name: str, counts: Counts) -> str:
    """A kind of fault and its counts, as a row of the page's table."""
    outcomes = (counts.faults, counts.same, counts.told, counts.verified, len(counts.wrong))
    return f"| {name} | {SCENARIOS[name]} | {' | '.join(map(str, outcomes))} |"


def page(found: Found, seconds: float, commit: str, processes: int = 1) -> str:
    """The counts as Markdown."""
    every, kinds = found
    where, processor = environment(), Path("/proc/cpuinfo")
    amx = processor.is_file() and "amx" in processor.read_text(encoding="utf-8")
    lines = [
        "# What faults do to runs",
        "",
        f"Made by `python benchmarks/faults.py` in {seconds / 60:.0f} minutes"
        f"{f' of {processes} campaigns at once' if processes > 1 else ''}, with the code of commit {commit}, on "
        f"{where.processor}, {os.cpu_count()} cores, {'with' if amx else 'no'} AMX, Python {where.python}, "
        f"{where.system}. Each fault hits a run of a small suite with {len(kinds)} kinds of artefact "
        f"({', '.join(kinds)}). Afterwards the suite "
        "is run again.",
        "",
        "| fault | what is done | made | same results, bit for bit | told, then the same "
        "| found by verify, then the same | broken |",
        "|:---|:---|---:|---:|---:|---:|---:|",
    ]
    lines += [row(name, counts) for name, counts in every.items()]
    wrong = [f"- {name}: {said.splitlines()[0]}" for name, counts in every.items() for said in counts.wrong]
    kills = sum(every[name].faults for name in ("kills at random moments", "kills at random writes"))
    lines += ["", f"`kill -9`: {kills} in all. Kills are chained: each run goes on where the last one was killed, and "]
    lines[-1] += "whole runs are compared when they end."
    return "\n".join([*lines, *(["", "Broken:", "", *wrong] if wrong else [])]) + "\n"


def main() -> None:
    """Run the campaign, and write its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--others", type=int, default=20, help="faults of each other kind; three times as many damages")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="campaigns at once, with seeds of their own")
    parser.add_argument("--few", action="store_true", help="one method and no figures, for a short try")
    parser.add_argument("--work", type=Path, help="folder to work in; a temporary one by default")
    parser.add_argument("--commit", default="", help="of the code, for the page; git's by default")
    parser.add_argument("--out", type=Path, help="where to write the counts, without suffix")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    started = time.monotonic()
    if given.few:  # the children that run suites are forked, and draw nothing either
        figures.DRAWN = ()
    with tempfile.TemporaryDirectory() as temporary:
        suite = {**SUITE, "methods": FEW, "tune": None} if given.few else SUITE
        work, several = (given.work or Path(temporary)).resolve(), given.processes
        if several == 1:
            found = counted(work, suite, given.seed, given.kills, given.others, given.minutes)
        else:
            each = [
                (
                    work / str(place),
                    suite,
                    given.seed + place,
                    len(range(place, given.kills, several)),
                    len(range(place, given.others, several)),
                    given.minutes,
                )
                for place in range(several)
            ]
            with ProcessPoolExecutor(several, mp_context=get_context("spawn")) as pool:
                found = added([*pool.map(counted, *zip(*each, strict=True))])
        commit = (
            given.commit
            or subprocess.run(
                ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
            ).stdout.strip()
        )
        text = page(found, time.monotonic() - started, commit, several)
        print(text)
        if given.out is not None:
            make_folder(given.out.parent)
            write_atomically(given.out.with_suffix(".md"), text)
            numbers = {name: asdict(counts) for name, counts in found[0].items()}
            write_atomically(given.out.with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    sys.exit(any(counts.wrong for counts in found[0].values()))


if __name__ == "__main__":
    main()
