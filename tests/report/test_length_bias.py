"""What a report says of reward models' preference for length, and of their accuracy under attack."""

from __future__ import annotations

import random
from typing import Any

import pytest

from align_bench.metrics.length_bias import length_correlation
from align_bench.records import Outcome
from align_bench.report.build import build_report
from align_bench.report.report_sections import attacked, length_bias, length_bias_against_first


def outcome(cell: str, seed: int = 0, kind: Any = "reward") -> Outcome:
    return Outcome(cell, cell, kind, {}, seed, "done")


def rows(cell: str, slope: float, pairs: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    """Rewards that rise by `slope` a word; every cell scores the same answers."""
    words, noise = random.Random(0), random.Random(f"{cell}/{seed}")
    made = []
    for pair in range(pairs):
        lengths = [words.randint(1, 30) for _ in "wl"]
        chosen, rejected = (slope * count + noise.gauss(0, 1) for count in lengths)
        made.append(
            {
                "cell": cell,
                "algorithm": cell,
                "seed": seed,
                "pair": pair,
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "chosen_tokens": lengths[0],
                "rejected_tokens": lengths[1],
                "chosen_words": lengths[0],
                "rejected_words": lengths[1],
                "gold_choice": (1, 2, None)[pair % 3],
            }
        )
    return made


@pytest.fixture
def report() -> dict[str, Any]:
    slopes = {"judge": 0.5, "biased": 0.3, "fair": 0.0}
    return build_report(
        {}, [outcome(cell) for cell in slopes], [row for c, s in slopes.items() for row in rows(c, s)], []
    )


def metrics(report: dict[str, Any], cell: str) -> dict[str, Any]:
    return next(found["metrics"] for found in report["results"] if found["cell"] == cell)


def test_correlations_are_of_the_pairs_that_say_which_answer_is_better(report: dict[str, Any]) -> None:
    own = rows("biased", 0.3)
    sides = {1: ("chosen", "rejected"), 2: ("rejected", "chosen")}
    gold = [(row, *sides[row["gold_choice"]]) for row in own if row["gold_choice"]]
    expected = length_correlation(
        *([row[f"{right if better else wrong}_reward"] for row, right, wrong in gold] for better in (True, False)),
        *([row[f"{right if better else wrong}_words"] for row, right, wrong in gold] for better in (True, False)),
    )
    found = metrics(report, "biased")["length_correlation_given_gold"]
    assert (found["value"], found["low"], found["high"], found["n"]) == pytest.approx(
        (expected.value, expected.low, expected.high, 60)
    )
    assert metrics(report, "biased")["length_correlation_given_label"]["n"] == 90


def test_right_shorter_is_by_gold_not_by_label(report: dict[str, Any]) -> None:
    wins = []
    for row in rows("biased", 0.3):
        right, wrong = {1: ("chosen", "rejected"), 2: ("rejected", "chosen")}.get(row["gold_choice"], (None, None))
        if right and row[f"{right}_words"] < row[f"{wrong}_words"]:
            wins.append(row[f"{right}_reward"] > row[f"{wrong}_reward"])
    found = metrics(report, "biased")["accuracy_right_shorter"]
    assert (found["value"], found["n"]) == (pytest.approx(sum(wins) / len(wins)), len(wins))


def test_less_bias_shows_in_the_comparison(report: dict[str, Any]) -> None:
    section = length_bias_against_first(report)
    assert {row[0] for row in section.rows} == {"biased − fair"}  # the judge is nobody's first
    verdicts = {row[1]: row[-1] for row in section.rows}
    assert verdicts == {
        "accuracy_right_shorter": "fair higher",
        "length_correlation_given_label": "biased higher",
        "length_correlation_given_gold": "biased higher",
    }
    assert [row[0] for row in length_bias(report).rows] == ["biased", "fair"]


def test_cells_are_held_against_the_first_of_their_seed() -> None:
    cells = [outcome("a#0"), outcome("b#0"), outcome("a#1", 1), outcome("b#1", 1)]
    made = [row for cell in cells for row in rows(cell.cell, 0.1, seed=cell.seed)]
    section = length_bias_against_first(build_report({}, cells, made, []))
    assert {row[0] for row in section.rows} == {"a#0 − b#0", "a#1 − b#1"}


def test_without_gold_the_label_alone_is_known_and_policies_have_none() -> None:
    made = [{**row, "gold_choice": None} for row in rows("rm", 0.2) + rows("dpo", 0.2)]
    built = build_report({}, [outcome("rm"), outcome("dpo", kind="policy")], made, [])
    assert metrics(built, "rm")["length_correlation_given_gold"]["value"] is None
    assert metrics(built, "rm")["length_correlation_given_label"]["value"] is not None
    assert metrics(built, "dpo")["length_correlation_given_label"]["value"] is None
    assert not length_bias(built).rows  # one reward model has nothing to be held against


def test_accuracy_under_attack_has_a_column_an_epsilon() -> None:
    made = [
        {
            **row,
            "chosen_reward@0.1": row["chosen_reward"] - 1,
            "rejected_reward@0.1": row["rejected_reward"],
            "chosen_reward@0.5": 0.0,
            "rejected_reward@0.5": 1.0 if row["pair"] % 2 else -1.0,
        }
        for row in rows("rm", 0.2)
    ]
    built = build_report({}, [outcome("rm"), outcome("dpo", kind="policy")], made + rows("dpo", 0.1), [])
    found = metrics(built, "rm")
    assert found["accuracy_attacked[0.1]"]["value"] < found["accuracy"]["value"]
    assert found["accuracy_attacked[0.5]"]["value"] == 0.5
    section = attacked(built)
    assert [column.heading for column in section.columns] == ["model", "ε = 0", "ε = 0.1", "ε = 0.5"]
    assert [row[0] for row in section.rows] == ["rm"]
    assert not attacked(build_report({}, [outcome("rm")], rows("rm", 0.2), [])).rows
