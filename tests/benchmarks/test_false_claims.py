"""The benchmark of false claims runs, knows the truth, and finds out a statistic that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import false_claims
import numpy as np
import pytest
from false_claims_audits import AuditWorld, truths
from false_claims_page import Found, page, summary
from false_claims_reports import difference, simulated, through_report
from false_claims_statistics import Test, by_statistics, method_difference
from false_claims_tally import Question, Rate, Tally, gate, rates_of, wilson
from false_claims_worlds import Level, Places, Truth, Vector, World, drawn
from scipy.stats import binomtest, norm, ttest_ind

from align_bench.records import Estimate, MetricKey
from align_bench.stats.paired import Difference

DIFFERENCE = "difference of methods"


def with_prompts_fixed(a: Vector, b: Vector, prompts: Places, b_is_base: bool) -> Difference:
    """Welch's test over the means of seeds, as if other prompts would give the same: wrong on purpose."""
    left, right = a.mean(axis=1), b.mean(axis=1)
    test = ttest_ind(left, right, equal_var=False)
    low, high = test.confidence_interval()
    return Difference(float(left.mean() - right.mean()), float(low), float(high), float(test.pvalue), None, len(a))


@pytest.mark.parametrize(("test", "mark"), [(with_prompts_fixed, "below"), (method_difference, "")])
def test_a_statistic_that_takes_prompts_as_fixed_is_found_out(test: Test, mark: str) -> None:
    world = World(taste=3, seed_noise=0.02, prompts=50)
    tallies = [by_statistics(world, np.random.default_rng([7, suite]), test) for suite in range(100)]
    rates = rates_of("statistics", str(world), tallies)
    coverage = next(rate for rate in rates if rate.what == DIFFERENCE)
    assert coverage.suites == 100
    assert coverage.mark == mark
    result = gate(rates)
    assert result is not None
    assert result.passed == (mark == "")


def test_a_quick_run_of_two_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "false_claims"
    monkeypatch.setattr("sys.argv", ["false_claims.py", "--quick", "--processes", "1", "--output", str(output)])
    false_claims.main()
    found = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert {rate["part"] for rate in found["rates"]} == {"statistics", "report"}
    assert found["settings"] == {"repetitions": 20, "reports": 2, "seed": 0, "processes": 1}
    assert found["gate"]["cells"] == 2
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"* {line}" in text for line in found["summary"])
    assert text.count("\n## ") >= 3


def test_suites_have_generators_of_their_own() -> None:
    cells = [false_claims.Cell("statistics", World(prompts=20))]
    few, more = (false_claims.simulate(cells, count, 0, seed=3, processes=1) for count in (4, 25))
    again = false_claims.simulate(cells, 4, 0, seed=3, processes=1)
    assert few == again
    assert {rate.suites for rate in more.rates} == {25}


def test_each_cell_stands_once_in_the_design() -> None:
    for cells in (list(false_claims.statistics()), list(false_claims.reports())):
        names = [(cell.part, str(cell.world), cell.rich) for cell in cells]
        assert len(set(names)) == len(names)


def test_the_truth_of_normal_scores_is_in_closed_form() -> None:
    truth, a, b = Truth(World(taste=0.5)), Level(0.4), Level(0.1, 0.3)
    assert truth.mean(a) == 0.4
    assert truth.std(a) == pytest.approx(1.5)
    assert truth.share(a) == pytest.approx(norm.cdf(0.4 / 1.5), abs=0.004)
    assert truth.win(a, b) == pytest.approx(norm.cdf(0.3 / math.sqrt(2 * 1.25 + 0.09)), abs=0.004)
    assert truth.win(a, a) == 0.5
    assert Truth(World(step=1)).win(a, a) == 0.5


@pytest.mark.parametrize(
    "world",
    [
        World(noise="lognormal", samples=2),
        World(noise="t3", taste=1),
        World(pairs=3, step=1),
        World(pairs=1),
        World(binary=True),
    ],
    ids=str,
)
def test_what_is_drawn_has_the_truth(world: World) -> None:
    many = World(**{name: getattr(world, name) for name in ("noise", "samples", "taste", "pairs", "step", "binary")})
    many = World(**{**{f: getattr(many, f) for f in many.__slots__}, "methods": 1, "seeds": 1, "prompts": 60_000})
    draw, truth = drawn(many, np.random.default_rng(1)), Truth(world)
    level, scores = Level(float(draw.shifts[0, 0])), draw.scores[0][0]
    assert scores.mean() == pytest.approx(truth.mean(level), abs=0.03)
    assert np.mean(np.sign(draw.latent[0][0]) + 1) / 2 == pytest.approx(truth.share(level), abs=0.01)
    if world.pairs:
        assert np.mean(scores == 0) == pytest.approx(truth.ties(level), abs=0.01)
    else:
        assert scores.std() == pytest.approx(truth.std(level), rel=0.1)


def test_rows_of_a_suite_hold_its_scores() -> None:
    world = World(prompts=7, samples=2, base=True)
    suite = simulated(world, np.random.default_rng(5), rich=True)
    assert len(suite.generations) == 7 * 2 * 7
    assert {str(outcome.cell) for outcome in suite.outcomes} == {row.cell for row in suite.generations}
    scores = {row.scores["judge"] for row in suite.generations}
    draw = drawn(world, np.random.default_rng(5))
    assert scores == {score for table in draw.scores for seed in table for score in seed.tolist()}


def test_one_seed_claims_nothing_of_methods() -> None:
    world = World(methods=2, seeds=1, prompts=60, seed_noise=1)
    tally = through_report(world, np.random.default_rng(0))
    asked = {question.what for question in tally.asked}
    assert "the verdict says Higher of checkpoints" in asked
    assert not any(tally.yes[question] for question in tally.asked if question.asked == "claims")


def test_with_one_seed_a_method_is_not_its_checkpoint() -> None:
    suite = simulated(World(seeds=1, seed_noise=5, declared=True), np.random.default_rng(0))
    a, b = suite.methods
    assert suite.methods.keys() == suite.checkpoints.keys()
    assert difference(suite, a, b, MetricKey("judge_reward"), "method") == 0
    assert difference(suite, a, b, MetricKey("judge_reward"), "checkpoint") != 0


def test_the_truth_of_an_audit() -> None:
    found = truths(AuditWorld(pairs=1))
    assert found["calibration_error"] == 0
    assert found["accuracy"] == pytest.approx(
        (found["accuracy_chosen_longer"] + found["accuracy_chosen_shorter"]) / 2, abs=0.05
    )
    assert found["length_partial_within"] > 0.1
    assert found["shift by filler"] > 0 > found["shift by doubled"]
    assert truths(AuditWorld(pairs=1, temperature=2))["calibration_error"] > 0.05


def test_rates_and_marks() -> None:
    tallies = []
    for suite in range(100):
        tally = Tally()
        for _ in range(4):
            tally.covers("good", 0.0, 1.0, 0.5 if suite % 20 else 2.0)
            tally.covers("bad", 0.0, 1.0, 0.5 if suite % 2 else 2.0)
        tally.covers("none", None, 1.0, 0.5)
        tally.estimated("skewed", Estimate(0.0, 0.0, 1.0, 9, wanted=20), 2.0)
        tally.estimated("skewed", Estimate(0.0, 0.0, 1.0, 9), 0.5)
        tally.estimated("unsaid", Estimate(0.0, 0.0, 1.0, 9, wanted=20), 0.5)
        tally.estimated("unsaid", Estimate(0.0, 0.0, 1.0, 9), 2.0)
        tally.add(Question("claims", "claim", family=True), suite < 12)
        tallies.append(tally)
    rates = {rate.what: rate for rate in rates_of("report", "cell", tallies)}
    assert "none" not in rates
    assert (rates["skewed"].rate, rates["skewed"].warned, rates["skewed"].mark) == (0.5, 0.5, "below, said")
    assert (rates["unsaid"].rate, rates["unsaid"].warned, rates["unsaid"].mark) == (0.5, 0.5, "below")
    assert (rates["good"].rate, rates["good"].mark) == (0.95, "")
    assert (rates["bad"].rate, rates["bad"].mark, rates["bad"].answers) == (0.5, "below", 400)
    # Intervals of one suite agree here, so that 400 of them are worth 100.
    assert rates["bad"].high - rates["bad"].low == pytest.approx(np.ptp(wilson(0.5, 100)), rel=0.02)
    assert rates["claim"].mark == "too often"


def test_the_gate_is_adjusted_for_the_number_of_cells() -> None:
    def rate(yes: int) -> Rate:
        return Rate("report", "cell", "claims", "claim", True, 0, yes / 100, 0, 1, yes, 100, 100, "")

    alone, among = gate([rate(10)]), gate([rate(10), *[rate(3)] * 30])
    assert alone is not None
    assert among is not None
    assert not alone.passed
    assert among.passed
    assert among.p_holm == pytest.approx(31 * binomtest(10, 100, 0.05, alternative="greater").pvalue)
    assert gate([]) is None


def test_wilson_is_that_of_scipy() -> None:
    expected = binomtest(7, 40).proportion_ci(method="wilson")
    assert wilson(7 / 40, 40) == pytest.approx((expected.low, expected.high))


def test_the_worst_stands_first() -> None:
    good = Rate("statistics", "x", "covers", "mean", False, 0, 0.95, 0.93, 0.97, 950, 1000, 1000, "")
    bad = Rate("statistics", "y", "covers", "mean", False, 0, 0.7, 0.67, 0.73, 700, 1000, 1000, "below")
    text = page(Found([good, bad], []), "command", 60)
    assert text.index("| 70.0% |") < text.index("| 95.0% |")
    assert any(line.startswith("Lowest coverage") and ": 70.0%" in line for line in summary(Found([good, bad], [])))
