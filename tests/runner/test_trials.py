"""A tuned suite from end to end: equal trials, rows kept apart, the best kept, and nothing done twice."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import truediv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from align_bench.cli.plan_view import plan_tables
from align_bench.data.planted import planted
from align_bench.errors import DataError
from align_bench.planning.cells import Cell
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import CellId, Cost, TokenRow, TokenTable, Update
from align_bench.report.export import recompute
from align_bench.report.schema import Block, HeldOut, Report, Result, TunedMethod, Tuning
from align_bench.report.verdict import headline
from align_bench.runner.progress import NoProgress
from align_bench.runner.results import MOST_REPAIRS, Results
from align_bench.runner.run import Folders, run
from align_bench.stages.stage import Stage
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

PLUGINS = '''
from typing import Annotated

from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairScores, Range, ReferencedPairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-2, reward="sign·ρ")
def turned(logps: ReferencedPairLogps, *, sign: Annotated[float, Range(-1, 1)] = -1.0) -> Loss:
    """Learns the labels, or the opposite of them."""
    chosen, rejected = sign * (logps.chosen - logps.ref_chosen), sign * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)


@algorithm(paper="none", learning_rate=1e-3, reward="r")
def brittle(scores: PairScores, *, strain: Annotated[float, Range(0, 1)] = 1.0) -> Loss:
    """Breaks under full strain, which is its default."""
    if strain == 1:
        raise ZeroDivisionError("broken")
    return Loss(-scores.chosen, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)


@algorithm(paper="none", learning_rate=1e-3, reward="r")
def fixed(scores: PairScores) -> Loss:
    """Has nothing to tune."""
    return Loss(-scores.chosen, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)
'''
METHODS = ["rm", "turned", "brittle", "fixed"]
SIDES = ("chosen", "rejected")


class Recorder(NoProgress):
    """Records stages and lines; interrupts one stage."""

    def __init__(self, interrupt: str = "") -> None:
        self.stages: list[str] = []
        self.logged: list[str] = []
        self.interrupt = interrupt

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.stages.append(f"{cell}: {label}")

        def update(done: int, total: int, note: str = "") -> None:
            if self.stages[-1] == self.interrupt:
                raise KeyboardInterrupt

        yield update

    def log(self, text: str) -> None:
        self.logged.append(text)


Whole = tuple[Path, Folders, Report, Recorder]


def write(folder: Path, suite: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "plugins.py").write_text(PLUGINS, encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**suite, "plugins": ["plugins.py"]}), encoding="utf-8")
    return path


def prepared_from(path: Path) -> Prepared:
    suite = load_suite(str(path))
    return prepare(suite, load_registry(suite.plugins))


def execute(path: Path, folders: Folders, progress: Recorder | None = None, **options: Any) -> Report:
    return run(prepared_from(path), progress or Recorder(), folders, command="align-bench run small.yaml", **options)


def shown(path: Path, runs: Path) -> str:
    """What `plan` shows in a wide terminal."""
    console = Console(file=io.StringIO(), width=300)
    for renderable in plan_tables(prepared_from(path), runs):
        console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def uncosted(value: object) -> object:
    """The same without any cost, as JSON."""
    if isinstance(value, Block):
        return uncosted(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {key: uncosted(item) for key, item in value.items() if key not in ("cost", "shared")}
    return [uncosted(item) for item in value] if isinstance(value, list) else value


def tuning_of(report: Report) -> Tuning:
    assert report.tuning is not None
    return report.tuning


def tuned(report: Report, method: str) -> TunedMethod:
    (found,) = [one for one in tuning_of(report).methods if one.method == CellId(method)]
    return found


def by_name(report: Report) -> dict[str, Result]:
    return {result.name: result for result in report.results}


def grown(path: Path, runs: Path) -> Graph:
    """All that the suite asks for, by what is stored."""
    return make_graph(prepared_from(path), Results(Store(runs)))


def folder_of(runs: Path, stage: Stage[object] | None) -> Path:
    """Where a stored artefact lies."""
    assert stage is not None
    artefact = Store(runs).get_unverified(stage.address)
    assert artefact is not None
    return artefact.folder


def rows_of(runs: Path, table: Stage[TokenTable]) -> Sequence[TokenRow]:
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
        "audit": {"pairs": 20},
        "tune": {"trials": 3, "holdout": 0.3, "seed": 1},
        "methods": METHODS,
    }


@pytest.fixture(scope="module")
def whole(suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One tuned run, shared by the tests that only look at it."""
    root = tmp_path_factory.mktemp("tuned")
    path = write(root / "suite", suite)
    folders, progress = Folders(root / "runs", root / "reports"), Recorder()
    return path, folders, execute(path, folders, progress), progress


def test_every_method_has_as_many_trials_and_the_first_is_its_own_setting(whole: Whole) -> None:
    path, _, report, progress = whole
    assert {str(found.method): len(found.trials) for found in tuning_of(report).methods} == {
        **dict.fromkeys(["rm", "turned", "brittle"], 3),
        "fixed": 0,
    }
    registry = load_registry([str(path.parent / "plugins.py")])
    for name in ("rm", "turned", "brittle"):
        method = registry[name].algorithm
        first, *others = [trial.parameters for trial in tuned(report, name).trials]
        assert first == {"learning_rate": method.learning_rate, **method.resolve({})}
        assert all(
            other != first
            and all(isinstance(at := other[key], int | float) and at in span for key, span in method.ranges.items())
            for other in others
        )
    assert [stage for stage in progress.stages if stage.startswith("rm")] == [
        *(f"rm trial {number}: {label}" for number in range(3) for label in ("train", "held-out pairs")),
        "rm: choice among trials",
        "rm: train",
        "rm: validation pairs",
        "rm: audit",
    ]


def test_held_out_prompts_are_in_no_training_row_of_a_trial_and_not_in_val(whole: Whole) -> None:
    path, folders, report, _ = whole
    graph = grown(path, folders.runs)
    kept, held = (rows_of(folders.runs, graph.held_out[part]) for part in ("train", "val"))
    train, val = (rows_of(folders.runs, graph.tables[split]) for split in ("train", "val"))
    prompts = {row.prompt for row in held}
    assert not prompts & {row.prompt for row in kept}
    assert not prompts & {row.prompt for row in val}
    assert sorted(row.pair for row in (*kept, *held)) == [row.pair for row in train]
    assert tuning_of(report).held_out == HeldOut(pairs=7, prompts=7)
    assert (len(held), len(prompts)) == (7, 7)


def test_the_best_is_kept_and_trains_the_cell(whole: Whole) -> None:
    path, folders, report, progress = whole
    graph = grown(path, folders.runs)
    results = Results(Store(folders.runs))
    held = rows_of(folders.runs, graph.held_out["val"])

    def accuracy(cell: Cell) -> float:
        assert cell.validation is not None
        columns = results.load(cell.validation)
        scores: dict[str, list[float]] = {side: columns[side].tolist() for side in ("chosen", "rejected")}
        if cell.kind != "reward":
            tokens = {side: [len(getattr(row, side)) for row in held] for side in scores}
            scores = {side: list(map(truediv, own, tokens[side])) for side, own in scores.items()}
        return sum(
            chosen > rejected for chosen, rejected in zip(scores["chosen"], scores["rejected"], strict=True)
        ) / len(held)

    for name in ("rm", "turned"):
        found, own = tuned(report, name), [accuracy(cell) for cell in graph.searches[CellId(name)].cells]
        assert [trial.accuracy.value for trial in found.trials] == pytest.approx(own)
        assert all(trial.accuracy.n == 7 for trial in found.trials)
        assert found.kept == own.index(max(own))
        assert by_name(report)[name].parameters == found.trials[found.kept].parameters
        assert any(line.startswith(f"{name}: kept trial {found.kept} (of 3 trials)") for line in progress.logged)
    assert graph.trial_base is not None
    of_base = tuning_of(report).base
    assert of_base is not None
    assert of_base.value == pytest.approx(accuracy(graph.trial_base))


def test_failed_trials_are_told_and_stop_nothing(whole: Whole) -> None:
    _, folders, report, progress = whole
    assert {result.name: result.status for result in report.results} == dict.fromkeys(["base", *METHODS], "done")
    failed, *others = tuned(report, "brittle").trials
    assert [str(trial.cell) for trial in (failed, *others)] == [f"brittle trial {number}" for number in range(3)]
    assert failed.status == "failed"
    assert "ZeroDivisionError: broken" in (failed.reason or "")
    assert failed.accuracy.value is None
    assert failed.cost is None
    assert [trial.status for trial in others] == ["done", "done"]
    kept = tuned(report, "brittle").kept
    assert kept
    assert report.results[3].parameters == others[kept - 1].parameters
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "| brittle trial 0 | failed | the loss of brittle raised ZeroDivisionError: broken |" in text
    assert sum(line.startswith("brittle trial") and "failed" in line for line in progress.logged) == 1


def test_method_without_ranges_says_so_and_uses_its_own_setting(whole: Whole) -> None:
    _, folders, report, progress = whole
    assert tuned(report, "fixed") == TunedMethod(method=CellId("fixed"), trials=[], kept=None, cost=None)
    assert "fixed: no range declared, or nothing to train; its given parameters are used" in progress.logged
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "No range declared or nothing trained, so nothing tuned: fixed." in text


def test_the_whole_budget_is_reported(whole: Whole) -> None:
    _, folders, report, _ = whole
    tuning = tuning_of(report)
    trials = [trial.cost for found in tuning.methods for trial in found.trials if trial.cost]
    assert len(trials) == 8
    whole_cost, shared, of_rm = tuning.cost, tuning.shared, tuned(report, "rm").cost
    assert isinstance(whole_cost, Cost)
    assert isinstance(shared, Cost)
    assert isinstance(of_rm, Cost)
    for unit in ("seconds", "tokens"):
        parts = [getattr(cost, unit) for cost in trials]
        assert getattr(whole_cost, unit) == pytest.approx(getattr(shared, unit) + sum(parts))
        assert getattr(shared, unit) > 0
    assert of_rm.tokens == sum(cost.tokens for cost in trials[:3])
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert f"{whole_cost.tokens:,} tokens" in text
    for row in ("trials of rm", "trials of turned", "shared by trials", "all trials"):
        assert f"| {row} |" in text


def test_a_second_run_does_nothing(whole: Whole) -> None:
    path, folders, report, _ = whole
    progress = Recorder()
    assert execute(path, folders, progress) == report
    assert progress.stages == progress.logged == []


def test_the_report_is_rebuilt_from_the_store_and_from_its_exports(whole: Whole) -> None:
    path, folders, report, _ = whole
    fresh, progress = Folders(folders.runs, folders.reports.parent / "elsewhere"), Recorder()
    assert execute(path, fresh, progress, compute=False) == report.model_copy(
        update={"command": "align-bench run small.yaml"}
    )
    assert progress.stages == []
    assert recompute(folders.reports / "small") == report


def test_the_found_setting_given_by_hand_is_the_same_work(whole: Whole, tmp_path: Path, suite: dict[str, Any]) -> None:
    _, folders, report, _ = whole
    given = {result.name: result.parameters for result in report.results if result.parameters}
    path = write(tmp_path / "suite", {**suite, "tune": None, "methods": [{name: given[name]} for name in METHODS]})
    progress = Recorder()
    by_hand = execute(path, Folders(folders.runs, tmp_path / "reports"), progress)
    assert progress.stages == []
    assert by_hand.results == report.results
    assert by_hand.tuning is None


def test_interrupted_trials_go_on(suite: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    train = {**suite["train"], "checkpoint_minutes": 1e-9}
    path = write(tmp_path / "suite", {**suite, "train": train, "methods": ["turned"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    with pytest.raises(KeyboardInterrupt):
        execute(path, folders, Recorder(interrupt="turned trial 1: train"))
    progress = Recorder()
    resumed = execute(path, folders, progress)
    assert progress.stages[0] == "turned trial 1: train"
    straight = [result for result in whole[2].results if result.name in ("base", "turned")]
    assert uncosted(resumed.results) == uncosted(straight)
    assert uncosted(tuned(resumed, "turned")) == uncosted(tuned(whole[2], "turned"))


def test_an_unexpected_failure_is_tried_again(suite: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["rm"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")

    class Full(Recorder):
        """A disk that is full when the second trial is measured."""

        @contextmanager
        def stage(self, cell: str, label: str) -> Iterator[Update]:
            if f"{cell}: {label}" == "rm trial 1: held-out pairs":
                raise OSError("no space left on device")
            with super().stage(cell, label) as update:
                yield update

    failed = tuned(execute(path, folders, Full()), "rm").trials[1]
    assert (failed.status, failed.reason) == ("failed", "OSError: no space left on device")
    progress = Recorder()
    mended = execute(path, folders, progress)
    assert progress.stages[0] == "rm trial 1: held-out pairs"
    assert uncosted(tuned(mended, "rm").trials) == uncosted(tuned(whole[2], "rm").trials[:2])
    assert " 0 not stored" in shown(path, folders.runs), "no policy is tuned, so nothing of the base is asked for"


def test_a_trial_whose_adapter_was_lost_meanwhile_is_trained_again(
    suite: dict[str, Any], whole: Whole, tmp_path: Path
) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["rm"]})
    folders = Folders(tmp_path / "runs", tmp_path / "reports")

    class Lost(Recorder):
        """A folder that somebody deletes before the second trial is measured."""

        @contextmanager
        def stage(self, cell: str, label: str) -> Iterator[Update]:
            if f"{cell}: {label}" == "rm trial 1: held-out pairs":
                shutil.rmtree(next((folders.runs / "adapter").glob("rm-trial-1-*")))
            with super().stage(cell, label) as update:
                yield update

    watched = Lost()
    failed = tuned(execute(path, folders, watched), "rm").trials[1]
    assert watched.stages.count("rm trial 1: train") == 1 + MOST_REPAIRS
    assert (failed.status, failed.reason) == ("failed", "rm trial 1: train: not stored")
    mended = execute(path, folders)
    assert uncosted(tuned(mended, "rm").trials) == uncosted(tuned(whole[2], "rm").trials[:2])


def test_trials_of_a_method_that_could_not_be_executed_are_tried_once_it_can(
    suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "suite", {**suite, "tune": {**suite["tune"], "trials": 2}, "methods": ["turned"]})
    plugins = path.with_name("plugins.py")
    plugins.write_text(f"from torch.nn import no_such_name\n{PLUGINS}", encoding="utf-8")
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    trials = tuned(execute(path, folders), "turned").trials
    assert [trial.status for trial in trials] == ["failed", "failed"]
    monkeypatch.setattr("torch.nn.no_such_name", None, raising=False)  # as a newer library may have it
    trials = tuned(execute(path, folders), "turned").trials
    assert [trial.status for trial in trials] == ["done", "done"]


def test_a_trial_that_failed_for_good_is_not_tried_again(suite: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    """Neither once its choice is stored nor before, while other trials are open."""
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    here = Folders(tmp_path / "runs", tmp_path / "reports")
    more = write(tmp_path / "suite", {**suite, "methods": [*METHODS, "kto"]})
    progress = Recorder()
    execute(more, here, progress, methods=["kto"])
    assert {stage.split(":")[0].split(" ")[0] for stage in progress.stages} == {"kto"}
    shutil.rmtree(folder_of(here.runs, grown(path, here.runs).searches[CellId("brittle")].cells[2].validation))
    shutil.rmtree(here.runs / "trials")
    progress = Recorder()
    again = execute(path, here, progress)
    choices = [f"{name}: choice among trials" for name in ("rm", "turned", "brittle")]
    assert sorted(progress.stages) == sorted(["brittle trial 2: held-out pairs", *choices])
    assert uncosted(tuning_of(again)) == uncosted(tuning_of(report))


def test_damaged_held_out_rows_are_needed_by_nobody_once_the_choice_is_stored(whole: Whole, tmp_path: Path) -> None:
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    held = grown(path, folders.runs).held_out["val"]
    (folder_of(tmp_path / "runs", held) / "tokens.parquet").write_bytes(b"")
    progress = Recorder()
    again = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress)
    assert uncosted(tuning_of(again)) == uncosted(tuning_of(report))
    assert progress.stages == []


def test_damaged_held_out_rows_are_cut_again_when_a_trial_is_measured_again(whole: Whole, tmp_path: Path) -> None:
    path, folders, report, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    graph = grown(path, folders.runs)
    (folder_of(tmp_path / "runs", graph.held_out["val"]) / "tokens.parquet").write_bytes(b"")
    shutil.rmtree(folder_of(tmp_path / "runs", graph.searches[CellId("rm")].cells[1].validation))
    progress = Recorder()
    again = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress)
    assert progress.stages == ["val: held-out rows", "rm trial 1: held-out pairs"]
    assert uncosted(tuning_of(again)) == uncosted(tuning_of(report))
    assert rows_of(tmp_path / "runs", graph.held_out["val"]) == rows_of(folders.runs, graph.held_out["val"])


def test_method_whose_trials_are_missing_is_skipped(whole: Whole, tmp_path: Path) -> None:
    """Even where its own setting, trained on all of train, is stored: that is not what a tuned suite asks for."""
    path, folders, _, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    shutil.rmtree(folder_of(tmp_path / "runs", grown(path, folders.runs).searches[CellId("rm")].cells[0].adapter))
    progress = Recorder()
    report = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress, methods=["fixed"])
    assert progress.stages == []
    results = by_name(report)
    assert {name: result.status for name, result in results.items()} == {
        **dict.fromkeys(["base", *METHODS], "done"),
        "rm": "skipped",
    }
    assert results["rm"].reason == "not tuned: rm trial 0: train: not stored"
    assert results["rm"].metrics.accuracy.value is None
    assert tuned(report, "rm").kept is None


def test_several_seeds_share_the_trials(suite: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(whole[1].runs, tmp_path / "runs")
    path = write(tmp_path / "suite", {**suite, "seeds": [0, 1], "methods": ["turned"]})
    progress = Recorder()
    report = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress)
    assert {stage.split(":")[0] for stage in progress.stages} == {"turned#1"}
    first, second = [result.parameters for result in report.results[1:]]
    assert first == second == whole[2].results[2].parameters


def test_plan_shows_trials_and_what_they_found(suite: dict[str, Any], whole: Whole, tmp_path: Path) -> None:
    before = shown(whole[0], tmp_path / "runs")
    assert "turned: not all of its 3 trials have ended; its given parameters are used meanwhile" in before
    assert "│ turned trial 2  │ 0    │ ~" in before
    assert not (tmp_path / "runs").exists()
    after = shown(whole[0], whole[1].runs)
    failed = next(line for line in after.splitlines() if "brittle trial 0" in line)
    assert failed.replace(" ", "").startswith("│brittletrial0│0│failed│failed│")
    assert "missing work: 0.0 TFLOP, about 0 s" in after, "what failed for good is not tried again"
    kept = tuned(whole[2], "turned").kept
    assert f"turned: kept trial {kept} (of 3 trials)" in after
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
    assert graph.searches == {}
    assert graph.held_out == {}


@pytest.fixture(scope="module")
def swept(suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A sweep of one method by its held-out loss, beside a policy that learns from it, with test pairs."""
    root = tmp_path_factory.mktemp("swept")
    rm = {"learning_rate": [1e-4, 3e-2], "batch_size": [4]}
    own: dict[str, Any] = {
        "data": {**suite["data"], "test": {"path": "embedded/planted", "rows": 9}},
        "tune": {"methods": {"rm": rm}, "choose_by": "loss", "holdout": 0.3},
        "methods": ["rm", "dpo", {"rloo": {"reward": "rm", "max_new_tokens": 4}}],
        "report": {"course_figures": True},
        "quick": True,
    }
    path = write(root / "suite", {**suite, **own})
    folders, progress = Folders(root / "runs", root / "reports"), Recorder()
    return path, folders, execute(path, folders, progress), progress


def test_the_lowest_held_out_loss_is_kept_and_the_training_loss_stands_beside_it(swept: Whole) -> None:
    path, folders, report, progress = swept
    graph, results = grown(path, folders.runs), Results(Store(folders.runs))
    (found,) = tuning_of(report).methods
    trials = graph.searches[CellId("rm")].cells
    held_out = []
    for cell in trials:
        assert cell.validation is not None
        columns = results.load(cell.validation)
        margins = [float(chosen) - float(rejected) for chosen, rejected in zip(*map(columns.get, SIDES), strict=True)]
        held_out.append(sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins))
    assert [trial.loss.value for trial in found.trials] == pytest.approx(held_out)
    assert found.kept == held_out.index(min(held_out))
    assert by_name(report)["rm"].parameters == found.trials[found.kept].parameters
    rows = pq.read_table(folders.reports / "small-quick" / "training.parquet").to_pylist()
    for trial in found.trials:
        losses = [row["loss"] for row in rows if row["cell"] == str(trial.cell)]
        last = losses[-math.ceil(len(losses) / 4) :]
        assert trial.training_loss == pytest.approx(sum(last) / len(last))
    (line,) = [line for line in progress.logged if "kept trial" in line]
    assert line.startswith(f"rm: kept trial {found.kept} (of 2 trials), loss ")
    assert line.endswith(f"learning_rate={found.trials[found.kept].parameters['learning_rate']}")


def test_nothing_rests_on_a_reward_model_before_it_is_chosen(swept: Whole) -> None:
    stages = swept[3].stages
    assert stages.count("rm: train") == 1
    assert stages.index("rm: choice among trials") < stages.index("rm: train") < stages.index("rloo: train")


def test_policies_and_base_are_measured_on_the_test_pairs(swept: Whole) -> None:
    _, folders, report, progress = swept
    assert [str(found.cell) for found in report.tested] == ["base", "dpo", "rloo"]
    assert {stage for stage in progress.stages if "test pairs" in stage} == {
        f"{name}: test pairs" for name in ("base", "dpo", "rloo")
    }
    rows = pq.read_table(folders.reports / "small-quick" / "test_scores.parquet").to_pylist()
    assert {row["cell"] for row in rows} == {"base", "dpo", "rloo"}
    prompts = {pair.prompt: number for number, pair in enumerate(planted("test", rows=9))}
    assert len(prompts) == 9
    assert [row["pair"] for row in rows if row["cell"] == "dpo"] == list(range(9))
    assert recompute(folders.reports / "small-quick") == report


def test_a_lost_file_of_test_scores_is_written_again(swept: Whole, tmp_path: Path) -> None:
    path, folders, report, _ = swept
    shutil.copytree(folders.reports, tmp_path / "reports")
    lost = tmp_path / "reports" / "small-quick" / "test_scores.parquet"
    lost.unlink()
    progress = Recorder()
    assert execute(path, Folders(folders.runs, tmp_path / "reports"), progress) == report
    assert progress.stages == []
    assert lost.is_file()


def test_a_try_out_says_so_first(swept: Whole) -> None:
    assert swept[2].suite.quick
    assert headline(swept[2])[0].startswith("This is a try-out (--quick)")


def test_what_the_sweep_shows(swept: Whole) -> None:
    _, folders, report, _ = swept
    text = (folders.reports / "small-quick" / "report.md").read_text(encoding="utf-8")
    for shown in ("held-out loss", "Beside the course's report", "Base and policies on the test split", "0.758"):
        assert shown in text
    figure = folders.reports / "small-quick" / "figures" / "trials.svg"
    assert "learning_rate 0.03" in figure.read_text(encoding="utf-8")
    assert report.tuning is not None
