"""A suite of several judges, from end to end: trained, loaded and gold, with agreement and audit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau

from align_bench.errors import ModelError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import load_judge
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.models.precision import Precision
from align_bench.models.weights import weights_digest
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Conversation, Message, Update, no_update
from align_bench.report.export import read_audits, read_generations, read_scores, recompute
from align_bench.report.schema import Report, Result, SharedRows
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite
from align_bench.suite.models import LoadedJudge
from tests.recomputed.ledger import shown
from tests.recomputed.numbers import found_in, recomputed, unchecked


class Recorder:
    """Notes the stages, and what is said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.logged: list[str] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.stages.append(f"{cell}: {label}")
        yield no_update

    def log(self, text: str) -> None:
        self.logged.append(text)


Whole = tuple[Path, Folders, Recorder, Report]


def turned(folder: Path) -> Path:
    """The judge that prefers whatever the given one does not."""
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": -weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    return folder


def write(path: Path, suite: dict[str, Any]) -> tuple[Prepared, Folders]:
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return prepare(load_suite(str(path)), load_registry()), Folders(path.parent / "runs", path.parent / "reports")


def by_name(report: Report) -> dict[str, Result]:
    return {result.name: result for result in report.results}


@pytest.fixture(scope="module")
def whole(
    small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, make_judge: Callable[..., Path]
) -> Whole:
    root = tmp_path_factory.mktemp("judges")
    judges = [
        {"method": "rm", "data": {"path": "embedded/planted", "split": "train", "rows": 12}},
        {"model": str(make_judge(root / "llama", "llama"))},
        {"model": str(make_judge(root / "bert", "bert", labels=2)), "name": "pairs"},
        str(turned(make_judge(root / "contrary", "llama"))),
        "gold",
    ]
    suite = {**small_suite, "judge": judges, "audit": {"pairs": 7}, "methods": ["rm", {"dpo": {"learning_rate": 0.1}}]}
    progress = Recorder()
    prepared, folders = write(root / "small.yaml", suite)
    report = run(prepared, progress, folders, command="align-bench run small.yaml")
    return root / "small.yaml", folders, progress, report


def test_every_generation_is_scored_by_every_judge(whole: Whole) -> None:
    _, folders, _, report = whole
    assert {found.status for found in report.results} == {"done"}
    answers = read_generations(folders.reports / "small")
    assert len(answers) == 2 * 8
    assert {tuple(answer.scores) for answer in answers} == {("rm", "llama", "pairs", "contrary", "gold")}
    assert not any(answer.proxies for answer in answers)
    assert all(math.isfinite(score) for answer in answers for score in answer.scores.values())


def test_a_loaded_judges_scores_are_its_own(whole: Whole) -> None:
    path, folders, _, report = whole
    model = load_judge(find_judge(LoadedJudge(model=str(path.parent / "llama"))), Precision("fp32", "float32", "cpu"))
    for answer in read_generations(folders.reports / "small"):
        texts = [Conversation((Message("user", answer.prompt),), answer.text)]
        assert answer.scores["llama"] == pytest.approx(model(texts, max_tokens=1)[0][0], abs=1e-5)
    facts = report.judges[1].loaded
    assert facts is not None
    base = find_judge(LoadedJudge(model=str(path.parent / "llama")))
    assert (facts.weights_sha256, facts.template, facts.labels) == (weights_digest(base.folder), "chat", 1)
    facts = report.judges[2].loaded
    assert facts is not None
    assert (facts.template, facts.labels) == ("pair", 2)


def test_judges_stand_among_the_reward_models(whole: Whole) -> None:
    _, folders, _, report = whole
    rewards = [str(found.cell) for found in report.results if found.kind == "reward"]
    assert rewards == ["judge", "judge2", "judge3", "judge4", "rm"]
    assert len([row for row in read_scores(folders.reports / "small") if row.cell == "judge3"]) == 20


def test_the_first_judge_is_the_main_one(whole: Whole) -> None:
    _, folders, _, report = whole
    metrics = by_name(report)["dpo"].metrics
    scores = [answer.scores for answer in read_generations(folders.reports / "small") if answer.cell == "dpo"]
    others = {own.judge: own.mean for own in metrics.other_judges}
    assert list(others) == ["llama", "pairs", "contrary"]  # gold's is gold_accuracy
    for found, name in ((metrics.judge_reward_mean, "rm"), *((others[name], name) for name in ("llama", "pairs"))):
        assert found.value == pytest.approx(sum(own[name] for own in scores) / len(scores))


def test_agreement_is_between_every_two_judges(whole: Whole) -> None:
    _, folders, _, report = whole
    names = ["rm", "llama", "pairs", "contrary", "gold"]
    found = {(one.a, one.b): one for one in report.agreement}
    assert set(found) == {(a, b) for place, a in enumerate(names) for b in names[place + 1 :]}
    means: dict[str, dict[str, float]] = {name: {} for name in names}
    for answer in read_generations(folders.reports / "small"):
        for name in names:
            means[name][answer.cell] = means[name].get(answer.cell, 0) + answer.scores[name] / 8
    for (a, b), one in found.items():
        ranks = [[means[judge][cell] for cell in ("base", "dpo")] for judge in (a, b)]
        expected = kendalltau(*ranks).statistic
        assert one.kendall_tau == (None if math.isnan(expected) else pytest.approx(expected))
        for pair in one.reversed:
            assert means[a][str(pair.higher)] > means[a][str(pair.lower)]
            assert means[b][str(pair.higher)] < means[b][str(pair.lower)]
    opposed = found["llama", "contrary"]
    assert (opposed.kendall_tau, opposed.agreement.value, len(opposed.reversed)) == (-1, 0, 1)
    assert any(
        "depends on the judge: judge llama and judge contrary differ on 1 of 1 pair." in note for note in report.notes
    )


def test_every_reward_model_and_judge_is_audited_once(whole: Whole) -> None:
    _, folders, progress, report = whole
    assert [found.scorer for found in report.audit] == ["judge", "judge2", "judge3", "judge4", "rm"]
    audited = [stage for stage in progress.stages if stage.endswith(": audit")]  # rm beside the judge on its base
    assert sorted(audited) == sorted(f"{found.scorer}: audit" for found in report.audit)
    rows = read_audits(folders.reports / "small")
    assert len(rows) == 5 * 20 * 2
    for row in rows:
        assert row.score is not None
        assert row.score_plain == pytest.approx(row.score, abs=1e-4)  # all, since there are fewer than 200 prompts
        assert all(getattr(row, f"score_{version}") is not None for version in VERSIONS if version != "stripped")
    for found in report.audit:
        assert found.audited_pairs == found.audited_prompts == 20
        assert found.metrics.accuracy_prompts_shuffled.n == found.metrics.accuracy_audited.n == 20


def test_shared_rows_are_named(whole: Whole) -> None:
    _, _, progress, report = whole
    assert report.judges[0].overlap == SharedRows(rows=12, same_rows=12, same_prompts=12)
    assert any("12 of its 12 training rows are also training rows of the policies" in line for line in progress.logged)
    assert any("Judge rm: 12 of its 12 training rows" in note for note in report.notes)


def test_the_report_can_be_recomputed_and_a_second_run_does_nothing(whole: Whole) -> None:
    path, folders, _, report = whole
    again = recompute(folders.reports / "small")
    assert (again.agreement, again.audit) == (report.agreement, report.audit)
    progress = Recorder()
    prepared = prepare(load_suite(str(path)), load_registry())
    assert run(prepared, progress, folders, command="").results == report.results
    assert progress.stages == []


def test_the_numbers_are_what_the_rows_say(whole: Whole) -> None:
    folder = whole[1].reports / "small"
    found = found_in(folder)
    assert [shown(one.path) for one in recomputed(folder, found) if not one.agrees] == []
    assert [shown(place) for place in unchecked(folder, found)] == []


def test_the_report_shows_them(whole: Whole) -> None:
    _, folders, _, _ = whole
    text = (folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    for title in (
        "Inter-judge agreement",
        "Audit: length controls",
        "Audit: prompt controls",
        "Audit: edited answers",
        "Audit: calibration",
    ):
        assert f"{title}" in text


def test_a_changed_judge_judges_anew_and_nothing_else(whole: Whole, tmp_path: Path) -> None:
    path, _folders, _, _ = whole
    root = tmp_path / "copy"
    shutil.copytree(path.parent, root)
    weights = load_file(root / "bert" / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, root / "bert" / "model.safetensors", metadata={"format": "pt"})
    suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    suite["judge"][2]["model"] = str(root / "bert")
    progress = Recorder()
    prepared, own = write(root / "small.yaml", suite)
    run(prepared, progress, own, command="")
    assert progress.stages == [
        "judge3: validation pairs",
        "judge3: audit",
        *(f"{cell}: judge (judge3)" for cell in ("base", "dpo")),
    ]


def test_a_judge_that_cannot_be_loaded_leaves_the_others(
    small_suite: dict[str, Any], tmp_path: Path, base_folder: Path
) -> None:
    suite = {**small_suite, "judge": [str(base_folder), "gold"], "methods": ["dpo"], "audit": {"pairs": 0}}
    prepared, folders = write(tmp_path / "small.yaml", suite)
    report = run(prepared, Recorder(), folders, command="")
    results = by_name(report)
    assert results["judge"].status == "failed"
    assert "score.weight" in (results["judge"].reason or "")
    assert results["dpo"].status == "done"
    assert results["dpo"].metrics.gold_accuracy.value is not None
    assert results["dpo"].metrics.judge_reward_mean.value is None


def test_gold_can_be_the_main_judge(small_suite: dict[str, Any], tmp_path: Path) -> None:
    suite = {**small_suite, "judge": "gold", "methods": ["dpo"]}
    prepared, folders = write(tmp_path / "small.yaml", suite)
    report = run(prepared, Recorder(), folders, command="")
    metrics = by_name(report)["dpo"].metrics
    assert metrics.judge_reward_mean.value == metrics.gold_accuracy.value
    assert metrics.win_rate_vs_base.value is not None
    assert report.judges[0].name == "gold"


def test_a_judge_that_is_nowhere_is_told_before_anything_runs(small_suite: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="judge '/nowhere/model' does not exist"):
        write(tmp_path / "small.yaml", {**small_suite, "judge": "/nowhere/model"})
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"holds no \.safetensors"):
        write(tmp_path / "small.yaml", {**small_suite, "judge": [str(folder)]})
