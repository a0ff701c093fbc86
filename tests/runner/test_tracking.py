"""Trackers: they see every step once, every table and the report, change no result, and fail no run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from align_bench.errors import SuiteError
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner import tracker_kinds
from align_bench.runner.execution import Execution
from align_bench.runner.results import Results
from align_bench.runner.run import Folders
from align_bench.runner.tracker_kinds import KINDS, Kind, Options, Table, check_trackers
from align_bench.runner.tracking import Trackers, Tracking
from align_bench.stages.train import Trained
from align_bench.store.store import Store
from align_bench.suite.load import load_suite
from tests.commands import StartCommand
from tests.runner.test_run import Recorder, execute, numbers

SECRET = "sesame-0451"
NAME = "recorder"
# A package of trackio's name: accelerate's own class calls it, in any process.
PRETENDER = """
import json, os
RECORD = os.path.join(os.path.dirname(__file__), "record.jsonl")
def init(project, name, **options):
    global config
    run = Run(name)
    config = Settings()
    return run
class Settings:
    def update(self, values, **options):
        pass
class Run:
    def __init__(self, name):
        self.name = name
    def log(self, values, step=None):
        with open(RECORD, "a") as file:
            file.write(json.dumps([self.name, step, sorted(values)]) + "\\n")
    def log_artifact(self, folder, name, type):
        with open(RECORD, "a") as file:
            file.write(json.dumps([self.name, "artefact", os.listdir(folder)]) + "\\n")
    def finish(self):
        pass
class Table:
    def __init__(self, dataframe):
        pass
"""


class Recording(GeneralTracker):  # type: ignore[misc]
    """Writes what it is given; fails in the method that is named."""

    name = NAME
    requires_logging_directory = False
    main_process_only = False
    events: list[tuple[str, str, Any]] = []  # noqa: RUF012 - as accelerate makes it, a test sees nothing but the class
    fails_in: str = ""

    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        self.run = run_name

    def _record(self, what: str, value: Any) -> None:
        if what == self.fails_in:
            raise OSError(28, "No space left on device")
        self.events.append((self.run, what, value))

    def start(self) -> None:
        print("a tracker that talks")
        self._record("start", None)

    @property
    def tracker(self) -> str:
        return self.run

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._record("settings", values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._record("log", (step, values))

    def finish(self) -> None:
        self._record("finish", None)


class RecordingKind(Kind):
    """Makes `Recording` trackers."""

    name = NAME

    def options(self, name: str, key: str, known: str | None) -> Options:
        return {"run_name": name}

    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        tracker._record("report", (sorted(path.name for path in folder.iterdir()), [table.name for table in tables]))


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What a tracker records that accelerate knows, and that counts as installed."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, NAME, Recording)
    monkeypatch.setitem(KINDS, NAME, RecordingKind)
    monkeypatch.setattr(tracker_kinds, "find_spec", lambda name: object())
    monkeypatch.setattr(Recording, "events", [])
    return Recording.events


@pytest.fixture(scope="module")
def untracked(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Folders, Any]:
    """A run without trackers."""
    root = tmp_path_factory.mktemp("untracked")
    path = root / "small.yaml"
    path.write_text(json.dumps({**small_suite, "methods": ["dpo"]}), encoding="utf-8")
    folders = Folders(root / "runs", root / "reports")
    return path, folders, execute(path, folders)


def graph_of(path: Path, folders: Folders) -> tuple[Graph, Results]:
    suite, results = load_suite(str(path)), Results(Store(folders.runs), read_only=True)
    return make_graph(prepare(suite, load_registry()), results), results


def trained(path: Path, folders: Folders) -> dict[str, Trained]:
    graph, _ = graph_of(path, folders)
    return {cell.adapter.owner: cell.adapter for cell in graph.shown if isinstance(cell.adapter, Trained)}


def copied(folders: Folders, to: Path) -> Folders:
    shutil.copytree(folders.runs, to / "runs")
    shutil.copytree(folders.reports, to / "reports")
    return Folders(to / "runs", to / "reports")


def stored(folders: Folders) -> set[str]:
    return {path.name for path in folders.runs.glob("*/*") if path.parent.name != "trackers"}


def steps_of(events: Sequence[tuple[str, str, Any]], run: str) -> list[int]:
    return [value[0] for name, what, value in events if (name, what) == (run, "log")]


def test_every_step_the_settings_and_the_report_are_tracked_and_results_are_the_same(
    untracked: tuple[Path, Folders, Any],
    recording: list[tuple[str, str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    path, before, report = untracked
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    tracked = execute(path, folders, execution=Execution(track=(NAME,)))
    assert numbers(tracked) == numbers(report)
    assert stored(folders) == stored(before)
    _, results = graph_of(path, folders)
    adapters = trained(path, folders)
    assert list(adapters) == ["judge", "dpo"]
    for name, stage in adapters.items():
        entries = results.load(stage)
        logged = [value for run, what, value in recording if (run, what) == (name, "log")]
        assert logged == [(entry["step"], _without_step(entry)) for entry in entries]
        assert len(logged) == 3
        [settings] = [value for run, what, value in recording if (run, what) == (name, "settings")]
        assert settings["train.batch_size"] == 8
        assert settings["seed"] == 0
        assert all(value is None or isinstance(value, bool | int | float | str) for value in settings.values())
    [(files, tables)] = [value for run, what, value in recording if (run, what) == ("report", "report")]
    assert {"report.json", "report.html", "tables", "scores.parquet"} <= set(files)
    assert {"leaderboard", "comparisons", "metrics"} <= set(tables)
    ended = [run for run, what, _ in recording if what == "finish"]
    assert ended == ["judge", "dpo", "report"]
    assert SECRET not in repr(recording)
    assert "a tracker that talks" not in capsys.readouterr().out
    # Once more: nothing is missing anywhere.
    recording.clear()
    execute(path, folders, execution=Execution(track=(NAME,)))
    assert recording == []


def _without_step(entry: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if name != "step"}


def test_what_was_trained_without_a_tracker_is_added(
    untracked: tuple[Path, Folders, Any], recording: list[tuple[str, str, Any]], tmp_path: Path
) -> None:
    path, before, _ = untracked
    folders, progress = copied(before, tmp_path), Recorder()
    execute(path, folders, progress, execution=Execution(track=(NAME,)))
    assert progress.stages == []
    assert steps_of(recording, "judge") == steps_of(recording, "dpo") == [1, 2, 3]
    assert [run for run, what, _ in recording if what == "report"] == ["report"]


def test_a_training_that_goes_on_after_a_kill_doubles_no_step(
    untracked: tuple[Path, Folders, Any], recording: list[tuple[str, str, Any]], tmp_path: Path
) -> None:
    path, folders, _ = untracked
    stage = trained(path, folders)["dpo"]
    tracking = Tracking((NAME,), "small", tmp_path)
    killed = Trackers(tracking, pytest.fail).steps(stage)
    log = killed.__enter__()
    for step in (1, 2, 3):
        log({"step": step, "loss": 1.0})
    # The next process goes on from the checkpoint after step 1.
    with Trackers(tracking, pytest.fail).steps(stage) as log:
        for step in (2, 3, 4, 5):
            log({"step": step, "loss": 1.0})
    assert steps_of(recording, "dpo") == [1, 2, 3, 4, 5]
    assert [what for _, what, _ in recording if what == "settings"] == ["settings"]


def test_a_note_that_cannot_be_read_counts_as_none(
    untracked: tuple[Path, Folders, Any], recording: list[tuple[str, str, Any]], tmp_path: Path
) -> None:
    path, folders, _ = untracked
    stage, tracking = trained(path, folders)["dpo"], Tracking((NAME,), "small", tmp_path)
    for _ in range(2):
        with Trackers(tracking, pytest.fail).steps(stage) as log:
            log({"step": 1, "loss": 1.0})
        [note] = (tmp_path / "trackers" / NAME / "logged").iterdir()
        note.write_text("{", encoding="utf-8")
    assert steps_of(recording, "dpo") == [1, 1]


@pytest.mark.parametrize("method", ["start", "log", "report", "finish"])
def test_a_tracker_that_fails_is_said_once_and_fails_no_cell(
    method: str,
    untracked: tuple[Path, Folders, Any],
    recording: list[tuple[str, str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recording, "fails_in", method)
    path, before, _ = untracked
    progress = Recorder()
    while_it_trains = method == "log"
    folders = Folders(tmp_path / "runs", tmp_path / "reports") if while_it_trains else copied(before, tmp_path)
    report = execute(path, folders, progress, execution=Execution(track=(NAME,)))
    assert {result.status for result in report.results} == {"done"}
    assert [line for line in progress.logged if "--track" in line] == [
        "--track recorder: it failed, and the run goes on without it (OSError: [Errno 28] No space left on device)"
    ]


def test_unknown_and_missing_trackers_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SuiteError, match=r"no such tracker. Did you mean mlflow\? Known trackers: mlflow, tensorboard"):
        Execution(track=("mlfow",))
    monkeypatch.setattr(tracker_kinds, "find_spec", lambda name: None)
    with pytest.raises(SuiteError, match="--track wandb: wandb is not installed") as told:
        check_trackers(["wandb"])
    assert told.value.fix == "pip install 'align-bench[wandb]'"


def test_nothing_leaves_the_machine_unless_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {"WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://localhost:1", "TRACKIO_SPACE_ID": "me/space"}
    for name in asked:
        monkeypatch.delenv(name, raising=False)
    here = [kind(tmp_path, "small") for kind in KINDS.values()]
    assert {kind.destination for kind in here} == {""}
    environment = {name: value for kind in here for name, value in kind.environment.items()}
    assert environment["WANDB_MODE"] == "offline"
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["TRACKIO_DIR"] == str(tmp_path)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert sum(bool(kind(tmp_path, "small").destination) for kind in KINDS.values()) == 3


def test_workers_track_too(write_suite: Callable[..., Path], start_command: StartCommand, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "trackio.py").write_text(PRETENDER, encoding="utf-8")
    suite = write_suite(methods=["dpo", "simpo"])
    command = start_command("run", str(suite), "--jobs", "2", "--track", "trackio", cwd=tmp_path, packages=packages)
    assert command.wait() == 0, command.said
    assert "--track" not in command.said
    record = packages / "record.jsonl"
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    seen = {run.partition(" ")[0]: [step for name, step, _ in lines if name == run] for run, _, _ in lines}
    assert seen == {"judge": [1, 2, 3], "dpo": [1, 2, 3], "simpo": [1, 2, 3], "report": [None, "artefact"]}


# The real ones, where they are installed.


def track_three_steps(name: str, untracked: tuple[Path, Folders, Any], runs: Path) -> None:
    """Three steps of a training, killed after the second; then the report."""
    path, folders, report = untracked
    graph, results = graph_of(path, folders)
    tracking = Tracking((name,), "small", runs)
    stage = trained(path, folders)["dpo"]
    entries = results.load(stage)
    for several in (entries[:2], entries[1:]):
        with Trackers(tracking, pytest.fail).steps(stage) as log:
            for entry in several:
                log(entry)
    Trackers(tracking, pytest.fail).complete(graph, results, report, folders.reports / "small")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_steps_tables_and_report(untracked: tuple[Path, Folders, Any], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    track_three_steps("mlflow", untracked, tmp_path)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path}/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"judge", "dpo", "report"}
    dpo = runs["dpo"].info.run_id
    assert [metric.step for metric in client.get_metric_history(dpo, "loss")] == [1, 2, 3]
    assert runs["dpo"].data.params["method"] == "dpo"
    assert runs["dpo"].data.tags["mlflow.source.git.repoURL"] == ""
    kept = runs["report"].info.run_id
    assert "tables/leaderboard.json" in {file.path for file in client.list_artifacts(kept, "tables")}
    assert "report/report.html" in {file.path for file in client.list_artifacts(kept, "report")}
    assert (tmp_path / "trackers" / "mlflow" / "artifacts").is_dir()


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_steps_and_tables(untracked: tuple[Path, Folders, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track_three_steps("tensorboard", untracked, tmp_path)
    found = {}
    for folder in (tmp_path / "trackers" / "tensorboard" / "small").iterdir():
        found[folder.name.rpartition("-")[0]] = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in found["dpo"].Scalars("loss")] == [1, 2, 3]
    assert "tables/leaderboard/text_summary" in found["report"].Tags()["tensors"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_has_steps_tables_and_report_offline(
    untracked: tuple[Path, Folders, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 30 + SECRET.replace("-", ""))
    track_three_steps("wandb", untracked, tmp_path)
    steps: dict[str, list[int]] = {}
    artefacts = []
    for file in sorted((tmp_path / "trackers" / "wandb").glob("offline-run-*/run-*.wandb")):
        records = [wandb_internal_pb2.Record.FromString(data) for data in _wandb_records(file)]
        name = next(one.run.display_name for one in records if one.WhichOneof("record_type") == "run")
        steps.setdefault(name, []).extend(one.history.step.num for one in records if one.HasField("history"))
        artefacts += [one.artifact.name for one in records if one.HasField("artifact")]
    assert steps["dpo"] == [1, 2, 3]
    assert "report-small" in artefacts
    assert any("leaderboard" in name for name in artefacts)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.replace("-", "").encode() not in everything


def _wandb_records(file: Path) -> list[bytes]:
    """The records of an offline run: a log of blocks, as LevelDB writes them, after a header of seven bytes."""
    data, place, whole, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, last = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6] in (1, 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if last:
            found.append(whole)
            whole = b""
    return found


def test_trackio_has_steps_tables_and_report(untracked: tuple[Path, Folders, Any], tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import sqlite3

    path, folders, _ = untracked
    script = (
        "from pathlib import Path\n"
        "from align_bench.report.export import read_report\n"
        "from tests.runner.test_tracking import Folders, track_three_steps\n"
        f"folders = Folders(Path({str(folders.runs)!r}), Path({str(folders.reports)!r}))\n"
        f"ran = Path({str(path)!r}), folders, read_report(folders.reports / 'small')\n"
        f"track_three_steps('trackio', ran, Path({str(tmp_path)!r}))"
    )
    # In a process of its own: trackio reads the name of its folder once.
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    with sqlite3.connect(tmp_path / "trackers" / "trackio" / "small.db") as database:
        rows = database.execute("SELECT run_name, step FROM metrics ORDER BY id").fetchall()
        artefacts = database.execute("SELECT name FROM artifacts").fetchall()
    assert [step for name, step in rows if name.startswith("dpo ")] == [1, 2, 3]
    assert artefacts == [("report-small",)]
