"""A suite of reward models and an ensemble as the judge, from end to end on a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.judge.ensemble import combine
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import CellId, Update, no_update
from align_bench.report.export import read_audits, read_generations, read_scores, recompute
from align_bench.report.schema import JudgeFacts, Report, SharedRows
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.stages.judge import Judge
from align_bench.store.store import Store
from align_bench.suite.load import load_suite


class Recorder:
    """Shows nothing."""

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        yield no_update

    def log(self, text: str) -> None:
        pass


Whole = tuple[Prepared, Folders, Report]


@pytest.fixture(scope="module")
def whole(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("rewards")
    ensemble = {"size": 2, "combine": "variance_penalised", "penalty": 0.5}
    suite = {
        **small_suite,
        "judge": {**small_suite["judge"], "parameters": {"learning_rate": 1e-2}, "seed": 4, "ensemble": ensemble},
        "evaluate": {"epsilons": [0.001, 0.5]},
        "audit": {"pairs": 20},
        "methods": ["rm", "poe_rm", "robust_rm", "odin_rm", "dpo"],
    }
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    prepared, folders = prepare(load_suite(str(path)), load_registry()), Folders(root / "runs", root / "reports")
    return prepared, folders, run(prepared, Recorder(), folders, command="align-bench run small.yaml")


def test_every_cell_is_done(whole: Whole) -> None:
    _, _, report = whole
    assert {(str(found.cell), found.kind, found.status) for found in report.results} == {
        *((cell, "reward", "done") for cell in ("judge#4", "judge#5", "rm", "poe_rm", "robust_rm", "odin_rm")),
        ("base", "base", "done"),
        ("dpo", "policy", "done"),
    }
    assert report.judges == [
        JudgeFacts(
            name="2 × rm, variance_penalised",
            cells=[CellId("judge", seed=4), CellId("judge", seed=5)],
            status="done",
            rewarded=[],
            overlap=SharedRows(rows=24, same_rows=0, same_prompts=0),
            loaded=None,
        )
    ]


def test_the_report_can_be_recomputed_from_its_exports(whole: Whole) -> None:
    _, folders, report = whole
    again = recompute(folders.reports / "small")
    assert (again.results, again.comparisons) == (report.results, report.comparisons)


def test_members_are_trained_apart_and_judge_together(whole: Whole) -> None:
    prepared, folders, _ = whole
    results = Results(Store(folders.runs))
    graph = make_graph(prepared, results)
    first, second = graph.judges
    assert first.adapter != second.adapter
    cell = next(cell for cell in graph.cells if cell.id == CellId("dpo"))
    by_member = {scores.judge_cell: scores for scores in cell.all(Judge)}
    members = [results.load(by_member[judge.id]) for judge in (first, second)]
    assert members[0] != members[1]
    combined = combine(members, graph.panel[0].ensemble)
    judged = [
        answer.scores[graph.panel[0].name]
        for answer in read_generations(folders.reports / "small")
        if answer.cell == "dpo"
    ]
    assert judged == pytest.approx(combined)


def test_an_ensemble_is_audited_as_one(whole: Whole) -> None:
    prepared, folders, report = whole
    assert [found.scorer for found in report.audit] == ["judge", "rm", "poe_rm", "robust_rm", "odin_rm"]
    scores = {(row.cell, row.pair): row for row in read_scores(folders.reports / "small")}
    ensemble = make_graph(prepared, Results(Store(folders.runs))).panel[0].ensemble
    audited = [row for row in read_audits(folders.reports / "small") if row.scorer == "judge"]
    assert len(audited) == 2 * 20
    for row in audited:
        members = [[getattr(scores[cell, row.pair], row.side).reward] for cell in ("judge#4", "judge#5")]
        assert row.score == pytest.approx(combine(members, ensemble)[0])
        assert row.score_plain == pytest.approx(row.score, abs=1e-4)


def known(value: float | None) -> float:
    assert value is not None
    return value


def test_small_attacks_lower_the_margins_and_of_reward_models_alone(whole: Whole) -> None:
    _, folders, report = whole
    for row in read_scores(folders.reports / "small"):
        if row.cell in ("base", "dpo"):
            assert row.attacked == ()
        else:
            weak, strong = row.attacked
            assert (weak.epsilon, strong.epsilon) == (0.001, 0.5)
            assert known(weak.chosen_reward) < known(row.chosen_reward)
            assert known(weak.rejected_reward) > known(row.rejected_reward)
    metrics = next(found.metrics for found in report.results if found.cell == CellId("rm"))
    attacked = {found.epsilon: found.accuracy for found in metrics.attacked}
    assert known(attacked[0.001].value) <= known(metrics.accuracy.value)
    assert attacked[0.5].n == 20
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "Reward accuracy under attack" in text
    assert "Length bias of reward models" in text


def test_a_second_run_does_nothing(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, folders, report = whole
    monkeypatch.setattr("align_bench.models.load.load_scorer", None)
    assert run(prepared, Recorder(), folders, command="x") == report


def test_an_ensembles_settings_are_part_of_what_it_says(whole: Whole, tmp_path: Path) -> None:
    """Other combinations of the same members train and score nothing anew; only the report is another."""
    prepared, folders, _ = whole
    raw = prepared.suite.model_dump(mode="json")
    raw["judge"][0]["ensemble"] = {"size": 2, "combine": "worst"}
    raw["methods"] = ["dpo"]
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    results = Results(Store(folders.runs))
    before = make_graph(prepared, results)
    other = make_graph(prepare(load_suite(str(path)), load_registry()), results)
    assert [judge.adapter for judge in other.judges] == [judge.adapter for judge in before.judges]
    assert len(before.base.all(Judge)) == 2
    assert other.base.all(Judge) == before.base.all(Judge)
    assert other.panel[0].name != before.panel[0].name
    assert other.base.answers == before.base.answers


def test_policies_learn_online_from_the_suites_rewards(small_suite: dict[str, Any], tmp_path: Path) -> None:
    """PPO from a reward model that is the judge too, GRPO from gold; a second run finds all of it stored."""
    online = {"max_new_tokens": 4, "learning_rate": 1e-2}
    suite = {
        **small_suite,
        "judge": {
            "method": "rm",
            "data": {**small_suite["data"]["train"], "split": "train"},
            "allow_judge_as_reward": True,
        },
        "methods": [{"ppo": {**online, "reward": "rm"}}, "rm", {"grpo": {**online, "reward": "gold", "samples": 2}}],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    prepared, folders = prepare(load_suite(str(path)), load_registry()), Folders(tmp_path / "runs", tmp_path / "r")
    report = run(prepared, Recorder(), folders, command="align-bench run small.yaml")
    assert [(str(found.cell), found.status) for found in report.results] == [
        ("judge", "done"),
        ("base", "done"),
        ("ppo", "done"),
        ("rm", "done"),
        ("grpo", "done"),
    ]
    assert report.judges[0].rewarded == [CellId("ppo")]
    markdown = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "The judge is the very reward that ppo learned from" in markdown
    results = Results(Store(folders.runs))
    for cell in make_graph(prepared, results).cells:
        assert cell.adapter is not None
        log = (results.artefact(cell.adapter) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        if cell.kind == "policy":
            assert {"reward", "kl", "tokens", "unfinished", "entropy", "clip_fraction"} <= json.loads(log[0]).keys()
        names = (results.artefact(cell.adapter) / "adapter_model.safetensors").read_bytes()[:20000]
        assert b"value_head" not in names
    assert run(prepared, Recorder(), folders, command="again") == report


def test_reward_models_alone_are_run_without_answers(small_suite: dict[str, Any], tmp_path: Path) -> None:
    given = {name: value for name, value in small_suite.items() if name not in ("judge", "generate")}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**given, "audit": {"pairs": 20}, "methods": ["rm", "poe_rm"]}), encoding="utf-8")
    prepared, folders = (
        prepare(load_suite(str(path)), load_registry()),
        Folders(tmp_path / "runs", tmp_path / "out"),
    )
    report = run(prepared, Recorder(), folders, command="")
    assert {(str(found.cell), found.status) for found in report.results} == {
        ("base", "done"),
        ("rm", "done"),
        ("poe_rm", "done"),
    }
    assert not (tmp_path / "runs" / "generations").exists()
    assert read_generations(folders.reports / "small") == []
    assert (
        [found.scorer for found in report.audit]
        == [found.scorer for found in report.against_longer]
        == ["rm", "poe_rm"]
    )
    assert any("Accuracy of reward models" in line for line in report.verdict)
    assert report.verdict[-1].startswith("Preferring the longer answer is right on ")
    again = recompute(folders.reports / "small")
    assert (again.against_longer, again.baselines) == (report.against_longer, report.baselines)
    assert again.baselines.labels_knowable.n == report.detectable.pairs.n  # type: ignore[union-attr]
