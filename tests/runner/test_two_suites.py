"""Two suites in one folder: what they share is made once, by two processes too; and what neither needs is freed."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.cli import app as shown
from align_bench.cli.main import main
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Update, no_update
from align_bench.report.export import read_report
from align_bench.report.schema import Report
from align_bench.runner import report as reports
from align_bench.runner.desk import LocalDesk
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.sources import module_digest
from align_bench.store.clean import unneeded
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

ONE, TWO = ["rm", "dpo"], ["dpo", "simpo"]
OF_SIMPO = {f"simpo: {label}" for label in ("train", "validation pairs", "generate", "drift", "judge")}


@dataclass
class Recorder:
    """Records which stages a run makes."""

    made: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.made.append(f"{cell}: {label}")
        yield no_update

    def log(self, text: str) -> None:
        pass


@dataclass(frozen=True)
class Place:
    """A folder with both suites, and with what they have made."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def folders(self) -> Folders:
        return Folders(self.runs, self.folder / "reports")

    def prepared(self, name: str) -> Prepared:
        path = self.folder / f"{name}.yaml"
        return prepare(load_suite(str(path)), load_registry())

    def run(self, name: str) -> tuple[list[str], Report]:
        """The stages that were made, and the report."""
        progress = Recorder()
        return progress.made, run(self.prepared(name), progress, self.folders, command="align-bench run")

    def stored(self) -> set[str]:
        """The folders of all artefacts."""
        return {path.parent.relative_to(self.runs).as_posix() for path in self.runs.glob("*/*/manifest.json")}


@pytest.fixture(scope="module")
def written(small_suite: dict[str, Any]) -> Callable[[Path], Place]:
    """Writes both suites into a folder."""

    def write(folder: Path) -> Place:
        small = {**small_suite, "generate": {"prompts": 4, "max_new_tokens": 3}}
        for name, methods in (("one", ONE), ("two", TWO)):
            text = yaml.safe_dump({**small, "name": name, "methods": methods})
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return Place(folder)

    return write


Made = tuple[Place, list[str], list[str], Report, Report]


@pytest.fixture(scope="module")
def made(written: Callable[[Path], Place], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Both suites, run one after the other, what each of them made, and their reports."""
    place = written(tmp_path_factory.mktemp("made"))
    (first, one), (second, two) = place.run("one"), place.run("two")
    return place, first, second, one, two


@pytest.fixture
def place(made: Made, tmp_path: Path) -> Place:
    """A copy of it, to be changed; a suite's name and its content are what counts, not where its file lies."""
    shutil.copytree(made[0].folder, tmp_path / "copy")
    return Place(tmp_path / "copy")


def test_what_two_suites_share_is_made_once(made: Made) -> None:
    place, first, second, one, two = made
    assert "dpo: train" in first
    assert set(second) == OF_SIMPO
    assert len(second) == len(OF_SIMPO)
    assert len(place.stored()) == len(first) + len(second)
    assert {result.name: result.status for result in two.results} == dict.fromkeys(
        ("judge", "base", "dpo", "simpo"), "done"
    )
    for cell in ("judge", "base", "dpo"):
        (of_one,), (of_two,) = ([row for row in found.results if row.name == cell] for found in (one, two))
        assert of_one.cost == of_two.cost


def test_a_second_run_of_either_makes_nothing_and_writes_nothing(place: Place) -> None:
    for name in ("one", "two"):
        page = place.folders.reports / name / "report.html"
        before = page.stat()
        assert place.run(name)[0] == []
        assert page.stat().st_ino == before.st_ino


def test_a_report_by_other_code_is_written_anew_and_nothing_else_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def changed(module: str) -> str:
        asked.append(module)
        return f"{module_digest(module)}, changed"

    prepared, results = place.prepared("one"), Results(Store(place.runs))
    graph = make_graph(prepared, results)
    folder = place.folders.reports / "one"
    assert reports.finished(folder, prepared, graph, results) is not None
    monkeypatch.setattr(reports, "module_digest", changed)
    assert reports.finished(folder, prepared, graph, results) is None
    before = (folder / "report.html").stat()
    stages, _ = place.run("one")
    assert stages == []
    assert (folder / "report.html").stat().st_ino != before.st_ino
    assert set(asked) == {"align_bench.runner.report"}
    assert reports.finished(folder, prepared, graph, results) is not None


# -- two processes -----------------------------------------------------------------------------------------------------

RUN = """
import time
from contextlib import contextmanager

import torch

torch.set_num_threads(1)
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import no_update
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite

log = (folder / f"{name}.log").open("a", buffering=1, encoding="utf-8")


class Recorder:
    @contextmanager
    def stage(self, cell, label):
        print(f"made {cell}: {label}", file=log)
        while f"{cell}: {label}" == held and not (folder / "go on").exists():
            time.sleep(0.02)
        yield no_update

    def log(self, text):
        print(text, file=log)


path = folder / f"{name}.yaml"
prepared = prepare(load_suite(str(path)), load_registry())
run(prepared, Recorder(), Folders(folder / "runs", folder / "reports"), command="")
print("ended", file=log)
"""
HELD = "dpo: train"
WAITS = f"waiting for {HELD}, which another run is making"


@dataclass(frozen=True)
class Run:
    """A suite's run in a process of its own."""

    process: ForkServerProcess
    log: Path

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def made(self) -> list[str]:
        return [line.removeprefix("made ") for line in self.lines() if line.startswith("made ")]

    def reach(self, line: str) -> None:
        """Wait until it has said a line."""
        for _ in range(6000):
            if line in self.lines():
                return
            assert self.process.is_alive(), f"it ended without {line!r}: {self.lines()}"
            time.sleep(0.02)
        raise AssertionError(f"no {line!r} in time: {self.lines()}")

    def end(self) -> None:
        self.process.join(300)
        assert self.process.exitcode == 0
        assert self.lines()[-1] == "ended"


@pytest.fixture
def start(written: Callable[[Path], Place], copies: ForkServerContext, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts a suite's run; one that holds a stage waits in it for the file `go on`."""
    written(tmp_path)
    processes: list[ForkServerProcess] = []

    def started(name: str, held: str = "") -> Run:
        known = {"folder": tmp_path, "name": name, "held": held}
        processes.append(copies.Process(target=exec, args=(RUN, known)))
        processes[-1].start()
        return Run(processes[-1], tmp_path / f"{name}.log")

    yield started
    for process in processes:
        process.kill()
        process.join()


def test_two_processes_make_what_they_share_once(start: Callable[..., Run], tmp_path: Path) -> None:
    one = start("one", HELD)
    one.reach(f"made {HELD}")
    two = start("two")
    two.reach(WAITS)
    (tmp_path / "go on").touch()
    one.end()
    two.end()
    assert HELD not in two.made()
    assert set(two.made()) >= OF_SIMPO
    both = one.made() + two.made()
    assert len(both) == len(set(both)) == len(Place(tmp_path).stored())
    assert one.lines().count(WAITS) == 0
    assert two.lines().count(WAITS) == 1
    for name in ("one", "two"):
        assert {result.status for result in read_report(tmp_path / "reports" / name).results} == {"done"}


def test_a_killed_holder_lets_the_other_go_on(start: Callable[..., Run], tmp_path: Path) -> None:
    one = start("one", HELD)
    one.reach(f"made {HELD}")
    two = start("two")
    two.reach(WAITS)
    before = Place(tmp_path).stored()
    one.process.kill()
    two.end()
    assert one.made().count(HELD) == two.made().count(HELD) == 1
    assert {*one.made()} & {*two.made()} == {HELD}, "what the killed one had stored stays"
    assert before < Place(tmp_path).stored()
    assert not list((tmp_path / "runs" / ".writing").iterdir())


# -- what no suite needs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    printed: str
    shown: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command in this process; `answers` is typed."""

    def called(*arguments: str, answers: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["align-bench", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        for console in (shown.console, shown.errors):
            monkeypatch.setattr(console, "width", 200)
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *capsys.readouterr())

    return called


Command = Callable[..., Ended]


def test_what_both_need_is_not_free(place: Place, command: Command) -> None:
    before = place.stored()
    ended = command("clean", "--runs", str(place.runs))
    assert (ended.code, ended.printed) == (0, "nothing to delete: every stored result is needed by a suite\n")
    assert place.stored() == before


def test_clean_asks_and_obeys(place: Place, command: Command) -> None:
    before = place.stored()
    ended = command("clean", "two", "--runs", str(place.runs), answers="n\n")
    assert ended.code == 1
    assert "Needed by no suite, two not counted" in ended.printed
    assert ended.printed.endswith("Delete this? [y/N]: ")
    assert place.stored() == before
    assert {*Store(place.runs).notes.all()} == {"one", "two"}

    ended = command("clean", "two", "--runs", str(place.runs), answers="y\n")
    assert ended.code == 0
    assert {one.partition("/")[2].rpartition("-")[0] for one in before - place.stored()} == {"simpo-0"}


def test_a_finished_run_says_again_what_it_needs(place: Place, command: Command) -> None:
    """Its note may be lost, or be of other settings that were run into another folder of reports."""
    before = place.stored()
    note = place.runs / "suites" / "two.json"
    written = note.read_bytes()
    for content in (None, b"damaged", b'{"schema": 1, "suite": "two", "record": {"needs": []}}'):
        note.unlink() if content is None else note.write_bytes(content)
        assert place.run("two")[0] == []
        assert note.read_bytes() == written
    assert command("clean", "--runs", str(place.runs), "--yes").code == 0
    assert place.stored() == before


def test_a_report_of_other_settings_frees_nothing(place: Place, command: Command) -> None:
    """A suite needs what its last run rested on; a report only reads."""
    path, folders = place.folder / "two.yaml", ("--runs", str(place.runs), "--reports", str(place.folder / "reports"))
    ended = command("report", str(path), *folders, "--set", "train.epochs=2")
    assert "not stored" in ended.printed
    assert command("clean", "--runs", str(place.runs)).printed.startswith("nothing to delete")


def test_folders_that_cannot_be_written_are_told_in_one_line(
    place: Place, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, content: bytes) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refused)
    path, folders = place.folder / "two.yaml", ("--runs", str(place.runs), "--reports", str(place.folder / "reports"))
    calls = (
        (("run", str(path), "--set", "train.epochs=2"), "two.json"),
        (("report", str(path), "--set", "report.equivalence_dz=0.2"), "two"),
        (("compare", "base", "simpo", str(path), "--stored"), "compare.html"),
    )
    for called, where in calls:
        ended = command(*called, *folders)
        assert ended.code == 2
        assert f"{where} cannot be written: Permission denied" in ended.shown
        assert "Traceback" not in ended.shown


def test_an_abandoned_suite_is_freed_and_the_other_one_stays_whole(place: Place, command: Command) -> None:
    before = place.stored()
    ended = command("clean", "two", "--runs", str(place.runs), "--yes")
    assert ended.code == 0
    assert "Delete" not in ended.printed
    assert "freed 0." in ended.printed
    freed = before - place.stored()
    assert len(freed) == len(OF_SIMPO)
    assert {one.partition("/")[2].rpartition("-")[0] for one in freed} == {"simpo-0"}
    assert {*Store(place.runs).notes.all()} == {"one"}
    assert place.run("one")[0] == []
    assert set(place.run("two")[0]) == OF_SIMPO


def test_a_suite_that_was_never_run_cannot_be_abandoned(place: Place, command: Command) -> None:
    ended = command("clean", "tow", "--runs", str(place.runs), "--yes")
    assert ended.code == 2
    assert "no suite 'tow' was run in" in ended.shown
    assert "two" in ended.shown
    assert "Traceback" not in ended.shown


@pytest.mark.parametrize("called", [["run", "one.yaml"], ["plan", "one.yaml"], ["clean"]], ids=lambda one: one[0])
def test_a_folder_of_an_earlier_version_is_refused_in_words(
    written: Callable[[Path], Place],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    called: list[str],
) -> None:
    """There each suite had a folder of its own, with a lock."""
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    artefact = tmp_path / "runs" / "assignment" / f"tokens-{'0123456789abcdef' * 2:.20}"
    artefact.mkdir(parents=True)
    (artefact.parent / "lock").touch()
    (artefact / "manifest.json").write_text('{"kind": "tokens"}', encoding="utf-8")
    ended = command(*called)
    assert ended.code == 2
    assert "was made by an earlier version of align-bench" in ended.shown
    assert "give another folder with --runs, or delete this one" in ended.shown
    assert "Traceback" not in ended.shown + ended.printed
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["assignment"]
    assert not (tmp_path / "reports").exists()


def test_what_the_report_on_disk_rests_on_is_needed_until_another_takes_its_place(
    write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with other settings that dies leaves the finished one whole; one that ends leaves it to `clean`."""
    few = {"judge": None, "methods": ["rm"], "generate": {"prompts": 2, "max_new_tokens": 2}}
    folders = Folders(tmp_path / "runs", tmp_path / "reports")

    def execute(path: Path) -> None:
        run(prepare(load_suite(str(path)), load_registry()), Recorder(), folders, command="align-bench run")

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    execute(write_suite(**few))
    store = Store(folders.runs)
    first = store.notes.all()["small"]
    assert unneeded(store) == []
    other = write_suite(**few, train={"batch_size": 4, "max_length": 128})
    with monkeypatch.context() as dying:
        dying.setattr(LocalDesk, "untrained", dies)
        with pytest.raises(KeyboardInterrupt):
            execute(other)
    during = store.notes.all()["small"]
    assert set(first.needs) < set(during.needs)
    assert during.scorers == first.scorers, "score goes on with the reward model that is there"
    assert unneeded(store) == []
    execute(other)
    left = {one.address for one in unneeded(store)}
    assert left == set(first.needs) - set(store.notes.all()["small"].needs)
    assert left
