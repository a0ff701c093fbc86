"""Both sides of `benchmarks/vs_trl.py` on a tiny base: they do the same work, and the comparison of losses sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vs_trl
import vs_trl_sides as sides
import vs_trl_table as table

from align_bench.evaluate.preference import table_logps, table_scores
from align_bench.models.load import add_adapter
from align_bench.suite.models import Generate
from align_bench.train import steps as training_steps

pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")


class Turns(sides.Turns):
    """Always one's turn; keeps what is said."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def wait(self) -> None:
        """At once."""

    def say(self, **facts: Any) -> None:
        self.said.append(facts)


@pytest.fixture
def settings(base_folder: Path) -> dict[str, Any]:
    return {
        "base": str(base_folder),
        "train": "embedded/planted",
        "val": "embedded/planted",
        "precision": "fp32",
        "device": "cpu",
        "pairs_per_step": 3,
        "max_length": 128,
        "repeats": 1,
        "scored_pairs": 10,
        "prompts": 9,
        "new_tokens": 5,
        "suite_pairs": 6,
    }


def played(settings: dict[str, Any], part: str, side: str) -> list[dict[str, Any]]:
    turns = Turns()
    sides.PARTS[part](sides.Bench({**settings, "part": part, "side": side}), turns)
    return turns.said


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_training_is_checked_warmed_up_and_measured(settings: dict[str, Any], method: str) -> None:
    ours, theirs = played(settings, method, "ours"), played(settings, method, "trl")
    assert len(ours) == len(theirs) == 3
    found = table.check_training(method, "float32", ours[0], theirs[0])
    assert max(found.values()) < 1e-4
    assert len(set(ours[0]["loss"])) == 2  # the second step stands on the first one's update
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert one["tokens"] == other["tokens"] > 0
        assert one["reference_seconds"] > 0
        assert (one["mismatched_seconds"] > 0) == (method == "kto")
        assert "reference_seconds" not in other
    kept = vs_trl.kept_of(ours[2:])
    passes = {"reference_seconds", "mismatched_seconds"}
    assert set(kept) == {"seconds", "tokens", *passes, "peak_bytes", "resting_bytes"}
    assert kept["peak_bytes"] >= kept["resting_bytes"] > 0


@pytest.mark.parametrize("part", ["simpo", "online"])
def test_a_turn_is_one_step_where_the_host_is_ahead(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """On a GPU a training reads a step's numbers when the next one is queued."""
    monkeypatch.setattr(training_steps, "queues", lambda device: True)
    taken, at_turns = 0, list[int]()
    step = torch.optim.AdamW.step

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal taken
        taken += 1
        return step(*given, **more)

    class Noted(Turns):
        def say(self, **facts: Any) -> None:
            at_turns.append(taken)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    sides.PARTS[part](sides.Bench({**settings, "part": part, "side": "ours"}), Noted())
    assert at_turns == [sides.CHECKED_STEPS, sides.CHECKED_STEPS + 1, sides.CHECKED_STEPS + 2]


@pytest.mark.parametrize("fits", [True, False])
def test_memory_of_a_gpu_is_the_other_sides_while_one_waits(monkeypatch: pytest.MonkeyPatch, fits: bool) -> None:
    """One at a time has what its step needs, and has it again before its clock starts."""
    events: list[Any] = []
    reserved = 100

    def emptied() -> None:
        nonlocal reserved
        reserved = 30
        events.append("given")

    def read() -> str:
        events.append("go")
        return "go\n"

    def taken(size: int, **_: Any) -> None:
        events.append(size)
        if not fits:
            raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved)
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: events.append("peak"))
    monkeypatch.setattr(torch, "empty", taken)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(readline=read))
    sides.Turns.wait(Turns())
    assert events == ["given", "go", 70, "peak"]


def test_another_learning_rate_is_seen(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = played(settings, "simpo", "ours")[0]
    plain = sides.Training.__init__

    def faster(self: Any, *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options)
        self.learning_rate *= 20

    monkeypatch.setattr(sides.Training, "__init__", faster)
    with pytest.raises(table.UnequalError, match="loss"):
        table.check_training("simpo", "float32", ours, played(settings, "simpo", "ours")[0])


def test_scoring_agrees_three_ways(settings: dict[str, Any]) -> None:
    said = {side: played(settings, "scoring", side)[-1] for side in ("ours", "naive", "trl")}
    found = table.check_scoring("float32", said)
    assert max(found.values()) < 1e-4
    assert abs(said["ours"]["loss"] - torch.tensor(2.0).log().item()) > 1e-4  # the policy is not its reference
    assert 0 < said["ours"]["policy_seconds"] < said["ours"]["both_seconds"] <= said["ours"]["seconds"]


def test_plain_loops_measure_what_ours_do(settings: dict[str, Any]) -> None:
    bench = sides.Bench({**settings, "part": "suite", "side": "trl"})
    rows = bench.first_rows("val", 10)
    policy = sides.moved(add_adapter(bench.model(), sides.LORA, seed=0)).eval()
    for by_length in (False, True):
        naive = sides.naive_logps(policy, rows, by_length=by_length)
        for side, values in table_logps(policy, rows, max_tokens=8192).items():
            torch.testing.assert_close(naive[side], values, rtol=1e-5, atol=1e-4)
    scorer = sides.moved(add_adapter(bench.model(scalar=True), sides.LORA, seed=0)).eval()
    naive = sides.naive_scores(scorer, rows)
    for side, values in table_scores(scorer, rows, max_tokens=8192).items():
        torch.testing.assert_close(naive[side], values, rtol=1e-4, atol=1e-4)


def test_plain_answers_are_ours(settings: dict[str, Any]) -> None:
    ours, theirs = (played(settings, "generation", side)[-1] for side in ("ours", "trl"))
    assert table.check_generation("float32", ours, theirs)["same answers"] == 1
    assert ours["tokens"] == theirs["tokens"] <= 9 * Generate(max_new_tokens=5).max_new_tokens


@pytest.mark.usefixtures("few_figures")  # of a suite's report, which is timed as a whole
def test_scripts_and_suite_train_the_same_and_measure_the_same(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    naive = sides.naive_answer_scores

    def counting(model: Any, answers: Any) -> torch.Tensor:
        measured.append(len(answers))
        return naive(model, answers)

    monkeypatch.setattr(sides, "naive_answer_scores", counting)
    ours, theirs = (played({**settings, "prompts": 5}, "suite", side)[-1] for side in ("ours", "trl"))
    found = table.check_suite("float32", ours, theirs)
    assert found == {f"accuracy of {name}": 0 for name in ("base", "dpo", "kto", "simpo", "orpo")}
    for said, mine in ((ours, True), (theirs, False)):
        stages = said["stages"]
        assert sum(stages.values()) == pytest.approx(said["seconds"], rel=0.02)
        assert {name for name, seconds in stages.items() if seconds > 0} == {
            name for name in sides.STAGES if mine or name not in ("reference", "report")
        }
    # Pairs and edited answers under the reward model, the same under the judge; then five models' answers.
    pairs, edited, *rest = measured[-9:]
    assert pairs == 2 * 6 < edited
    assert rest == [pairs, edited, 5, 5, 5, 5, 5]


def test_work_within_other_work_counts_as_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sides, "time", SimpleNamespace(perf_counter=lambda: now))
    stages = sides.Stages()

    class Desk:
        def model(self, name: str) -> str:
            nonlocal now
            now += 4
            return f"loaded {name}"

        def audit(self) -> None:
            nonlocal now
            now += 16
            raise ValueError("broken")

    with stages.within(Desk, "model", "loading"):
        now += 1
        with sides.StageTimes(stages).stage("dpo", "train"):
            now += 2
            assert Desk().model("base") == "loaded base"
            now += 8
        with pytest.raises(ValueError, match="broken"), sides.StageTimes(stages).stage("dpo", "audit"):
            Desk().audit()
        with sides.StageTimes(stages).stage("train", "tokens"):
            now += 32
    Desk().model("again")
    taken = {name: seconds for name, seconds in stages.seconds().items() if seconds}
    assert taken == {"loading": 4, "training": 10, "audits": 16, "other": 1 + 32 + 4}


@pytest.mark.parametrize("part", ["online", "grpo"])
def test_online_steps_are_equal_on_given_answers_and_then_as_large(settings: dict[str, Any], part: str) -> None:
    said = {side: played(settings, part, side) for side in vs_trl.sides_of(part, settings)}
    for check, *steps in said.values():
        assert len(check["gradient_norm"]) == len(check["reward"]) == sides.CHECKED_STEPS
        assert all(norm > 0 for norm in check["gradient_norm"])
        assert len(steps) == 2
        assert all(3 * sides.ANSWERS * 5 < step["tokens"] < 3 * sides.ANSWERS * (128 + 5) for step in steps)
    found = table.check_online(part, "float32", {side: turns[0] for side, turns in said.items()})
    assert max(found.values()) < 1e-4


def test_settings_of_another_run_are_not_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["vs_trl.py", "--results", str(tmp_path)])
    given = vs_trl.arguments()
    path, result = vs_trl.begun(given, vs_trl.settings_of(given))
    path.write_text(json.dumps(result))
    monkeypatch.setattr("sys.argv", ["vs_trl.py", "--append", str(path)])
    given = vs_trl.arguments()
    assert vs_trl.begun(given, vs_trl.settings_of(given)) == (path, result)
    monkeypatch.setattr("sys.argv", ["vs_trl.py", "--append", str(path), "--repeats", "7"])
    given = vs_trl.arguments()
    with pytest.raises(SystemExit, match="other settings"):
        vs_trl.begun(given, vs_trl.settings_of(given))


def test_a_side_is_a_script_in_a_process_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "print('{\"heard\": ' + sys.argv[1] + '}', flush=True)\n"
        "assert sys.stdin.readline() == 'go\\n'\n"
        "print('{\"process\": ' + str(os.getpid()) + '}', flush=True)\n"
        "sys.exit('no more')\n"
    )
    with vs_trl.side({"side": "ours"}, {}, script) as started:
        assert started.heard() == {"heard": {"side": "ours"}}
        assert started.turn()["process"] != os.getpid()
        with pytest.raises(vs_trl.SideError, match="ours ended with exit code 1:\nno more"):
            started.turn()


@pytest.mark.usefixtures("sides_are_copies")
def test_a_dead_side_says_why(settings: dict[str, Any]) -> None:
    broken = {**settings, "part": "rm", "side": "ours", "base": "./nowhere"}
    with vs_trl.side(broken, {}) as started, pytest.raises(vs_trl.SideError, match="does not exist"):
        started.turn()


def test_each_side_runs_on_its_own_layers(settings: dict[str, Any]) -> None:
    def fused(side: str) -> list[str]:
        bench = sides.Bench({**settings, "part": "dpo", "side": side})
        model = bench.adapted(bench.model())
        return sorted({type(module).__name__ for module in model.modules() if "Fused" in type(module).__name__})

    assert fused("ours") == ["FusedLinear", "FusedLlamaDecoderLayer"]
    assert fused("trl") == fused("naive") == []


def test_an_accuracy_is_exact_in_double_precision(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = sides.Bench({**settings, "part": "suite", "side": "trl"})
    rows = bench.first_rows("val", 3)
    found = {"chosen": torch.tensor([-1.0, -1e6, -1e6]), "rejected": torch.tensor([-1e6, -1.0, -1.0])}
    monkeypatch.setattr(sides, "naive_logps", lambda *_, **__: found)
    assert sides._measured(bench, None, rows) == 1 / 3
