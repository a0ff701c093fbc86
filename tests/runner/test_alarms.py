"""Alarms of a real run: said as it goes, kept in its report; a method with a wrong return stops before any work."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.api import OfflineAlgorithm
from align_bench.plugins.registry import load_file, load_registry
from align_bench.report.export import read_report
from align_bench.report.schema import Alarm
from align_bench.runner.run import Folders
from align_bench.testing.checks import QUICK, quick_checks
from tests.runner.test_run import Recorder, by_name, execute

PLUGIN = '''
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, algorithm


@algorithm(data="pairs", reference=False, paper="none", learning_rate=1e-3, reward="s")
def {name}(logps: PairLogps) -> Loss:
    """{name}."""
    values = -logsigmoid({margin})
    return Loss({values}, chosen_rewards=logps.chosen, rejected_rewards=logps.rejected)
'''
METHODS = {
    "flipped": PLUGIN.format(name="flipped", margin="logps.rejected - logps.chosen", values="values"),
    "broken": PLUGIN.format(name="broken", margin="logps.chosen - logps.rejected", values="values.mean()"),
}
Ran = tuple[Path, Folders, Recorder]


def rows(path: Path, count: int, first: int = 0) -> str:
    """Real-looking pairs whose label always prefers the first answer."""
    lines = [
        {
            "question": f"what is {place}?",
            "response_1": f"it is {place}, as zebras know",
            "response_2": f"quiz {place} zigzag",
            "overall_response": 1,
        }
        for place in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def ran(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run in which much is wrong: labels, leakage, the judge's data, a base that knows no language, two methods."""
    root = tmp_path_factory.mktemp("alarms")
    (root / "suite" / "algorithms").mkdir(parents=True)
    for name, text in METHODS.items():
        (root / "suite" / "algorithms" / f"{name}.py").write_text(text, encoding="utf-8")
    suite = {
        **small_suite,
        "data": {"train": {"path": rows(root / "train.jsonl", 24)}, "val": {"path": rows(root / "val.jsonl", 24, 4)}},
        "generate": {"prompts": 20, "max_new_tokens": 2, "temperature": 1.0},
        "methods": ["broken", "flipped", {"dpo": {"learning_rate": 1e-9}}],
        "seeds": [0, 1],
    }
    path = root / "suite" / "small.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    folders, progress = Folders(root / "runs", root / "reports"), Recorder()
    execute(path, folders, progress)
    return path, folders, progress


def found(folders: Folders) -> Mapping[tuple[str, str], Alarm]:
    return {(one.kind, one.about): one for one in read_report(folders.reports / "small").alarms}


def test_the_report_holds_what_was_planted(ran: Ran) -> None:
    alarms = found(ran[1])
    assert {
        ("one-sided labels", "train"),
        ("one-sided labels", "val"),
        ("validation in training", "val"),
        ("other data", "judge"),
        ("shifted tokens", "base"),
        ("flipped sign", "flipped#0"),
        ("flipped sign", "flipped#1"),
        ("nothing learned", "dpo#0"),
        ("nothing learned", "dpo#1"),
        ("cut-off answers", "base"),
        ("cut-off answers", "dpo#0"),
    } <= alarms.keys()
    assert alarms["one-sided labels", "train"].found == 1.0
    assert alarms["validation in training", "val"].found == 20 / 24
    judge = alarms["other data", "judge"]
    assert "embedded/planted instead of " in judge.sentence
    assert judge.sentence.count("train.jsonl") == 1
    assert not any(about.startswith("broken") for _, about in alarms)


def test_each_is_said_as_the_run_goes(ran: Ran) -> None:
    _, folders, progress = ran
    kinds = {kind for kind, _ in found(folders)}
    for kind in kinds:
        assert any(line.startswith(f"Alarm, {kind}: ") for line in progress.logged), kind
    assert sum(line.startswith("Alarm, flipped sign: ") for line in progress.logged) == 1  # for both seeds
    assert not any("no alarms could be looked for" in line for line in progress.logged)


def test_what_is_known_of_data_is_said_before_anything_is_trained(ran: Ran) -> None:
    class Ordered(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.logged = self.stages  # one list, in order

    path, folders, _ = ran
    progress = Ordered()
    shutil.rmtree(folders.runs)
    execute(path, folders, progress)
    trained = next(place for place, line in enumerate(progress.logged) if line.endswith(": train"))
    early = [line for line in progress.logged[:trained] if line.startswith("Alarm, ")]
    assert {line.split(":")[0].removeprefix("Alarm, ") for line in early} == {
        "flipped sign",
        "one-sided labels",
        "validation in training",
        "other data",
    }


def test_rows_that_another_suite_stored_are_looked_at_too(ran: Ran, tmp_path: Path) -> None:
    path, folders, _ = ran
    other = yaml.safe_load(path.read_text(encoding="utf-8")) | {"name": "other", "methods": [{"dpo": {"beta": 0.3}}]}
    beside = path.with_name("other.yaml")
    beside.write_text(yaml.safe_dump(other), encoding="utf-8")
    progress = Recorder()
    execute(beside, Folders(folders.runs, tmp_path / "reports"), progress)
    assert not any(stage.endswith(": tokens") for stage in progress.stages)
    said = {line.split(":")[0].removeprefix("Alarm, ") for line in progress.logged if line.startswith("Alarm, ")}
    assert {"one-sided labels", "validation in training", "other data"} <= said


def test_a_flipped_sign_is_trained_and_a_wrong_return_is_not(ran: Ran) -> None:
    _, folders, progress = ran
    results = by_name(read_report(folders.reports / "small"))
    assert {results[f"flipped#{seed}"].status for seed in (0, 1)} == {"done"}
    for seed in (0, 1):
        broken = results[f"broken#{seed}"]
        assert broken.status == "failed"
        assert broken.reason is not None
        assert "the loss of broken " in broken.reason
    assert not [stage for stage in progress.stages if stage.startswith("broken")]


def test_a_second_run_checks_nothing(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is stored, no loss is looked at; the report that is built again says the same."""
    path, folders, _ = ran
    before = found(folders)
    looked: list[str] = []

    def noted(algorithm: OfflineAlgorithm, parameters: Any) -> Any:
        looked.append(algorithm.name)
        return quick_checks(algorithm, parameters)

    monkeypatch.setattr("align_bench.testing.checks.quick_checks", noted)
    execute(path, folders)
    assert looked == ["broken"]  # which still has something to train
    assert found(folders) == before
    shutil.rmtree(folders.reports)
    execute(path, folders, compute=False)
    assert looked == ["broken"]
    assert found(folders) == before


def test_rewards_that_do_not_follow_the_loss_are_found(tmp_path: Path) -> None:
    text = PLUGIN.format(name="swapped", margin="logps.chosen - logps.rejected", values="values")
    swapped = text.replace(
        "chosen_rewards=logps.chosen, rejected_rewards=logps.rejected",
        "chosen_rewards=logps.rejected, rejected_rewards=logps.chosen",
    )
    file = tmp_path / "swapped.py"
    file.write_text(swapped, encoding="utf-8")
    (plugin,) = load_file(file)
    checks = quick_checks(plugin.algorithm, plugin.algorithm.resolve({}))
    failed = [check.name for check in checks if check.status == "failed"]
    assert failed == ["rewards"]


def test_every_packaged_method_passes_in_a_moment() -> None:
    for name, plugin in load_registry().plugins.items():
        algorithm = plugin.algorithm
        started = time.process_time()
        checks = quick_checks(algorithm, algorithm.resolve({}))
        assert time.process_time() - started < 1, name
        assert tuple(check.name for check in checks) == QUICK
        assert {check.status for check in checks} <= (
            {"unchecked"} if algorithm.without_loss else {"passed", "not applicable"}
        ), name
