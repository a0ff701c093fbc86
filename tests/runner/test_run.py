"""A whole suite on a tiny random model: what it leaves, that it resumes, and that one failure stops nothing else."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from align_bench.cli.plan_view import remaining
from align_bench.errors import MissingResultError, PluginError, SuiteError
from align_bench.models import load
from align_bench.models.base import find_base
from align_bench.models.load import load_policy, load_scorer
from align_bench.models.precision import Precision, resolve_precision
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Comparison, Estimate, Update, no_update
from align_bench.report.export import read_generations, read_pairs, read_report, read_scores, read_training, recompute
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Baselines, Report, Result
from align_bench.runner import costs, desk
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.store.store import Store
from align_bench.suite.load import load_suite


class Recorder:
    """Records what a run says and which stages it goes through."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.logged: list[str] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.stages.append(f"{cell}: {label}")
        yield no_update

    def log(self, text: str) -> None:
        self.logged.append(text)


Whole = tuple[Path, Folders, Report, Recorder]


def named_by_the_user(suite: Path) -> list[str]:
    """The folder of plugins beside a suite, as `--plugin` would name it."""
    folder = suite.parent / "algorithms"
    return [str(folder)] if folder.is_dir() else []


def execute(path: Path, folders: Folders, progress: Recorder | None = None, **options: Any) -> Report:
    suite = load_suite(str(path))
    prepared = prepare(suite, load_registry(suite.plugins, named_by_the_user(path)))
    return run(prepared, progress or Recorder(), folders, command="align-bench run small.yaml", **options)


def numbers(report: Report) -> tuple[list[Result], list[Comparison], Baselines]:
    """What must be the same in every run: all but costs."""
    results = [result.model_copy(update={"cost": None}) for result in report.results]
    return results, report.comparisons, report.baselines


def by_name(report: Report) -> dict[str, Result]:
    return {result.name: result for result in report.results}


def scores_of(folders: Folders, cell: str) -> list[ScoreRow]:
    return [row for row in read_scores(folders.reports / "small") if row.cell == cell]


def mean_logp(row: ScoreRow) -> float:
    """Log-probability of the chosen answer, per token."""
    assert row.chosen_logp is not None
    assert row.chosen_tokens is not None
    return row.chosen_logp / row.chosen_tokens


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "runs", tmp_path / "reports")


@pytest.fixture(scope="module")
def whole(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One run of all built-in methods, shared by the tests that only look at it."""
    root = tmp_path_factory.mktemp("whole")
    suite = {
        **small_suite,
        "generate": {"prompts": 8, "max_new_tokens": 6, "temperature": 1.0},
        "audit": {"pairs": 20},
        "methods": ["rm", {"dpo": {"learning_rate": 1e-2}}, "kto", "simpo", "orpo"],
    }
    path = root / "suite" / "small.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    folders, progress = Folders(root / "runs", root / "reports"), Recorder()
    return path, folders, execute(path, folders, progress), progress


def test_every_cell_is_done(whole: Whole) -> None:
    _, _, report, progress = whole
    assert {(result.name, result.kind, result.status) for result in report.results} == {
        ("judge", "reward", "done"),
        ("base", "base", "done"),
        ("rm", "reward", "done"),
        ("dpo", "policy", "done"),
        ("kto", "policy", "done"),
        ("simpo", "policy", "done"),
        ("orpo", "policy", "done"),
    }
    assert all(result.name == str(result.cell) for result in report.results)
    assert any("24 rows read (embedded/planted)" in said for said in progress.logged)
    assert any("parameters" in said and "fp32/float32/cpu" in said for said in progress.logged)
    done = [said.split(": done in ")[0] for said in progress.logged if ": done in " in said]
    assert sorted(done) == sorted(result.name for result in report.results)  # a line for each finished cell


def test_shared_work_is_done_once(whole: Whole) -> None:
    _, _, _, progress = whole
    references = [stage for stage in progress.stages if "log-probs" in stage]
    # dpo and kto read the same reference, kto that of mismatched answers too; simpo and orpo none.
    assert references == ["dpo: reference log-probs", "kto: mismatched log-probs"]
    assert progress.stages.count("base: validation pairs") == progress.stages.count("judge: train") == 1


def test_the_whole_runs_progress_expects_the_stages_that_come(whole: Whole, tmp_path: Path) -> None:
    path, folders, _, progress = whole
    suite = load_suite(str(path))
    prepared = prepare(suite, load_registry(suite.plugins))
    ahead = remaining(prepared, tmp_path)
    expected = ahead.seconds
    without_model = (": tokens", ": rows shared with train")  # over in a moment, and not estimated
    shown = {stage for stage in progress.stages if not stage.endswith(without_model)}
    assert {f"{cell}: {label}" for cell, label in expected} == shown
    assert all(seconds > 0 for seconds in expected.values())
    assert ahead.found() is None
    done = remaining(prepared, folders.runs)
    assert (done.seconds, done.missing, done.stored, done.found()) == ({}, 0, ahead.missing, None)


def test_report_holds_what_the_design_promises(whole: Whole) -> None:
    _, folders, report, _ = whole
    folder = folders.reports / "small"
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {"suite", "base", "data", "judges", "environment", "results", "comparisons"} <= written.keys()
    for result in written["results"]:
        assert {"algorithm", "kind", "parameters", "seed", "status", "reason", "metrics", "cost"} <= result.keys()
        assert set(result["cost"]) == {"seconds", "tokens", "peak_bytes", "flops", "utilisation", "threads", "device"}
        assert result["cost"]["flops"] > 0
        assert result["cost"]["utilisation"] > 0
        single = {name: metric for name, metric in result["metrics"].items() if not isinstance(metric, list)}
        assert result["metrics"].keys() - single.keys() == {"attacked", "other_judges", "proxies"}
        for metric in single.values():
            assert set(metric) == {"value", "low", "high", "n", "wanted"}
    assert report.data["val"].read["kept"] == 20
    assert written == report.model_dump(mode="json")
    assert report == read_report(folder)
    assert report.made is not None
    assert abs(date.today() - date.fromisoformat(report.made)).days <= 1
    assert {pair.gold is None for pair in read_pairs(folder)} == {False}
    assert "align-bench run small.yaml" in (folder / "report.md").read_text(encoding="utf-8")


def test_parameters_outside_their_range_are_told_once_and_kept(whole: Whole) -> None:
    _, folders, report, progress = whole
    said = "learning_rate=0.01 is outside the range 5e-06–0.0005 that dpo declares (LoRA adapters)"
    assert [line for line in progress.logged if "outside" in line] == [f"dpo: {said}"]
    assert {result.name: result.warnings for result in report.results if result.warnings} == {"dpo": [said]}
    assert f"- dpo: {said}." in (folders.reports / "small" / "report.md").read_text(encoding="utf-8").replace("\\", "")


def test_report_can_be_recomputed_from_its_exports(whole: Whole) -> None:
    _, folders, report, _ = whole
    assert numbers(recompute(folders.reports / "small")) == numbers(report)


def test_scores_are_the_policies_own_rewards(whole: Whole) -> None:
    _, folders, _, _ = whole
    rows = scores_of(folders, "dpo")
    assert len(rows) == 20
    for row in rows:
        assert row.chosen_logp is not None
        assert row.ref_chosen_logp is not None
        expected = 0.1 * (row.chosen_logp - row.ref_chosen_logp)
        assert row.chosen_reward == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert any(abs(row.chosen_reward or 0) > 1e-4 for row in rows)
    base = scores_of(folders, "base")
    assert base[0].chosen_reward == pytest.approx(mean_logp(base[0]), rel=1e-5)


def test_every_step_of_every_training_is_exported(whole: Whole) -> None:
    _, folders, report, _ = whole
    rows = read_training(folders.reports / "small")
    for result in report.results:
        own = [row for row in rows if row.cell == result.name]
        assert [row.step for row in own] == list(range(1, len(own) + 1))
        assert bool(own) == (result.kind != "base")
        assert all(row.loss is not None and math.isfinite(row.loss) for row in own)
        assert all(row.algorithm == result.algorithm for row in own)
    assert next(row for row in rows if row.cell == "dpo").loss == pytest.approx(math.log(2), rel=1e-4)


def test_generations_carry_both_judges(whole: Whole) -> None:
    _, folders, _, _ = whole
    records = read_generations(folders.reports / "small")
    assert {record.cell for record in records} == {"base", "dpo", "kto", "simpo", "orpo"}
    assert all(set(record.scores) == {"rm", "gold"} and not record.proxies for record in records)
    assert len({record.prompt_id for record in records}) == 8


def test_adapters_hold_no_pickle(whole: Whole) -> None:
    _, folders, _, _ = whole
    files = [path for path in folders.runs.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".md", ".parquet", ".lock"}
    assert all(path.stat().st_size == 0 for path in files if path.suffix == ".lock")


def test_a_second_run_does_nothing(whole: Whole) -> None:
    path, folders, report, _ = whole
    progress = Recorder()
    assert execute(path, folders, progress) == report
    assert progress.stages == progress.logged == []


def test_another_margin_of_equivalence_rebuilds_the_report_alone(whole: Whole, tmp_path: Path) -> None:
    path, folders, report, _ = whole
    changed = tmp_path / "small.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed.write_text(yaml.safe_dump({**raw, "report": {"equivalence_dz": 0.5}}), encoding="utf-8")
    shutil.copytree(folders.reports, tmp_path / "reports")
    progress = Recorder()
    rebuilt = execute(changed, Folders(folders.runs, tmp_path / "reports"), progress)
    assert progress.stages == []
    wider = [
        (found.margin, before.margin)
        for found, before in zip(rebuilt.comparisons, report.comparisons, strict=True)
        if found.margin
    ]
    assert all(before is not None and margin == pytest.approx(5 * before) for margin, before in wider)
    assert wider


def test_the_report_is_rebuilt_without_a_model(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folders, report, _ = whole
    monkeypatch.setattr("align_bench.models.load.load_policy", None)
    monkeypatch.setattr("align_bench.models.load.load_scorer", None)
    fresh = Folders(folders.runs, folders.reports.parent / "elsewhere")
    progress = Recorder()
    assert numbers(execute(path, fresh, progress, compute=False)) == numbers(report)
    assert progress.stages == []


def test_the_same_seed_gives_the_same_numbers_to_the_last_digit(whole: Whole, folders: Folders) -> None:
    path, _, report, _ = whole
    assert numbers(execute(path, folders)) == numbers(report)


def test_a_changed_method_runs_alone(whole: Whole, tmp_path: Path) -> None:
    path, folders, _, _ = whole
    shutil.copytree(folders.runs, tmp_path / "runs")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["methods"][1] = {"dpo": {"learning_rate": 2e-2}}
    changed = tmp_path / "suite" / "small.yaml"
    changed.parent.mkdir()
    changed.write_text(yaml.safe_dump(raw), encoding="utf-8")
    progress = Recorder()
    execute(changed, Folders(tmp_path / "runs", tmp_path / "reports"), progress)
    assert progress.stages == ["dpo: train", "dpo: validation pairs", "dpo: generate", "dpo: drift", "dpo: judge"]


def test_a_sweep_of_batch_sizes_and_epochs(write_suite: Callable[..., Path], folders: Folders) -> None:
    """The course's sweep of gradient accumulation: more answers a step, fewer steps."""
    path = write_suite(methods=[{"rm": {"batch_size": [4, 12]}}, {"dpo": {"epochs": 2}}], seeds=[0])
    report = execute(path, folders)
    rows = report.data["train"].tokens["kept"]
    steps: dict[str, int] = {}
    for row in read_training(folders.reports / "small"):
        steps[row.cell] = max(row.step, steps.get(row.cell, 0))
    assert steps["rm[batch_size=4]"] == -(-rows // 4)
    assert steps["rm[batch_size=12]"] == -(-rows // 12)
    assert steps["dpo"] == 2 * -(-rows // 8)
    parameters = {result.name: result.parameters for result in report.results}
    assert parameters["rm[batch_size=12]"]["batch_size"] == 12
    assert parameters["dpo"]["epochs"] == 2
    assert (folders.reports / "small" / "figures" / "sweeps.svg").is_file()


def test_only_some_methods(write_suite: Callable[..., Path], folders: Folders) -> None:
    report = execute(write_suite(methods=["dpo", "simpo"]), folders, methods=["simpo", "base"])
    assert {result.name: result.status for result in report.results} == {
        "judge": "done",
        "base": "done",
        "dpo": "skipped",
        "simpo": "done",
    }


def test_graphs_without_effect_are_said_once(write_suite: Callable[..., Path], folders: Folders) -> None:
    progress = Recorder()
    asked = {"batch_size": 8, "max_length": 128, "cuda_graphs": True}
    written = {"prompts": 2, "max_new_tokens": 2, "cuda_graphs": True}
    execute(write_suite(methods=["simpo"], judge=None, train=asked, generate=written), folders, progress)
    said = [line for line in progress.logged if "cuda_graphs" in line]
    assert said == [f"{part}.cuda_graphs: true, without effect on cpu" for part in ("train", "generate")]


def test_nothing_stored_and_nothing_may_be_computed(write_suite: Callable[..., Path], folders: Folders) -> None:
    with pytest.raises(MissingResultError, match="nothing of the suite small is stored"):
        execute(write_suite(), folders, compute=False)


JUDGED = {"data": {"path": "embedded/planted", "rows": 24}}
PLUGIN = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-3, reward="s")
def raises(logps: PairLogps) -> Loss:
    """A loss that cannot be computed."""
    raise ZeroDivisionError("no luck")
'''
MISSING = "from torch.nn import no_such_name\n"
MENDED = ('raise ZeroDivisionError("no luck")', "return Loss(-logps.chosen, logps.chosen, logps.rejected)")


def test_one_failed_cell_does_not_stop_the_others(write_suite: Callable[..., Path], folders: Folders) -> None:
    path = write_suite(methods=["raises", "simpo"])
    (path.parent / "algorithms").mkdir()
    plugin = path.parent / "algorithms" / "raises.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    results = by_name(execute(path, folders))
    assert results["simpo"].status == "done"
    assert results["raises"].status == "failed"
    assert "the loss of raises raised ZeroDivisionError: no luck" in (results["raises"].reason or "")
    assert results["raises"].metrics.accuracy.value is None
    # A rebuilt report still knows why; a mended plugin runs its own cell and nothing else.
    rebuilt = by_name(execute(path, folders, compute=False))
    assert rebuilt["raises"] == results["raises"]
    plugin.write_text(PLUGIN.replace(*MENDED), encoding="utf-8")
    progress = Recorder()
    assert {result.status for result in execute(path, folders, progress).results} == {"done"}
    assert {stage.split(":")[0] for stage in progress.stages} == {"raises"}


def test_a_method_that_cannot_be_executed_fails_before_anything_is_made_for_it(
    write_suite: Callable[..., Path], folders: Folders
) -> None:
    """It reads well, so that it is planned, and needs what an installed package does not have."""
    path = write_suite(methods=["needy", "simpo"], judge=None)
    (path.parent / "algorithms").mkdir()
    plugin = path.parent / "algorithms" / "needy.py"
    needy = PLUGIN.replace("raises", "needy").replace("PairLogps", "ReferencedPairLogps")
    plugin.write_text(f"{MISSING}{needy}", encoding="utf-8")
    progress = Recorder()
    results = by_name(execute(path, folders, progress))
    assert {cell: result.status for cell, result in results.items()} == {
        "base": "done",
        "needy": "failed",
        "simpo": "done",
    }
    assert "cannot import name 'no_such_name'" in (results["needy"].reason or "")
    assert not [stage for stage in progress.stages if stage.startswith("needy")]
    assert len([line for line in progress.logged if line.startswith("needy: train failed: ")]) == 1
    rebuilt = by_name(execute(path, folders, compute=False))
    assert rebuilt["needy"] == results["needy"]
    plugin.write_text(
        needy.replace('raise ZeroDivisionError("no luck")', "return Loss(-logps.chosen, logps.chosen, logps.rejected)")
    )
    assert {result.status for result in execute(path, folders).results} == {"done"}


def test_a_trainer_that_is_gone_fails_its_own_method_and_its_return_mends_it(
    write_suite: Callable[..., Path], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_suite(methods=["trl_dpo", {"best_of_n": {"reward": "rm", "n": 2}}, "rm"], judge=None)
    with monkeypatch.context() as patch:
        patch.setattr(trl, "DPOTrainer", None)
        results = by_name(execute(path, folders))
    assert results["trl_dpo"].status == "failed"
    assert (results["trl_dpo"].reason or "").startswith("trl_dpo cannot train here: ")
    assert {results[cell].status for cell in ("base", "rm", "best_of_n")} == {"done"}
    progress = Recorder()
    assert {result.status for result in execute(path, folders, progress).results} == {"done"}
    assert {stage.split(":")[0] for stage in progress.stages} == {"trl_dpo"}


def test_a_run_whose_methods_all_cannot_be_executed_ends_with_a_report(
    write_suite: Callable[..., Path], folders: Folders
) -> None:
    """A reward model that cannot be had takes with it what rests on it, and nothing is drawn for that."""
    path = write_suite(methods=[{"best_of_n": {"reward": "needy"}}, "needy"], judge={"method": "needy", **JUDGED})
    (path.parent / "algorithms").mkdir()
    text = PLUGIN.replace("raises", "needy").replace("PairLogps", "PairScores")
    (path.parent / "algorithms" / "needy.py").write_text(f"{MISSING}{text}", encoding="utf-8")
    progress = Recorder()
    report = execute(path, folders, progress)
    assert {result.name: result.status for result in report.results} == {
        "judge": "failed",
        "base": "done",
        "best_of_n": "failed",
        "needy": "failed",
    }
    assert all("no_such_name" in (result.reason or "") for result in report.results if result.status == "failed")
    assert not [stage for stage in progress.stages if stage.startswith(("best_of_n", "needy"))]


RECIPE = '''
import torch

from align_bench.api import Job, recipe


@recipe(data="{data}", paper="none", learning_rate=1e-3, libraries={libraries})
def taken(job: Job, *, size: float = 0.5) -> None:
    """Fills the adapter with one number."""
    with torch.no_grad():
        for parameter in job.model.parameters():
            if parameter.requires_grad:
                parameter.fill_(size)
    (job.scratch / "rest").write_text("left behind")
    for _ in job.batches:
        job.log({{"loss": 1.0}})
'''


def test_a_recipe_is_a_method_like_any_other(write_suite: Callable[..., Path], folders: Folders) -> None:
    path = write_suite(methods=[{"taken": {"size": [0.0, 0.5]}}])
    (path.parent / "algorithms").mkdir()
    plugin = path.parent / "algorithms" / "taken.py"
    plugin.write_text(RECIPE.format(data="pairs", libraries=("torch",)), encoding="utf-8")
    report = execute(path, folders)
    assert {result.status for result in report.results} == {"done"}
    rows = {cell: scores_of(folders, cell) for cell in ("base", "taken[size=0.0]", "taken[size=0.5]")}
    for same, moved, row in zip(rows["taken[size=0.0]"], rows["taken[size=0.5]"], rows["base"], strict=True):
        assert same.chosen_reward == row.chosen_reward
        assert moved.chosen_reward != row.chosen_reward
        assert moved.chosen_reward == pytest.approx(mean_logp(moved))
    assert not list(folders.runs.rglob("rest"))
    plugin.write_text(RECIPE.format(data="scores", libraries=()), encoding="utf-8")
    assert {result.kind for result in execute(path, folders).results} == {"reward", "base"}


ONLINE = {"generations": 2, "max_new_tokens": 4}


def test_a_policy_learns_from_the_gold_judge(write_suite: Callable[..., Path], folders: Folders) -> None:
    path = write_suite(methods=[{"trl_rloo": ONLINE}], judge=None)
    assert by_name(execute(path, folders))["trl_rloo"].status == "done"
    log = json.loads(next(folders.runs.rglob("log.jsonl")).read_text(encoding="utf-8").splitlines()[-1])
    assert 0 <= log["reward"] <= 1


def test_a_reward_that_cannot_be_had_is_told_before_any_work(
    write_suite: Callable[..., Path], folders: Folders
) -> None:
    path = write_suite(methods=["dpo", {"trl_rloo": {"reward": "dpo"}}])
    with pytest.raises(SuiteError, match="trl_rloo: reward: 'dpo' is not a reward model of this suite"):
        execute(path, folders)
    assert not folders.runs.exists()


def test_a_library_that_a_recipe_lacks_is_told_before_any_work(write_suite: Callable[..., Path]) -> None:
    path = write_suite(methods=["taken"])
    (path.parent / "algorithms").mkdir()
    text = RECIPE.format(data="pairs", libraries=("no-such-library",))
    (path.parent / "algorithms" / "taken.py").write_text(text, encoding="utf-8")
    with pytest.raises(PluginError, match="taken trains with no-such-library, which is not installed"):
        prepare(load_suite(str(path)), load_registry(extra=named_by_the_user(path)))


def test_a_failed_judge_leaves_the_rest(write_suite: Callable[..., Path], folders: Folders) -> None:
    judge = {"method": "rm", "data": {"path": "embedded/planted", "rows": 24}, "parameters": {"learning_rate": 1e30}}
    report = execute(write_suite(judge=judge, methods=["dpo"]), folders)
    results = by_name(report)
    assert results["judge"].status == "failed"
    assert "diverged" in (results["judge"].reason or "")
    assert results["dpo"].status == "done"
    assert results["dpo"].metrics.judge_reward_mean.value is None
    assert results["dpo"].metrics.gold_accuracy.value is not None


def test_a_damaged_artefact_is_made_again(write_suite: Callable[..., Path], folders: Folders) -> None:
    path = write_suite(methods=["dpo"])
    before = execute(path, folders)
    answers = sorted(folders.runs.glob("generations/*/answers.jsonl"))[0]
    answers.write_text("{}", encoding="utf-8")
    shutil.rmtree(folders.reports)
    progress = Recorder()
    assert numbers(execute(path, folders, progress)) == numbers(before)
    assert len([stage for stage in progress.stages if "generate" in stage]) == 1


def test_what_another_run_makes_meanwhile_is_waited_for_and_not_made_again(
    write_suite: Callable[..., Path], folders: Folders, tmp_path: Path
) -> None:
    path = write_suite(methods=["simpo"], judge=None)
    other = Folders(tmp_path / "other", tmp_path / "other reports")
    expected = numbers(execute(path, other))
    graph = make_graph(prepare(load_suite(str(path)), load_registry()), Results(Store(folders.runs)))
    adapter = graph.cells[0].adapter
    assert adapter is not None
    held = Store(folders.runs).try_lock(adapter.address)
    assert held is not None

    def finish() -> None:
        made = Results(Store(other.runs)).artefact(adapter).folder
        shutil.copytree(made, folders.runs / made.relative_to(other.runs))
        held.release()

    class Waiting(Recorder):
        """The other run is done with the adapter as soon as it is waited for."""

        def log(self, text: str) -> None:
            super().log(text)
            if text.startswith("waiting for"):
                finish()

    progress = Waiting()
    assert numbers(execute(path, folders, progress)) == expected
    waited = [line for line in progress.logged if "waiting" in line]
    assert waited == ["waiting for simpo: train, which another run is making"]
    assert "simpo: train" not in progress.stages
    assert "simpo: generate" in progress.stages


def test_unpaired_data_trains_kto_and_fails_pair_methods(
    write_suite: Callable[..., Path], folders: Folders, tmp_path: Path
) -> None:
    lines = [
        {"prompt": f"What is {number} plus 1?", "completion": f"{number + 1 + number % 2}.", "label": number % 2 == 0}
        for number in range(12)
    ]
    file = tmp_path / "unpaired.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = write_suite(
        data={"train": str(file), "val": {"path": "embedded/planted", "rows": 20}}, judge=None, methods=["kto", "dpo"]
    )
    results = by_name(execute(path, folders))
    assert results["kto"].status == "done"
    assert results["dpo"].status == "failed"
    assert "one answer" in (results["dpo"].reason or "")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loadings of a base, as they come."""
    seen: list[str] = []

    def counting(name: str, loading: Any) -> Any:
        def counted(*given: Any, **more: Any) -> Any:
            seen.append(name)
            return loading(*given, **more)

        return counted

    for name in ("load_policy", "load_scorer"):
        monkeypatch.setattr(load, name, counting(name, getattr(load, name)))
    return seen


def test_methods_that_stand_on_the_same_base_load_it_once(write_suite: Any, folders: Folders, loads: list[str]) -> None:
    report = execute(write_suite(judge=None, methods=["dpo", "rm", "simpo", "poe_rm"], seeds=[0, 1]), folders)
    assert {result.status for result in report.results} == {"done"}
    assert loads == ["load_scorer", "load_policy"]
    cells = [f"{method}#{seed}" for seed in (0, 1) for method in ("dpo", "rm", "simpo", "poe_rm")]
    assert [result.name for result in report.results] == ["base", *cells]


def test_a_judge_and_a_reward_model_share_a_base_and_the_judge_comes_back_to_its_backbone(
    write_suite: Any, folders: Folders, loads: list[str]
) -> None:
    judge = {"method": "rm", "data": {"path": "embedded/planted", "rows": 16}, "seed": 1}
    execute(write_suite(judge=judge, methods=["dpo", "rm"]), folders)
    assert loads == ["load_scorer", "load_policy"]


def test_a_scorer_on_the_backbone_of_policies_scores_as_a_loaded_one(
    write_suite: Any, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are judged after policies were trained and answered on that backbone, to the last bit the same."""
    judge = {"method": "rm", "data": {"path": "embedded/planted", "rows": 16}, "seed": 1}
    suite = write_suite(judge=judge, methods=["dpo", "rm"])
    shared, made = execute(suite, folders), []
    plain = load.as_scorer
    monkeypatch.setattr(load, "as_scorer", lambda *given, **more: made.append(plain(*given, **more)))
    loaded = execute(suite, Folders(tmp_path / "loaded-runs", tmp_path / "loaded-reports"))
    assert len(made) == 1
    assert made[0] is not None  # and still it was loaded
    for one, other in zip(shared.results, loaded.results, strict=True):
        assert one.metrics == other.metrics


def test_reward_models_on_one_base_start_from_the_heads_of_their_seeds(
    write_suite: Any, folders: Folders, base_folder: Path
) -> None:
    still = [{"rm": {"learning_rate": 1e-12}}]
    execute(write_suite(judge=None, methods=still, seeds=[3, 5]), folders)
    files = [load_file(path) for path in folders.runs.rglob("adapter_model.safetensors")]
    heads = [next(value for name, value in file.items() if "score" in name) for file in files]
    base = find_base(str(base_folder))
    expected = [load_scorer(base, Precision("fp32", "float32", "cpu"), seed=seed).score.weight for seed in (3, 5)]
    heads, expected = (sorted(several, key=lambda head: float(head.sum())) for several in (heads, expected))
    torch.testing.assert_close(torch.stack(heads), torch.stack(expected))


def test_a_run_of_some_methods_audits_the_judge_and_no_other_reward_model(write_suite: Any, folders: Folders) -> None:
    progress = Recorder()
    execute(write_suite(methods=["rm", "dpo"], audit={"pairs": 20}), folders, progress, methods=["dpo"])
    assert [stage for stage in progress.stages if stage.endswith(": audit")] == ["judge: audit"]


def test_loading_a_base_is_charged_to_no_cell(
    write_suite: Any, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own, which goes an hour ahead while a base is loaded."""
    ahead = 0.0

    def an_hour(*given: Any, **more: Any) -> Any:
        nonlocal ahead
        ahead += 3600
        return load_policy(*given, **more)

    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + ahead, perf_counter=lambda: time.perf_counter() + ahead
    )
    monkeypatch.setattr(desk, "time", clock)
    monkeypatch.setattr(costs, "time", clock)
    monkeypatch.setattr(load, "load_policy", an_hour)
    suite = write_suite(judge=None, methods=["simpo"], generate={"prompts": 2, "max_new_tokens": 2})
    results = by_name(execute(suite, folders))
    assert ahead == 3600
    assert all(result.cost is not None and 0 < result.cost.seconds < 1800 for result in results.values())


def test_a_base_that_remembers_what_it_read_serves_one_cell(
    write_suite: Any, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamic rotary embeddings keep the frequencies of the longest row seen."""
    loads: list[Any] = []

    def dynamic(*given: Any) -> Any:
        model = load_policy(*given)
        model.get_decoder().rotary_emb.rope_type = "dynamic"
        loads.append(model)
        return model

    monkeypatch.setattr(load, "load_policy", dynamic)
    execute(write_suite(judge=None, methods=["simpo"]), folders)
    assert len(loads) == 3  # the base's, and one for training and one for what is measured


def test_the_whole_way_equals_a_hand_made_one(whole: Whole) -> None:
    """The base's val log-probs, from texts to numbers, with transformers alone."""
    _, folders, _, _ = whole
    base = find_base(load_suite(str(whole[0])).base)
    model = load_policy(base, resolve_precision("fp32"))
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    from align_bench.data.planted import planted

    rows = scores_of(folders, "base")
    for row, pair in list(zip(rows, planted("val", rows=20), strict=True))[:5]:
        turns = [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": pair.chosen}]
        prompt, both = (
            tokenizer(tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=asks)).input_ids
            for part, asks in ((turns[:1], True), (turns, False))
        )
        logps = torch.log_softmax(model(input_ids=torch.tensor([both])).logits[0].double(), -1)
        expected = sum(float(logps[place - 1, both[place]].detach()) for place in range(len(prompt), len(both)))
        assert row.chosen_logp == pytest.approx(expected, rel=1e-4)
        assert row.chosen_tokens == len(both) - len(prompt)


KILLED = {
    "methods": ["dpo"],
    "audit": {"pairs": 20},
    "train": {"batch_size": 8, "max_length": 128, "checkpoint_minutes": 1e-9},
}


@pytest.fixture(scope="module")
def straight(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("straight")
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, **KILLED}), encoding="utf-8")
    return execute(path, Folders(root / "runs", root / "reports"))


@pytest.mark.parametrize(
    "stage",
    [
        "judge: train",
        "judge: rows shared with train",
        "judge: audit",
        "dpo: reference log-probs",
        "dpo: train",
        "dpo: generate",
        "dpo: drift",
    ],
)
def test_kill_9_and_run_again_gives_the_same_numbers(
    straight: Report,
    folders: Folders,
    write_suite: Callable[..., Path],
    killed_at: Callable[[Path, Path, str], None],
    stage: str,
) -> None:
    """A process that kills itself in the middle of a stage; the next run goes on and ends where a straight one does."""
    path = write_suite(**KILLED)
    killed_at(path, folders.runs.parent, stage)
    progress = Recorder()
    resumed = execute(path, folders, progress)
    assert not any(done.endswith(": tokens") for done in progress.stages), "what was done is not done again"
    assert stage in progress.stages
    assert "base: validation pairs" not in progress.stages or stage.startswith("judge")
    assert numbers(resumed) == numbers(straight)
    assert all(result.cost is not None and math.isfinite(result.cost.seconds) for result in resumed.results)


def test_unpaired_val_rows_are_left_out(write_suite: Callable[..., Path], folders: Folders, tmp_path: Path) -> None:
    """Validation rows with one answer bring no accuracy, and no cell fails over them."""
    lines = [{"prompt": f"Say {number}", "completion": str(number), "label": True} for number in range(6)]
    file = tmp_path / "val.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = write_suite(
        data={"train": {"path": "embedded/planted", "rows": 16}, "val": str(file)}, judge=None, methods=["simpo"]
    )
    results = by_name(execute(path, folders))
    assert results["simpo"].status == "done"
    assert results["simpo"].metrics.accuracy == Estimate(value=None, low=None, high=None, n=0)


def test_repeated_answer_costs_its_tokens_once(
    write_suite: Callable[..., Path], folders: Folders, tmp_path: Path
) -> None:
    pairs = [("Name a fruit.", "apple", worse) for worse in ("iron", "coal", "tin")]
    path = tmp_path / "repeated.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": p, "chosen": c, "rejected": r}) + "\n" for p, c, r in pairs), encoding="utf-8"
    )
    data = {"train": {"path": "embedded/planted", "rows": 8}, "val": str(path)}
    suite = load_suite(str(write_suite(data=data, judge=None)))
    prepared = prepare(suite, load_registry())
    run(prepared, Recorder(), folders, command="", methods=[])
    results = Results(Store(folders.runs))
    graph = make_graph(prepared, results)
    rows = results.load(graph.tables["val"]).rows
    once = len(rows[0].prompt) + len(rows[0].chosen or ())
    once += sum(len(row.prompt) + len(row.rejected or ()) for row in rows)
    assert len(rows) == 3
    assert graph.base.validation is not None
    assert results.artefact(graph.base.validation).cost.tokens == once
