"""Policies compared on their answers: metrics against the base, win rates, frontier, judge against gold."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from align_bench.records import Generation, Outcome
from align_bench.report.build import build_report
from align_bench.report.markdown import render
from align_bench.report.policies import compare_policies
from align_bench.report.report_sections import report_sections


def policy(name: str, kind: Any = "policy") -> Outcome:
    method, _, seed = name.partition("#")
    return Outcome(name, method, kind, {}, int(seed or 0), "done")


def answer(cell: str, prompt: int, judge: float, **own: Any) -> Generation:
    method, _, seed = cell.partition("#")
    known = {"prompt": "?", "text": "Yes it is.", "tokens": 4, "finished": True, "sample": 0}
    scores = {"rm": judge, **({"gold": own.pop("gold")} if "gold" in own else {})}
    return Generation(cell=cell, algorithm=method, seed=int(seed or 0), prompt_id=prompt, scores=scores, **known | own)


def metrics_of(report: dict[str, Any], cell: str) -> dict[str, Any]:
    return next(found["metrics"] for found in report["results"] if found["cell"] == cell)


def table(report: dict[str, Any], title: str) -> Any:
    return next(section for section in report_sections(report) if section.title.startswith(title))


@pytest.fixture
def report() -> dict[str, Any]:
    """A base, a policy that gains by length alone, and one that gains at any length; 60 prompts."""
    rng = random.Random(2)
    rows = []
    for prompt in range(60):
        words = {"base": rng.randint(5, 30), "long": rng.randint(5, 60), "good": rng.randint(5, 30)}
        for name, count in words.items():
            judge = count / 10 + (1.0 if name == "good" else 0.0) + rng.gauss(0, 0.3)
            drift = {} if name == "base" else {"logp": -9.0, "ref_logp": -10.0 - prompt % 2, "kl": 1.0 + prompt % 2}
            gold = float(rng.random() < (0.9 if name == "good" else 0.5))
            rows.append(answer(name, prompt, judge, text="word " * count, tokens=count, gold=gold, **drift))
    outcomes = [policy("base", "base"), policy("long"), policy("good")]
    return build_report({"suite": {"name": "demo"}}, outcomes, [], rows)


def test_a_gain_by_length_is_told_from_one_at_equal_length(report: dict[str, Any]) -> None:
    long, good = metrics_of(report, "long"), metrics_of(report, "good")
    assert long["win_rate_vs_base"]["value"] > 0.65
    assert long["win_rate_length_controlled"]["low"] < 0.5 < long["win_rate_length_controlled"]["high"]
    assert good["win_rate_length_controlled"]["low"] > 0.6
    assert long["judge_gain_between_length"]["value"] > 0.8 * long["judge_gain"]["value"]
    assert good["judge_gain_within_length"]["value"] > 0.8 * good["judge_gain"]["value"]
    gain = next(f for f in report["comparisons"] if (f["a"], f["b"], f["metric"]) == ("long", "base", "judge_reward"))
    assert long["judge_gain"]["value"] == pytest.approx(gain["difference"])


def test_drift_by_hand(report: dict[str, Any]) -> None:
    found = metrics_of(report, "long")
    tokens = next(f for f in report["results"] if f["cell"] == "long")["metrics"]["length_tokens"]["value"]
    assert found["kl"]["value"] == pytest.approx(1.5)
    assert found["kl_per_token"]["value"] == pytest.approx(1.5 / tokens)
    assert found["kl_per_token"]["low"] < 1.5 / tokens < found["kl_per_token"]["high"]
    assert found["log_ratio"]["value"] == pytest.approx(1.5)
    assert metrics_of(report, "base")["kl"]["value"] is None


def test_samples_are_averaged_before_anything_is_compared() -> None:
    rows = [answer("base", 0, 0.0), answer("base", 1, 0.0)]
    rows += [
        answer("dpo", 0, score, sample=number, kl=kl) for number, (score, kl) in enumerate([(3.0, 1.0), (-1.0, 3.0)])
    ]
    rows += [answer("dpo", 1, -1.0, kl=6.0)]
    report = build_report({}, [policy("base", "base"), policy("dpo")], [], rows)
    found = metrics_of(report, "dpo")
    assert found["win_rate_vs_base"]["value"] == 0.5  # mean 1 > 0, −1 < 0
    assert found["kl"]["value"] == pytest.approx((2 + 6) / 2)
    assert found["judge_gain"]["value"] == pytest.approx((1 - 1) / 2)
    assert report["policies"]["win_rates"][0]["value"] == 0.5


def test_win_rates_of_all_against_all(report: dict[str, Any]) -> None:
    rates = report["policies"]["win_rates"]
    assert [(rate["a"], rate["b"]) for rate in rates] == [("long", "good"), ("long", "base"), ("good", "base")]
    assert rates[1]["value"] == metrics_of(report, "long")["win_rate_vs_base"]["value"]
    matrix = table(report, "Win rates")
    assert [column.heading for column in matrix.columns] == ["policy", "long", "good", "base"]
    for row in range(3):
        assert matrix.rows[row][row + 1] == "–"
        for column in range(row):
            assert float(matrix.rows[row][column + 1]) + float(matrix.rows[column][row + 1]) == pytest.approx(
                1, abs=0.002
            )


def test_win_rates_of_methods_are_over_all_pairs_of_seeds() -> None:
    rng = random.Random(0)
    names = ["base", *(f"dpo#{seed}" for seed in range(3)), *(f"kto#{seed}" for seed in range(2))]
    scores = {name: [rng.gauss(0, 1) for _ in range(20)] for name in names}
    rows = [answer(name, prompt, score) for name, own in scores.items() for prompt, score in enumerate(own)]
    report = build_report({}, [policy(name, "base" if name == "base" else "policy") for name in names], [], rows)
    found = {(r["a"], r["b"]): r for r in report["policies"]["win_rates"] if r["level"] == "method"}
    expected = statistics.mean(
        scores[f"dpo#{i}"][prompt] > scores[f"kto#{j}"][prompt]
        for i in range(3)
        for j in range(2)
        for prompt in range(20)
    )
    assert found["dpo", "kto"]["value"] == pytest.approx(expected)
    assert found["dpo", "kto"]["low"] is None  # kto has too few seeds
    assert found["dpo", "base"]["low"] < found["dpo", "base"]["value"] < found["dpo", "base"]["high"]
    assert [row[0] for row in table(report, "Win rates").rows] == ["dpo", "kto", "base"]


def test_the_frontier_has_no_dominated_point() -> None:
    def point(cell: str, kl: float | None, reward: float | None, kind: str = "policy") -> dict[str, Any]:
        numbers = {"kl": kl, "judge_reward_mean": reward, "gold_accuracy": None}
        metrics = {name: {"value": value, "low": None, "high": None, "n": 1} for name, value in numbers.items()}
        return {"cell": cell, "kind": kind, "status": "done", "metrics": metrics}

    results = [
        point("base", None, 0.0, "base"),
        point("a", 1.0, 1.0),
        point("worse", 2.0, 0.9),
        point("b", 3.0, 2.0),
        point("twin", 3.0, 2.0),
        point("bad", 0.5, -1.0),
        point("unmeasured", None, 9.0),
        point("unjudged", 0.1, None),
    ]
    frontier = compare_policies([], results, [])["frontier"]
    assert {found["cell"] for found in frontier if found["on_frontier"]} == {"base", "a", "b", "twin"}
    assert {found["cell"] for found in frontier if not found["on_frontier"]} == {"worse", "bad"}
    assert frontier[0]["kl"]["value"] == 0.0


def test_judge_against_gold_by_hand() -> None:
    judged = [(1.0, 1.0), (2.0, 0.0), (4.0, 1.0), (0.0, 0.0), (3.0, 1.0)]
    rows = [answer("base", prompt, 1.0, gold=0.0) for prompt in range(5)]
    rows += [answer("dpo", prompt, judge, gold=gold) for prompt, (judge, gold) in enumerate(judged)]
    report = build_report({}, [policy("base", "base"), policy("dpo")], [], rows)
    (found,) = report["policies"]["gold_against_judge"]
    assert found["judge_gain"]["value"] == pytest.approx(1.0)
    assert found["gold_gain"]["value"] == pytest.approx(0.6)
    # deviations −1, 0, 2, −2, 1 and 0.4, −0.6, 0.4, −0.6, 0.4: 2 / √(10 · 1.2)
    r = 2 / math.sqrt(10 * 1.2)
    assert found["correlation"]["value"] == pytest.approx(r)
    assert found["correlation"]["high"] == pytest.approx(math.tanh(math.atanh(r) + 1.959964 / math.sqrt(5 - 3)))
    assert table(report, "Judge against gold").rows[0][0] == "dpo"


def test_the_tables_fit_and_say_what_the_kl_is_of(report: dict[str, Any]) -> None:
    assert "Both are unbiased for answers drawn at temperature 1." in " ".join(table(report, "Drift").captions)
    greedy = {**report, "suite": {"name": "x", "settings": {"generate": {"temperature": 0.0}}}}
    assert "drawn at temperature 0, so that both describe these answers" in " ".join(table(greedy, "Drift").captions)
    assert [row[0] for row in table(report, "Drift").rows] == ["base", "long", "good"]
    assert [row[0] for row in table(report, "Gains over the base, by length").rows] == ["long", "good"]
    text = render(report)
    assert text.index("## Verdict") < text.index("## Gains over the base, by length") < text.index("## Win rates")


def test_without_a_judge_or_drift_there_are_no_such_tables() -> None:
    rows = [
        Generation(cell, cell, 0, prompt, 0, "?", "Yes.", 2, True, {}) for cell in ("base", "dpo") for prompt in (0, 1)
    ]
    report = build_report({}, [policy("base", "base"), policy("dpo")], [], rows)
    assert report["policies"] == {"judge": None, "win_rates": [], "frontier": [], "gold_against_judge": []}
    titles = {section.title for section in report_sections(report)}
    assert not {"Gains over the base, by length", "Win rates", "Judge against gold"} & titles
    assert metrics_of(report, "dpo")["judge_gain"]["value"] is None
