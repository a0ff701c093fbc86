"""Every built-in method has a curve, or a reason for having none."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import method_curves
import pytest
from method_curves import LOG, PICTURES, built_in, draw, drawing, entry, logged, obstacle, train

import align_bench
from align_bench.plugins.methods_page import Curve, Curves
from align_bench.report import export
from align_bench.report.rows import TrainingRow

COMMITTED = Curves.read(LOG)
LARGEST = 15_000  # bytes of a drawing


def test_every_method_has_a_curve_or_says_why_not() -> None:
    methods = built_in()
    without = {name: reason for name, algorithm in methods.items() if (reason := obstacle(algorithm)) is not None}
    assert COMMITTED.without == without, f"{COMMITTED.command} trains them"
    assert set(COMMITTED.curves) == set(methods) - set(without), f"{COMMITTED.command} trains them"
    assert set(without) == {"best_of_n", "margin_rm", "odpo"}


def test_curves_are_of_the_suite_as_it_is() -> None:
    methods = built_in()
    assert {name: curve.settings for name, curve in COMMITTED.curves.items()} == {
        name: entry(methods[name]) for name in COMMITTED.curves
    }
    assert COMMITTED.suite["pairs"] == 240
    steps = {len(curve.log["loss"]) for name, curve in COMMITTED.curves.items() if methods[name].data == "pairs"}
    assert steps == {240 // 8}
    assert re.fullmatch(r"[0-9a-f]{12}", COMMITTED.commit), "of a checkout without changes"


@pytest.mark.parametrize("name", COMMITTED.curves)
def test_a_drawing_is_small_and_there(name: str) -> None:
    text = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    assert len(text.encode()) <= LARGEST
    assert f"<title>{name}, step by step: loss" in text
    assert 'fill="#ffffff"' in text  # paper, so that it is read on dark pages too


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_drawings_are_what_the_log_gives(name: str) -> None:
    drawn = drawing(name, COMMITTED.curves[name])
    assert drawn == drawing(name, COMMITTED.curves[name])
    assert drawn == (PICTURES / f"{name}.svg").read_text(encoding="utf-8"), f"{COMMITTED.command} --draw draws it anew"


def test_a_drawing_of_a_method_that_is_gone_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_curves, "PICTURES", tmp_path)
    (tmp_path / "gone.svg").touch()
    curve = Curve({}, {"loss": [1.0, 0.5]})
    draw(Curves("", "", "", {}, {}, {"mine": curve}, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]


def test_a_log_keeps_what_is_drawn() -> None:
    steps: list[dict[str, float | None]] = [
        {"loss": 0.1234567, "gradient_norm": 1.0, "accuracy": None},
        {"loss": float("nan"), "kl": 2.0},
    ]
    assert logged(steps) == {"loss": [0.12346, None], "kl": [None, 2.0]}


def test_a_method_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run(suite: Path, **given: object) -> SimpleNamespace:
        asked.update(given, suite=suite)
        results = [
            SimpleNamespace(name="base", algorithm="base", status="done", reason=None),
            SimpleNamespace(name="dpo#0", algorithm="dpo", status="done", reason=None),
            SimpleNamespace(name="ppo#0", algorithm="ppo", status="failed", reason="out of memory"),
        ]
        where = SimpleNamespace(
            commit="0123456789ab",
            processor="a processor",
            threads=2,
            libraries={"torch": "2", "transformers": "5", "trl": "1", "numpy": "2"},
        )
        return SimpleNamespace(record=SimpleNamespace(results=results, environment=where), folder=tmp_path)

    rows = [TrainingRow("dpo#0", "dpo", 0, 1, loss=0.7, measures={"accuracy": 0.5, "rejected_reward": 0.1})]
    methods = built_in()
    monkeypatch.setattr(
        method_curves, "built_in", lambda: {name: methods[name] for name in ("best_of_n", "dpo", "ppo")}
    )
    monkeypatch.setattr(align_bench, "run", run)
    monkeypatch.setattr(export, "read_training", lambda folder: rows)
    found = train(tmp_path)
    assert asked["set"] == {
        "methods": [
            {"dpo": {"learning_rate": 1e-3}},
            {"ppo": {"learning_rate": 1e-3, "reward": "gold", "max_new_tokens": 40, "batch_size": 16}},
        ]
    }
    assert found.curves == {"dpo": Curve({"learning_rate": 1e-3}, {"loss": [0.7], "accuracy": [0.5]})}
    assert found.without == {"best_of_n": "it trains nothing", "ppo": "its training failed: out of memory"}
    assert (found.commit, found.machine) == ("0123456789ab", "a processor, 2 threads")
    assert found.libraries == {"torch": "2", "transformers": "5", "trl": "1"}
