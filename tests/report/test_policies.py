"""Policies compared on their answers: metrics against the base, win rates, frontier, judge against gold."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest

from align_bench.records import CellId, Estimate, Generation, Kind, MetricKey
from align_bench.report.build import build_report
from align_bench.report.policies import compare_policies
from align_bench.report.render.markdown import render
from align_bench.report.schema import Metrics, Policies, Report, Result
from align_bench.report.tables import report_sections
from align_bench.report.tables.section import Section
from tests.report.conftest import BASE, DPO, KTO, answer, header, outcome, result_of

LONG, GOOD = CellId("long"), CellId("good")


def with_gold(cell: CellId, prompt: int, judge: float, gold: float) -> Generation:
    return replace(answer(cell, prompt), scores={"rm": judge, "gold": gold})


def table(report: Report, title: str) -> Section:
    return next(section for section in report_sections(report) if section.title.startswith(title))


def first_column(section: Section) -> list[str]:
    return [row[0] for row in section.texts()]


@pytest.fixture(scope="module")
def report() -> Report:
    """A base, a policy that gains by length alone, and one that gains at any length; 60 prompts."""
    rng = random.Random(2)
    rows = []
    for prompt in range(60):
        words = {BASE: rng.randint(5, 30), LONG: rng.randint(5, 60), GOOD: rng.randint(5, 30)}
        for cell, count in words.items():
            judge = count / 10 + (1.0 if cell == GOOD else 0.0) + rng.gauss(0, 0.3)
            gold = float(rng.random() < (0.9 if cell == GOOD else 0.5))
            made = replace(with_gold(cell, prompt, judge, gold), text="word " * count, tokens=count)
            if cell != BASE:
                made = replace(made, logp=-9.0, ref_logp=-10.0 - prompt % 2, kl=1.0 + prompt % 2)
            rows.append(made)
    outcomes = [outcome(BASE, "base"), outcome(LONG, "policy"), outcome(GOOD, "policy")]
    return build_report(header(), outcomes, [], rows)


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def bounds(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def test_a_gain_by_length_is_told_from_one_at_equal_length(report: Report) -> None:
    long, good = result_of(report, LONG).metrics, result_of(report, GOOD).metrics
    assert value(long.win_rate_vs_base) > 0.65
    low, high = bounds(long.win_rate_length_controlled)
    assert low < 0.5 < high
    assert bounds(good.win_rate_length_controlled)[0] > 0.6
    assert value(long.judge_gain_between_length) > 0.8 * value(long.judge_gain)
    assert value(good.judge_gain_within_length) > 0.8 * value(good.judge_gain)
    gain = next(f for f in report.comparisons if (f.a, f.b, f.metric) == (LONG, BASE, MetricKey("judge_reward")))
    assert long.judge_gain.value == pytest.approx(gain.difference)


def test_drift_by_hand(report: Report) -> None:
    found = result_of(report, LONG).metrics
    tokens = value(found.length_tokens)
    assert found.kl.value == pytest.approx(1.5)
    assert found.kl_per_token.value == pytest.approx(1.5 / tokens)
    low, high = bounds(found.kl_per_token)
    assert low < 1.5 / tokens < high
    assert found.log_ratio.value == pytest.approx(1.5)
    assert result_of(report, BASE).metrics.kl.value is None


def test_rewards_of_samples_are_averaged_and_wins_are_between_answers() -> None:
    rows = [answer(BASE, 0, 0.0), answer(BASE, 1, 0.0)]
    rows += [
        replace(answer(DPO, 0, score, sample), kl=kl) for sample, (score, kl) in enumerate([(3.0, 1.0), (-1.0, 3.0)])
    ]
    rows += [replace(answer(DPO, 1, -1.0), kl=6.0)]
    report = build_report(header(), [outcome(BASE, "base"), outcome(DPO, "policy")], [], rows)
    found = result_of(report, DPO).metrics
    assert found.win_rate_vs_base.value == 0.25  # of the first prompt one of two answers, of the second one none
    assert found.kl.value == pytest.approx((2 + 6) / 2)
    assert found.judge_gain.value == pytest.approx((1 - 1) / 2)
    assert report.policies.win_rates[0].rate.value == 0.25


def test_win_rates_of_all_against_all(report: Report) -> None:
    rates = report.policies.win_rates
    assert [(rate.a, rate.b) for rate in rates] == [(LONG, GOOD), (LONG, BASE), (GOOD, BASE)]
    assert rates[1].rate.value == result_of(report, LONG).metrics.win_rate_vs_base.value
    matrix = table(report, "Win rates")
    assert [column.heading for column in matrix.columns] == ["policy", "long", "good", "base"]
    cells = matrix.texts()
    for row in range(3):
        assert cells[row][row + 1] == "–"
        for column in range(row):
            assert float(cells[row][column + 1]) + float(cells[column][row + 1]) == pytest.approx(1, abs=0.002)


def test_win_rates_of_methods_are_over_all_pairs_of_seeds() -> None:
    rng = random.Random(0)
    dpo, kto = ([replace(method, seed=seed) for seed in range(count)] for method, count in ((DPO, 3), (KTO, 2)))
    scores = {cell: [rng.gauss(0, 1) for _ in range(20)] for cell in (BASE, *dpo, *kto)}
    rows = [answer(cell, prompt, score) for cell, own in scores.items() for prompt, score in enumerate(own)]
    outcomes = [outcome(BASE, "base"), *(outcome(cell, "policy") for cell in (*dpo, *kto))]
    report = build_report(header(), outcomes, [], rows)
    found = {(rate.a, rate.b): rate.rate for rate in report.policies.win_rates if rate.level == "method"}
    expected = statistics.mean(
        scores[one][prompt] > scores[other][prompt] for one in dpo for other in kto for prompt in range(20)
    )
    assert found[DPO, KTO].value == pytest.approx(expected)
    assert found[DPO, KTO].low is None  # kto has too few seeds
    low, high = bounds(found[DPO, BASE])
    assert low < value(found[DPO, BASE]) < high
    assert first_column(table(report, "Win rates")) == ["dpo", "kto", "base"]


def test_the_frontier_has_no_dominated_point() -> None:
    def point(name: str, kl: float | None, reward: float | None, kind: Kind = "policy") -> Result:
        return Result(
            cell=CellId(name),
            name=name,
            algorithm=name,
            kind=kind,
            parameters={},
            seed=0,
            status="done",
            reason=None,
            reward="",
            metrics=Metrics(kl=Estimate(kl, n=1), judge_reward_mean=Estimate(reward, n=1)),
            cost=None,
            trainable=None,
            warnings=[],
            remarks=[],
        )

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
    frontier = compare_policies([], results, []).frontier
    assert [found.cell.name for found in frontier if found.on_frontier] == ["base", "a", "b", "twin"]
    assert [found.cell.name for found in frontier if not found.on_frontier] == ["worse", "bad"]
    assert frontier[0].kl == Estimate(0.0, n=1)


def test_judge_against_gold_by_hand() -> None:
    judged = [(1.0, 1.0), (2.0, 0.0), (4.0, 1.0), (0.0, 0.0), (3.0, 1.0)]
    rows = [with_gold(BASE, prompt, 1.0, 0.0) for prompt in range(5)]
    rows += [with_gold(DPO, prompt, judge, gold) for prompt, (judge, gold) in enumerate(judged)]
    report = build_report(header(), [outcome(BASE, "base"), outcome(DPO, "policy")], [], rows)
    (found,) = report.policies.gold_against_judge
    assert found.judge_gain.value == pytest.approx(1.0)
    assert found.gold_gain.value == pytest.approx(0.6)
    # deviations −1, 0, 2, −2, 1 and 0.4, −0.6, 0.4, −0.6, 0.4: 2 / √(10 · 1.2)
    r = 2 / math.sqrt(10 * 1.2)
    assert found.correlation.value == pytest.approx(r)
    assert found.correlation.high == pytest.approx(math.tanh(math.atanh(r) + 1.959964 / math.sqrt(5 - 3)))
    assert first_column(table(report, "Judge gain against gold gain")) == ["dpo"]


def test_the_tables_fit_and_say_what_the_kl_is_of(report: Report) -> None:
    assert "Both are unbiased for answers drawn at temperature 1." in " ".join(table(report, "KL to the base").captions)
    suite = report.suite.model_copy(update={"settings": {"generate": {"temperature": 0.0}}})
    greedy = report.model_copy(update={"suite": suite})
    assert "drawn at temperature 0, so that both describe these answers" in " ".join(
        table(greedy, "KL to the base").captions
    )
    assert first_column(table(report, "KL to the base")) == ["base", "long", "good"]
    assert first_column(table(report, "Length-controlled win rate and judge gain")) == ["long", "good"]
    text = render(report)
    assert (
        text.index("## Verdict")
        < text.index("## Length-controlled win rate and judge gain")
        < text.index("## Win rates")
    )


def test_without_a_judge_or_drift_there_are_no_such_tables() -> None:
    rows = [answer(cell, prompt) for cell in (BASE, DPO) for prompt in (0, 1)]
    report = build_report(header(), [outcome(BASE, "base"), outcome(DPO, "policy")], [], rows)
    assert report.policies == Policies(judge=None, win_rates=[], frontier=[], gold_against_judge=[])
    titles = {section.title for section in report_sections(report)}
    assert not {"Length-controlled win rate and judge gain", "Win rates", "Judge gain against gold gain"} & titles
    assert result_of(report, DPO).metrics.judge_gain.value is None
