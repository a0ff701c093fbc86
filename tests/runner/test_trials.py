"""A tuned suite from end to end: equal trials, rows kept apart, the best kept, and nothing done twice."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import truediv
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from align_bench.cli.plan_view import plan_tables
from align_bench.errors import DataError
from align_bench.planning.cells import Cell
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Tick, TokenRow, TokenTable
from align_bench.report.export import recompute
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.runner.watch import Quiet
from align_bench.stages.stage import Stage
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

PLUGINS = '''
from typing import Annotated

from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, PairScores, Range, algorithm


@algorithm(data="pairs", reference=True, paper="none", learning_rate=1e-2, reward="sign·ρ")
def turned(logps: PairLogps, *, sign: Annotated[float, Range(-1, 1)] = -1.0) -> Loss:
    """Learns the labels, or the opposite of them."""
    chosen, rejected = sign * (logps.chosen - logps.ref_chosen), sign * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)


@algorithm(data="scores", paper="none", learning_rate=1e-3, reward="r")
def brittle(scores: PairScores, *, strain: Annotated[float, Range(0, 1)] = 1.0) -> Loss:
    """Breaks under full strain, which is its default."""
    if strain == 1:
        raise ZeroDivisionError("broken")
    return Loss(-scores.chosen, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)


@algorithm(data="scores", paper="none", learning_rate=1e-3, reward="r")
def fixed(scores: PairScores) -> Loss:
    """Has nothing to tune."""
    return Loss(-scores.chosen, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)
'''
METHODS = ["rm", "turned", "brittle", "fixed"]


class Watch(Quiet):
    """Records stages and lines; interrupts one stage."""

    def __init__(self, interrupt: str = "") -> None:
        self.stages: list[str] = []
        self.said: list[str] = []
        self.interrupt = interrupt

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Tick]:
        self.stages.append(f"{cell}: {label}")

        def tick(done: int, total: int, note: str = "") -> None:
            if self.stages[-1] == self.interrupt:
                raise KeyboardInterrupt

        yield tick

    def say(self, text: str) -> None:
        self.said.append(text)


def write(folder: Path, suite: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "plugins.py").write_text(PLUGINS, encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**suite, "plugins": ["plugins.py"]}), encoding="utf-8")
    return path


def prepared_from(path: Path) -> Prepared:
    suite = load_suite(str(path))
    return prepare(suite, load_registry(path, suite.plugins))


def execute(path: Path, folders: Folders, watch: Watch | None = None, **options: Any) -> dict[str, Any]:
    return run(prepared_from(path), watch or Watch(), folders, command="align-bench run small.yaml", **options)


def shown(path: Path, runs: Path) -> str:
    """What `plan` shows in a wide terminal."""
    console = Console(file=io.StringIO(), width=300)
    for renderable in plan_tables(prepared_from(path), runs):
        console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def uncosted(value: Any) -> Any:
    """The same without any cost."""
    if isinstance(value, dict):
        return {key: uncosted(item) for key, item in value.items() if key not in ("cost", "shared")}
    return [uncosted(item) for item in value] if isinstance(value, list) else value


def grown(path: Path, runs: Path) -> Graph:
    """All that the suite asks for, by what is stored."""
    return make_graph(prepared_from(path), Results(Store(runs)))


def folder_of(runs: Path, stage: Stage[Any] | None) -> Path:
    """Where a stored artefact lies."""
    assert stage is not None
    artefact = Store(runs).peek(stage.address)
    assert artefact is not None
    return artefact.folder


def rows_of(runs: Path, table: Stage[TokenTable]) -> tuple[TokenRow, ...]:
    return Results(Store(runs)).load(table).rows


@pytest.fixture(scope="module")
def suite(small_suite: dict[str, Any]) -> dict[str, Any]:
    """Two methods that can be tuned, one whose trials fail, and one without ranges."""
    train = {"path": "embedded/planted", "rows": 24, "bias": "strong"}
    return {
        **small_suite,
        "data": {**small_suite["data"], "train": train},
        "judge": None,
        "train": {"batch_size": 4, "max_length": 128},
        "generate": {"prompts": 2, "max_new_tokens": 2},
        "tune": {"trials": 3, "holdout": 0.3, "seed": 1},
        "methods": METHODS,
    }


@pytest.fixture(scope="module")
def whole(
    suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Folders, dict[str, Any], Watch]:
    """One tuned run, shared by the tests that only look at it."""
    root = tmp_path_factory.mktemp("tuned")
    path = write(root / "suite", suite)
    folders, watch = Folders(root / "runs", root / "reports"), Watch()
    return path, folders, execute(path, folders, watch), watch


def test_every_method_has_as_many_trials_and_the_first_is_its_own_setting(whole: Any) -> None:
    path, _, report, watch = whole
    methods = report["tuning"]["methods"]
    assert {name: len(found["trials"]) for name, found in methods.items()} == {
        **dict.fromkeys(["rm", "turned", "brittle"], 3),
        "fixed": 0,
    }
    registry = load_registry(path, [str(path.parent / "plugins.py")])
    for name in ("rm", "turned", "brittle"):
        method = registry[name].algorithm
        first, *others = [trial["parameters"] for trial in methods[name]["trials"]]
        assert first == {"learning_rate": method.learning_rate, **method.resolve({})}
        assert all(
            other != first and all(other[key] in span for key, span in method.ranges.items()) for other in others
        )
    assert [stage for stage in watch.stages if stage.startswith("rm")] == [
        *(f"rm trial {number}: {label}" for number in range(3) for label in ("train", "held-out pairs")),
        "rm: choice among trials",
        "rm: train",
        "rm: validation pairs",
        "rm: audit",
    ]


def test_held_out_prompts_are_in_no_training_row_of_a_trial_and_not_in_val(whole: Any) -> None:
    path, folders, report, _ = whole
    graph = grown(path, folders.runs)
    kept, held = (rows_of(folders.runs, graph.held_out[part]) for part in ("train", "val"))
    train, val = (rows_of(folders.runs, graph.tables[split]) for split in ("train", "val"))
    prompts = {row.prompt for row in held}
    assert not prompts & {row.prompt for row in kept}
    assert not prompts & {row.prompt for row in val}
    assert sorted(row.pair for row in (*kept, *held)) == [row.pair for row in train]
    assert report["tuning"]["held_out"] == {"pairs": 7, "prompts": 7} == {"pairs": len(held), "prompts": len(prompts)}


def test_the_best_is_kept_and_trains_the_cell(whole: Any) -> None:
    path, folders, report, watch = whole
    graph = grown(path, folders.runs)
    results = Results(Store(folders.runs))
    held = rows_of(folders.runs, graph.held_out["val"])

    def accuracy(cell: Cell) -> float:
        assert cell.validation is not None
        columns = results.load(cell.validation)
        scores = {side: columns[side].tolist() for side in ("chosen", "rejected")}
        if cell.kind != "reward":
            tokens = {side: [len(getattr(row, side)) for row in held] for side in scores}
            scores = {side: list(map(truediv, own, tokens[side])) for side, own in scores.items()}
        return sum(chosen > rejected for chosen, rejected in zip(*scores.values(), strict=True)) / len(held)

    cells = {result["cell"]: result for result in report["results"]}
    for name in ("rm", "turned"):
        found, own = report["tuning"]["methods"][name], [accuracy(cell) for cell in graph.searches[name].cells]
        assert [trial["accuracy"]["value"] for trial in found["trials"]] == pytest.approx(own)
        assert all(trial["accuracy"]["n"] == 7 for trial in found["trials"])
        assert found["kept"] == own.index(max(own))
        assert cells[name]["parameters"] == found["trials"][found["kept"]]["parameters"]
        assert any(line.startswith(f"{name}: of 3 trials number {found['kept']} is kept") for line in watch.said)
    assert graph.trial_base is not None
    assert report["tuning"]["base"]["value"] == pytest.approx(accuracy(graph.trial_base))


def test_failed_trials_are_told_and_stop_nothing(whole: Any) -> None:
    _, folders, report, watch = whole
    assert {result["cell"]: result["status"] for result in report["results"]} == dict.fromkeys(
        ["base", *METHODS], "done"
    )
    failed, *others = report["tuning"]["methods"]["brittle"]["trials"]
    assert failed["status"] == "failed"
    assert "ZeroDivisionError: broken" in failed["reason"]
    assert failed["accuracy"]["value"] is failed["cost"] is None
    assert [trial["status"] for trial in others] == ["done", "done"]
    kept = report["tuning"]["methods"]["brittle"]["kept"]
    assert kept > 0
    assert report["results"][3]["parameters"] == others[kept - 1]["parameters"]
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "| brittle trial 0 | failed | the loss of brittle raised ZeroDivisionError: broken |" in text
    assert sum(line.startswith("brittle trial") for line in watch.said) == 1


def test_method_without_ranges_says_so_and_uses_its_own_setting(whole: Any) -> None:
    _, folders, report, watch = whole
    assert report["tuning"]["methods"]["fixed"] == {"trials": [], "kept": None, "cost": None}
    assert "fixed: declares no range, or trains nothing; its given parameters are used" in watch.said
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "No range declared or nothing trained, so nothing tuned: fixed." in text


def test_the_whole_budget_is_reported(whole: Any) -> None:
    _, folders, report, _ = whole
    tuning = report["tuning"]
    trials = [trial["cost"] for found in tuning["methods"].values() for trial in found["trials"] if trial["cost"]]
    assert len(trials) == 8
    for unit in ("seconds", "tokens"):
        assert tuning["cost"][unit] == pytest.approx(tuning["shared"][unit] + sum(cost[unit] for cost in trials))
        assert tuning["shared"][unit] > 0
    assert tuning["methods"]["rm"]["cost"]["tokens"] == sum(cost["tokens"] for cost in trials[:3])
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert f"{tuning['cost']['tokens']:,} tokens" in text
    for row in ("trials of rm", "trials of turned", "shared by trials", "all trials"):
        assert f"| {row} |" in text


def test_a_second_run_does_nothing(whole: Any) -> None:
    path, folders, report, _ = whole
    watch = Watch()
    assert execute(path, folders, watch) == report
    assert watch.stages == watch.said == []


def test_the_report_is_rebuilt_from_the_store_and_from_its_exports(whole: Any) -> None:
    path, folders, report, _ = whole
    fresh, watch = Folders(folders.runs, folders.reports.parent / "elsewhere"), Watch()
    assert execute(path, fresh, watch, compute=False) == {**report, "command": "align-bench run small.yaml"}
    assert watch.stages == []
    assert recompute(folders.reports / "small") == report


def test_the_found_setting_given_by_hand_is_the_same_work(whole: Any, tmp_path: Path, suite: dict[str, Any]) -> None:
    _, folders, report, _ = whole
    given = {result["cell"]: result["parameters"] for result in report["results"] if result["parameters"]}
    path = write(tmp_path / "suite", {**suite, "tune": None, "methods": [{name: given[name]} for name in METHODS]})
    watch = Watch()
    by_hand = execute(path, Folders(folders.runs, tmp_path / "reports"), watch)
    assert watch.stages == []
    assert by_hand["results"] == report["results"]
    assert "tuning" not in by_hand


def test_interrupted_trials_go_on(suite: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    train = {**suite["train"], "checkpoint_minutes": 1e-9}
    path = write(tmp_path / "suite", {**suite, "train": train, "methods": ["turned"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    with pytest.raises(KeyboardInterrupt):
        execute(path, folders, Watch(interrupt="turned trial 1: train"))
    watch = Watch()
    resumed = execute(path, folders, watch)
    assert watch.stages[0] == "turned trial 1: train"
    straight = [result for result in whole[2]["results"] if result["cell"] in ("base", "turned")]
    assert uncosted(resumed["results"]) == uncosted(straight)
    assert uncosted(resumed["tuning"]["methods"]["turned"]) == uncosted(whole[2]["tuning"]["methods"]["turned"])


def test_an_unexpected_failure_is_tried_again(suite: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["rm"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")

    class Full(Watch):
        """A disk that is full when the second trial is measured."""

        @contextmanager
        def stage(self, cell: str, label: str) -> Iterator[Tick]:
            if f"{cell}: {label}" == "rm trial 1: held-out pairs":
                raise OSError("no space left on device")
            with super().stage(cell, label) as tick:
                yield tick

    failed = execute(path, folders, Full())["tuning"]["methods"]["rm"]["trials"][1]
    assert (failed["status"], failed["reason"]) == ("failed", "OSError: no space left on device")
    watch = Watch()
    mended = execute(path, folders, watch)
    assert watch.stages[0] == "rm trial 1: held-out pairs"
    trials = mended["tuning"]["methods"]["rm"]["trials"]
    assert uncosted(trials) == uncosted(whole[2]["tuning"]["methods"]["rm"]["trials"][:2])
    assert " 0 not stored" in shown(path, folders.runs), "no policy is tuned, so nothing of the base is asked for"


def test_a_trial_whose_adapter_was_lost_meanwhile_is_trained_again(
    suite: dict[str, Any], whole: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["rm"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")

    class Lost(Watch):
        """A folder that somebody deletes before the second trial is measured."""

        @contextmanager
        def stage(self, cell: str, label: str) -> Iterator[Tick]:
            if f"{cell}: {label}" == "rm trial 1: held-out pairs":
                shutil.rmtree(next((folders.runs / "adapter").glob("rm-trial-1-*")))
            with super().stage(cell, label) as tick:
                yield tick

    failed = execute(path, folders, Lost())["tuning"]["methods"]["rm"]["trials"][1]
    assert (failed["status"], failed["reason"]) == ("failed", "rm trial 1: train: not stored")
    mended = execute(path, folders)["tuning"]["methods"]["rm"]["trials"]
    assert uncosted(mended) == uncosted(whole[2]["tuning"]["methods"]["rm"]["trials"][:2])


def test_trials_of_a_method_that_could_not_be_executed_are_tried_once_it_can(
    suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["turned"]})
    plugins = path.with_name("plugins.py")
    plugins.write_text(f"from torch.nn import no_such_name\n{PLUGINS}", encoding="utf-8")
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    trials = execute(path, folders)["tuning"]["methods"]["turned"]["trials"]
    assert [trial["status"] for trial in trials] == ["failed", "failed"]
    monkeypatch.setattr("torch.nn.no_such_name", None, raising=False)  # as a newer library may have it
    trials = execute(path, folders)["tuning"]["methods"]["turned"]["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done"]


def test_a_trial_that_failed_for_good_is_not_tried_again(suite: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    """Neither once its choice is stored nor before, while other trials are open."""
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    here = Folders(tmp_path / "runs", tmp_path / "reports")
    more = write(tmp_path / "suite", {**suite, "methods": [*METHODS, "kto"]})
    watch = Watch()
    execute(more, here, watch, methods=["kto"])
    assert {stage.split(":")[0].split(" ")[0] for stage in watch.stages} == {"kto"}
    shutil.rmtree(folder_of(here.runs, grown(path, here.runs).searches["brittle"].cells[2].validation))
    shutil.rmtree(here.runs / "trials")
    watch = Watch()
    again = execute(path, here, watch)
    choices = [f"{name}: choice among trials" for name in ("rm", "turned", "brittle")]
    assert sorted(watch.stages) == sorted(["brittle trial 2: held-out pairs", *choices])
    assert uncosted(again["tuning"]) == uncosted(report["tuning"])


def test_damaged_held_out_rows_are_needed_by_nobody_once_the_choice_is_stored(whole: Any, tmp_path: Path) -> None:
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    held = grown(path, folders.runs).held_out["val"]
    (folder_of(tmp_path / "runs", held) / "tokens.parquet").write_bytes(b"")
    watch = Watch()
    again = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), watch)
    assert uncosted(again["tuning"]) == uncosted(report["tuning"])
    assert watch.stages == []


def test_damaged_held_out_rows_are_cut_again_when_a_trial_is_measured_again(whole: Any, tmp_path: Path) -> None:
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    graph = grown(path, folders.runs)
    (folder_of(tmp_path / "runs", graph.held_out["val"]) / "tokens.parquet").write_bytes(b"")
    shutil.rmtree(folder_of(tmp_path / "runs", graph.searches["rm"].cells[1].validation))
    watch = Watch()
    again = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), watch)
    assert watch.stages == ["val: held-out rows", "rm trial 1: held-out pairs"]
    assert uncosted(again["tuning"]) == uncosted(report["tuning"])
    assert rows_of(tmp_path / "runs", graph.held_out["val"]) == rows_of(folders.runs, graph.held_out["val"])


def test_method_whose_trials_are_missing_is_skipped(whole: Any, tmp_path: Path) -> None:
    """Even where its own setting, trained on all of train, is stored: that is not what a tuned suite asks for."""
    path, folders, _, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    shutil.rmtree(folder_of(tmp_path / "runs", grown(path, folders.runs).searches["rm"].cells[0].adapter))
    watch = Watch()
    report = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), watch, methods=["fixed"])
    assert watch.stages == []
    results = {result["cell"]: result for result in report["results"]}
    assert {name: result["status"] for name, result in results.items()} == {
        **dict.fromkeys(["base", *METHODS], "done"),
        "rm": "skipped",
    }
    assert results["rm"]["reason"] == "not tuned: rm trial 0: train: not stored"
    assert results["rm"]["metrics"]["accuracy"]["value"] is None
    assert report["tuning"]["methods"]["rm"]["kept"] is None


def test_several_seeds_share_the_trials(suite: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    shutil.copytree(whole[1].runs, tmp_path / "runs")
    path = write(tmp_path / "suite", {**suite, "seeds": [0, 1], "methods": ["turned"]})
    watch = Watch()
    report = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), watch)
    assert {stage.split(":")[0] for stage in watch.stages} == {"turned#1"}
    first, second = [result["parameters"] for result in report["results"][1:]]
    assert first == second == whole[2]["results"][2]["parameters"]


def test_plan_shows_trials_and_what_they_found(suite: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    before = shown(whole[0], tmp_path / "runs")
    assert "turned: 3 trials, not all ended; its given parameters stand in" in before
    assert "│ turned trial 2  │ 0    │ ~" in before
    assert not (tmp_path / "runs").exists()
    after = shown(whole[0], whole[1].runs)
    failed = next(line for line in after.splitlines() if "brittle trial 0" in line)
    assert failed.replace(" ", "").startswith("│brittletrial0│0│failed│failed│")
    assert "missing work: 0.0 TFLOP, about 0 s" in after, "what failed for good is not tried again"
    kept = whole[2]["tuning"]["methods"]["turned"]["kept"]
    assert f"turned: of 3 trials number {kept} is kept" in after
    assert "│ turned trial 2  │ 0    │ stored" in after


def test_unpaired_rows_cannot_be_held_out(suite: dict[str, Any], tmp_path: Path) -> None:
    lines = [{"prompt": f"Say {number}.", "completion": str(number), "label": number % 2 == 0} for number in range(9)]
    file = tmp_path / "unpaired.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = write(tmp_path / "suite", {**suite, "data": {**suite["data"], "train": str(file)}, "methods": ["kto"]})
    with pytest.raises(DataError, match="0 pairs to measure on"):
        execute(path, Folders(tmp_path / "runs", tmp_path / "reports"))


def test_a_suite_without_tune_has_no_trials(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    graph = grown(write_suite(), tmp_path / "runs")
    assert graph.trials == ()
    assert graph.searches == graph.held_out == {}
