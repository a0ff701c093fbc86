from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind, ttest_rel

from align_bench.records import Generation, Outcome
from align_bench.report.build import build_report
from align_bench.report.files import json_ready
from align_bench.stats.paired import holm

UNDEFINED = {"value": None, "low": None, "high": None, "n": 0}


def result(report: dict[str, Any], cell: str) -> dict[str, Any]:
    return next(found for found in report["results"] if found["cell"] == cell)


def comparison(report: dict[str, Any], a: str, b: str, metric: str, level: str = "checkpoint") -> dict[str, Any]:
    key = {"a": a, "b": b, "metric": metric, "level": level}
    return next(found for found in report["comparisons"] if key.items() <= found.items())


def score(cell: str, pair: int, chosen: float | None, rejected: float | None, **own: Any) -> dict[str, Any]:
    known = {
        "algorithm": cell,
        "seed": 0,
        "chosen_tokens": 2,
        "rejected_tokens": 4,
        "chosen_words": 3,
        "rejected_words": 2,
    }
    return {"cell": cell, "pair": pair, "chosen_reward": chosen, "rejected_reward": rejected, **known, **own}


def answer(cell: str, prompt: int, sample: int = 0, **own: Any) -> Generation:
    known = {"algorithm": cell, "seed": 0, "prompt": "?", "text": "Yes it is.", "tokens": 4, "finished": True}
    return Generation(cell=cell, prompt_id=prompt, sample=sample, **{**known, **own})


def done(cell: str, kind: Any, seed: int = 0, algorithm: str | None = None) -> Outcome:
    return Outcome(cell, algorithm or cell, kind, {}, seed, "done")


def test_the_report_has_the_designed_shape(run: Any) -> None:
    report = run.report()
    assert {"suite", "base", "data", "judge", "environment", "results", "comparisons", "baselines", "notes"} <= set(
        report
    )
    for found in report["results"]:
        keys = {"algorithm", "kind", "parameters", "seed", "status", "reason", "metrics", "cost"}
        assert keys <= set(found)
        assert all(set(metric) == {"value", "low", "high", "n"} for metric in found["metrics"].values())
    keys = {"a", "b", "level", "metric", "difference", "low", "high", "test", "p", "p_holm", "effect", "n"}
    assert all(set(found) >= keys for found in report["comparisons"])
    cost = {"seconds": 754.0, "tokens": 12_345, "peak_bytes": 3 * 2**30, "flops": 2.5e12, "utilisation": 0.125}
    assert result(report, "dpo")["cost"] == cost
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_preference_metrics_by_hand() -> None:
    rows = [
        score("dpo", 0, 2.0, 1.0, chosen_logp=-2.0, rejected_logp=-8.0, gold_choice=1),
        score("dpo", 1, 0.0, 3.0, chosen_logp=-6.0, rejected_logp=-8.0, gold_choice=2),
        score("dpo", 2, 1.0, 1.0, chosen_logp=-4.0, rejected_logp=-8.0, chosen_words=1, gold_choice=2),
        score("dpo", 3, 5.0, 1.0, chosen_logp=-1.0, rejected_logp=-9.0, chosen_words=1, gold_choice=None),
    ]
    rows = [{**row, "ref_chosen_logp": -3.0, "ref_rejected_logp": -9.0} for row in rows]
    found = build_report({}, [done("dpo", "policy")], rows, [])["results"][0]["metrics"]
    values = {name: metric["value"] for name, metric in found.items()}
    assert values["accuracy"] == 0.625
    assert values["tie_rate"] == 0.25
    assert values["reward_mean"] == pytest.approx(14 / 8)
    assert values["reward_std"] == pytest.approx(statistics.stdev([2, 0, 1, 5, 1, 3, 1, 1]))
    assert values["margin"] == pytest.approx(0.5)
    # s̄ chosen −1, −3, −2, −0.5 against −2, −2, −2, −2.25
    assert values["accuracy_logp_mean"] == 0.625
    # ρ chosen 1, −3, −1, 2 against 1, 1, 1, 0
    assert values["accuracy_logratio"] == 0.375
    # right, right, tie, unknown
    assert values["accuracy_gold_choice"] == pytest.approx(2.5 / 3)
    assert values["accuracy_chosen_longer"] == 0.5
    assert values["accuracy_chosen_shorter"] == 0.75
    assert found["accuracy_chosen_longer"]["n"] == 2
    assert values["gold_accuracy"] is None


def test_pairs_of_one_length_are_neither_longer_nor_shorter() -> None:
    rows = [score("rm", pair, 1.0, 0.0, chosen_words=words) for pair, words in enumerate([1, 2, 2, 3, 4, 5])]
    found = build_report({}, [done("rm", "reward")], rows, [])["results"][0]["metrics"]
    assert found["accuracy_chosen_longer"]["n"] == 3
    assert found["accuracy_chosen_shorter"]["n"] == 1


def test_generation_metrics_by_hand() -> None:
    base = [answer("base", k, scores={"rm": reward, "gold": 1.0}) for k, reward in enumerate([0.0, 1.0, 0.4])]
    own = [
        answer("dpo", 0, 0, scores={"rm": 3.0, "gold": 1.0}, text="one two", tokens=3, finished=False),
        answer("dpo", 0, 1, scores={"rm": -1.0, "gold": 0.0}, text="one two three four", tokens=5),
        answer("dpo", 1, 0, scores={"rm": 1.0, "gold": 0.0}, text="我爱", tokens=7),
        answer("dpo", 1, 1, scores={"rm": 1.0, "gold": 0.0}, text="", tokens=1),
        answer("dpo", 2, 0, scores={"rm": 0.0, "gold": 1.0}, text="42", tokens=2),
        answer("dpo", 2, 1, scores={"rm": 1.0, "gold": 1.0}, text="a", tokens=2),
    ]
    report = build_report({}, [done("base", "base"), done("dpo", "policy")], [], [*own, *base])
    values = {name: metric["value"] for name, metric in result(report, "dpo")["metrics"].items()}
    assert values["judge_reward_mean"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert values["judge_reward_std"] == pytest.approx(statistics.stdev([3, -1, 1, 1, 0, 1]))
    # 1 > 0, 1 = 1, 0.5 > 0.4
    assert values["win_rate_vs_base"] == pytest.approx(2.5 / 3)
    assert values["gold_accuracy"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert values["length_words"] == pytest.approx((3 + 1 + 1) / 3)
    assert values["length_tokens"] == pytest.approx((4 + 4 + 2) / 3)
    assert values["unfinished_share"] == pytest.approx(0.5 / 3)
    assert result(report, "dpo")["metrics"]["readability_grade"]["n"] == 2
    assert result(report, "base")["metrics"]["win_rate_vs_base"] == UNDEFINED
    assert result(report, "base")["metrics"]["gold_accuracy"]["value"] == 1.0
    # several samples a prompt: no McNemar
    assert comparison(report, "dpo", "base", "gold_accuracy")["test"] == "paired t"


def test_metrics_without_data_are_null(run: Any) -> None:
    report = run.report()
    rm, base = (result(report, cell)["metrics"] for cell in ("rm[learning_rate=1e-05]", "base"))
    for name in ("accuracy_logp_mean", "accuracy_logratio", "judge_reward_mean", "gold_accuracy", "length_words"):
        assert rm[name] == UNDEFINED
    assert base["accuracy_logratio"] == UNDEFINED
    assert base["accuracy_logp_mean"]["value"] is not None
    for cell in ("kto", "ppo"):
        assert all(metric == UNDEFINED for metric in result(report, cell)["metrics"].values())
    assert result(report, "ppo")["reason"] == "its reward model failed"
    assert set(rm) == set(result(report, "kto")["metrics"])


def test_a_main_judge_that_failed_is_replaced_by_no_other(run: Any) -> None:
    panel = [{"name": "failed"}, {"name": "rm"}, {"name": "gold"}]
    run.header["judge"] = {"name": "failed", "panel": panel}
    report = run.report()
    metrics = result(report, "dpo")["metrics"]
    assert metrics["judge_reward_mean"]["value"] is None
    assert metrics["judge_reward_mean[rm]"]["value"] is not None
    assert metrics["win_rate_vs_base"]["value"] is None
    assert [(found["a"], found["b"]) for found in report["agreement"]] == [("rm", "gold")]


def test_the_first_judge_has_the_plain_name(run: Any) -> None:
    report = run.report()
    metrics = result(report, "dpo")["metrics"]
    scores = [answer.scores for answer in run.generations if answer.cell == "dpo"]
    assert metrics["judge_reward_mean"]["value"] == pytest.approx(statistics.mean(found["rm"] for found in scores))
    assert metrics["judge_reward_mean[other]"]["value"] == pytest.approx(statistics.mean(s["other"] for s in scores))
    assert metrics["gold_accuracy"]["value"] == pytest.approx(statistics.mean(found["gold"] for found in scores))
    assert {found["metric"] for found in report["comparisons"]} == {
        "accuracy",
        "accuracy_right_shorter",
        "length_correlation_given_label",
        "length_correlation_given_gold",
        "judge_reward",
        "judge_reward[other]",
        "gold_accuracy",
    }


def test_comparisons_against_scipy(run: Any) -> None:
    report = run.report()
    judged = {cell: [x.scores["rm"] for x in run.generations if x.cell == cell] for cell in ("dpo", "base")}
    test = ttest_rel(judged["dpo"], judged["base"])
    found = comparison(report, "dpo", "base", "judge_reward")
    assert found["p"] == pytest.approx(test.pvalue)
    assert found["low"] == pytest.approx(test.confidence_interval().low)
    gaps = [a - b for a, b in zip(judged["dpo"], judged["base"], strict=True)]
    assert found["effect"] == pytest.approx(statistics.mean(gaps) / statistics.stdev(gaps))

    right = {
        cell: [row["chosen_reward"] > row["rejected_reward"] for row in run.scores if row["cell"] == cell]
        for cell in ("dpo", "simpo")
    }
    only = [
        sum(a > b for a, b in zip(right[x], right[y], strict=True)) for x, y in (("dpo", "simpo"), ("simpo", "dpo"))
    ]
    found = comparison(report, "dpo", "simpo", "accuracy")
    assert found["p"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert found["difference"] == pytest.approx((only[0] - only[1]) / 60)
    assert found["test"] == "exact McNemar"
    assert found["effect"] is None


def test_only_comparable_cells_are_compared_and_the_base_stands_last(run: Any) -> None:
    report = run.report()
    kinds = {found["cell"]: found["kind"] for found in report["results"]}
    for found in report["comparisons"]:
        assert (kinds[found["a"]] == "reward") == (kinds[found["b"]] == "reward")
        assert found["a"] != "base"
        assert not {found["a"], found["b"]} & {"kto", "ppo"}
    # 1 pair of reward models on accuracy and three biases; 6 pairs of policies and base on accuracy, two judges, gold
    assert len(report["comparisons"]) == 4 + 6 * 4


def test_holm_spans_the_whole_report(run: Any) -> None:
    comparisons = run.report()["comparisons"]
    assert [found["p_holm"] for found in comparisons] == holm([found["p"] for found in comparisons])
    tested = [found for found in comparisons if found["p"] is not None]
    assert len(tested) == len(comparisons) - 2  # a bootstrap is no test
    smallest = min(tested, key=lambda found: found["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, smallest["p"] * len(tested)))


def seeded(counts: dict[str, int]) -> tuple[list[Outcome], list[Generation]]:
    rng = random.Random(3)
    outcomes = [done("base", "base")]
    outcomes += [
        done(f"{method}#{seed}" if seed else method, "policy", seed, method)
        for method, count in counts.items()
        for seed in range(count)
    ]
    generations = [
        answer(cell.cell, prompt, scores={"rm": rng.gauss(0, 1)}) for cell in outcomes for prompt in range(10)
    ]
    return outcomes, generations


def test_three_seeds_allow_welch_between_methods() -> None:
    outcomes, generations = seeded({"dpo": 3, "simpo": 3, "kto": 2})
    report = build_report({}, outcomes, [], generations)
    means = {
        cell.cell: statistics.mean(x.scores["rm"] for x in generations if x.cell == cell.cell) for cell in outcomes
    }
    dpo, simpo = ([means[method], means[f"{method}#1"], means[f"{method}#2"]] for method in ("dpo", "simpo"))
    found = comparison(report, "dpo", "simpo", "judge_reward", "method")
    assert found["p"] == pytest.approx(ttest_ind(dpo, simpo, equal_var=False).pvalue)
    assert found["difference"] == pytest.approx(statistics.mean(dpo) - statistics.mean(simpo))
    assert found["n"] == 3
    assert comparison(report, "dpo", "base", "judge_reward", "method")["test"] == "one-sample t (seeds)"
    methods = [{found["a"], found["b"]} for found in report["comparisons"] if found["level"] == "method"]
    assert not any("kto" in pair for pair in methods)
    assert any(note.startswith("Two seeds for kto:") and "no claim about methods" in note for note in report["notes"])


def test_one_seed_allows_no_claim_about_methods(run: Any) -> None:
    report = run.report()
    assert not [found for found in report["comparisons"] if found["level"] == "method"]
    assert any(note.startswith("One seed for every method:") for note in report["notes"])


def test_notes_name_the_policies_without_a_gain_in_gold() -> None:
    prompts = range(40)
    rows = [answer("base", k, scores={"gold": float(k % 4 == 0)}) for k in prompts]
    rows += [answer("good", k, scores={"gold": float(k % 4 < 3)}) for k in prompts]
    rows += [answer("flat", k, scores={"gold": float(k % 4 == 1)}) for k in prompts]
    report = build_report({}, [done("base", "base"), done("good", "policy"), done("flat", "policy")], [], rows)
    (note,) = [note for note in report["notes"] if "gold accuracy" in note]
    assert "for 1 of 2 policies: flat +0.000 [" in note
    found = comparison(report, "good", "base", "gold_accuracy")
    assert found["test"] == "exact McNemar"
    assert found["low"] > 0
    assert any("Smallest difference that 40 prompts show" in note for note in report["notes"])


def test_diverged_numbers_are_left_out_out_loud() -> None:
    rows = [
        score("rm", 0, math.nan, 1.0),
        score("rm", 1, 1.0, None),
        score("rm", 2, 1.0, 0.0),
        score("rm", 3, 2.0, 2.0),
    ]
    answers = [answer("dpo", 0, scores={"rm": math.inf}), answer("dpo", 1, scores={"rm": 1.0})]
    report = build_report({"data": {"loss": math.nan}}, [done("rm", "reward"), done("dpo", "policy")], rows, answers)
    json.dumps(report, allow_nan=False)
    assert result(report, "rm")["metrics"]["accuracy"]["value"] == 0.75
    assert result(report, "rm")["metrics"]["accuracy"]["n"] == 2
    assert result(report, "dpo")["metrics"]["judge_reward_mean"] == {"value": 1.0, "low": None, "high": None, "n": 1}
    assert any("rm has no finite reward for 2 of 4 pairs" in note for note in report["notes"])
    assert any("dpo has no finite judge score for 1 of 2 generations" in note for note in report["notes"])
    assert any("rm scores both answers of 50.0% of its pairs equally" in note for note in report["notes"])


def test_baselines_are_over_distinct_pairs() -> None:
    rows = [
        score(cell, pair, 1.0, 0.0, chosen_words=words, rejected_words=3, gold_choice=gold)
        for cell in ("a", "b")
        for pair, words, gold in ((0, 5, 1), (1, 3, 2), (2, 9, None), (3, 1, 1))
    ]
    found = build_report({}, [done("a", "reward"), done("b", "reward")], rows, [])["baselines"]
    assert (found["longer_wins"]["value"], found["longer_wins"]["n"]) == (0.625, 4)
    assert found["labels_agree_with_gold"]["value"] == pytest.approx(2 / 3)


def test_the_order_of_rows_does_not_matter(run: Any) -> None:
    shuffled = random.Random(1).sample(run.scores, len(run.scores))
    moved = run.generations[::-1]
    assert replace(run, scores=shuffled).report() == run.report()
    assert replace(run, generations=moved).report()["results"] == run.report()["results"]


def test_rows_that_fit_no_outcome_or_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="in no outcome: dpo"):
        build_report({}, [], [score("dpo", 0, 1.0, 0.0)], [])
    with pytest.raises(ValueError, match="more than one score row"):
        build_report({}, [done("dpo", "policy")], [score("dpo", 0, 1.0, 0.0)] * 2, [])
    with pytest.raises(ValueError, match="more than one generation"):
        build_report({}, [done("dpo", "policy")], [], [answer("dpo", 0)] * 2)


def test_an_empty_run_is_a_report() -> None:
    report = build_report({}, [], [], [])
    assert report["results"] == report["comparisons"] == report["notes"] == []
    assert report["baselines"]["longer_wins"] == UNDEFINED


def test_json_ready_leaves_only_json() -> None:
    mixed = {
        1: (np.float64("nan"), np.int64(3), np.bool_(True)),
        "day": date(2026, 1, 2),
        "set": {"b", "a"},
        "x": [2.5],
    }
    assert json_ready(mixed) == {"1": [None, 3, True], "day": "2026-01-02", "set": ["a", "b"], "x": [2.5]}
