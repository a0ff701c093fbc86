"""What a report says of reward models' preference for length, and of their accuracy under attack."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from align_bench.metrics.length_bias import length_correlation
from align_bench.records import CellId
from align_bench.report.build import build_report
from align_bench.report.rows import AttackedScores, ScoredAnswer, ScoreRow
from align_bench.report.schema import Report
from align_bench.report.tables.length import length_bias, length_bias_against_first
from align_bench.report.tables.scores import attacked
from tests.report.conftest import DPO, header, outcome, result_of, score

JUDGE, BIASED, FAIR, REWARD = map(CellId, ("judge", "biased", "fair", "rm"))


def rows(cell: CellId, slope: float, pairs: int = 90) -> list[ScoreRow]:
    """Rewards that rise by `slope` per word; every cell scores the same answers."""
    words, noise = random.Random(0), random.Random(f"{cell.name}/{cell.seed or 0}")
    made = []
    for pair in range(pairs):
        lengths = [words.randint(1, 30) for _ in "wl"]
        chosen, rejected = (slope * count + noise.gauss(0, 1) for count in lengths)
        row = replace(score(cell, pair, chosen, rejected), chosen_words=lengths[0], rejected_words=lengths[1])
        made.append(replace(row, gold_choice=(1, 2, None)[pair % 3]))
    return made


def by_gold(rows: list[ScoreRow]) -> list[tuple[ScoredAnswer, ScoredAnswer]]:
    """The right and the wrong answer of each pair."""
    sides = [(row.gold_choice, row.chosen, row.rejected) for row in rows if row.gold_choice]
    return [(chosen, rejected) if gold == 1 else (rejected, chosen) for gold, chosen, rejected in sides]


@pytest.fixture(scope="module")
def report() -> Report:
    slopes = {JUDGE: 0.5, BIASED: 0.3, FAIR: 0.0}
    scores = [row for cell, slope in slopes.items() for row in rows(cell, slope)]
    return build_report(header(), [outcome(cell, "reward") for cell in slopes], scores, [])


def test_correlations_are_of_the_pairs_that_say_which_answer_is_better(report: Report) -> None:
    gold = by_gold(rows(BIASED, 0.3))
    expected = length_correlation(
        [right.reward for right, _ in gold],
        [wrong.reward for _, wrong in gold],
        [right.words for right, _ in gold],
        [wrong.words for _, wrong in gold],
    )
    metrics = result_of(report, BIASED).metrics
    assert metrics.length_correlation_given_gold == expected
    assert expected.n == 60
    assert metrics.length_correlation_given_label.n == 90


def test_right_shorter_is_by_gold_not_by_label(report: Report) -> None:
    wins = [
        right.reward > wrong.reward
        for right, wrong in by_gold(rows(BIASED, 0.3))
        if right.words is not None and wrong.words is not None and right.words < wrong.words
        if right.reward is not None and wrong.reward is not None
    ]
    found = result_of(report, BIASED).metrics.accuracy_right_shorter
    assert found.value == pytest.approx(sum(wins) / len(wins))
    assert found.n == len(wins)


def test_less_bias_shows_in_the_comparison(report: Report) -> None:
    section = length_bias_against_first(report)
    assert {row[0] for row in section.texts()} == {"biased − fair"}  # the judge is nobody's first
    verdicts = {row[1]: row[-1] for row in section.texts()}
    assert verdicts == {
        "accuracy_right_shorter": "fair checkpoint higher",
        "length_correlation_given_label": "biased checkpoint higher",
        "length_correlation_given_gold": "biased checkpoint higher",
    }
    assert [row[0] for row in length_bias(report).texts()] == ["biased", "fair"]


def test_cells_are_held_against_the_first_of_their_seed() -> None:
    cells = [CellId(name, seed=seed) for seed in (0, 1) for name in "ab"]
    made = [row for cell in cells for row in rows(cell, 0.1)]
    built = build_report(header(), [outcome(cell, "reward") for cell in cells], made, [])
    assert {row[0] for row in length_bias_against_first(built).texts()} == {"a#0 − b#0", "a#1 − b#1"}


def test_without_gold_the_label_alone_is_known_and_policies_have_none() -> None:
    made = [replace(row, gold_choice=None) for row in rows(REWARD, 0.2) + rows(DPO, 0.2)]
    built = build_report(header(), [outcome(REWARD, "reward"), outcome(DPO, "policy")], made, [])
    assert result_of(built, REWARD).metrics.length_correlation_given_gold.value is None
    assert result_of(built, REWARD).metrics.length_correlation_given_label.value is not None
    assert result_of(built, DPO).metrics.length_correlation_given_label.value is None
    assert not length_bias(built).rows  # one reward model has nothing to be held against


def test_accuracy_under_attack_has_a_column_per_epsilon() -> None:
    made = []
    for row in rows(REWARD, 0.2):
        assert row.chosen_reward is not None
        small = AttackedScores(0.1, row.chosen_reward - 1, row.rejected_reward)
        large = AttackedScores(0.5, 0.0, 1.0 if row.pair % 2 else -1.0)
        made.append(replace(row, attacked=(small, large)))
    outcomes = [outcome(REWARD, "reward"), outcome(DPO, "policy")]
    built = build_report(header(), outcomes, made + rows(DPO, 0.1), [])
    metrics = result_of(built, REWARD).metrics
    small_attack, large_attack = (one.accuracy.value for one in metrics.attacked)
    assert [one.epsilon for one in metrics.attacked] == [0.1, 0.5]
    assert small_attack is not None
    assert metrics.accuracy.value is not None
    assert small_attack < metrics.accuracy.value
    assert large_attack == 0.5
    assert result_of(built, DPO).metrics.attacked == ()
    section = attacked(built)
    assert [column.heading for column in section.columns] == ["model", "ε = 0", "ε = 0.1", "ε = 0.5"]
    assert [row[0] for row in section.texts()] == ["rm"]
    assert not attacked(build_report(header(), [outcome(REWARD, "reward")], rows(REWARD, 0.2), [])).rows
