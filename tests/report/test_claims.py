"""Claims as records: who is held against whom, in which family, and what one seed says of its method."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest
from pydantic import JsonValue

from align_bench.records import CellId, Comparison, Level, MetricKey
from align_bench.report.build import build_report
from align_bench.report.claims import Claim
from align_bench.report.comparisons import Entrants
from align_bench.report.decision import decide, decision
from align_bench.report.schema import Report
from align_bench.report.tables import report_sections
from align_bench.stats.paired import holm
from tests.report.conftest import BASE, DPO, KTO, answer, header, outcome, score

METHODS = tuple(map(CellId, ("a", "b", "c", "d", "e")))
JUDGED, ACCURACY = MetricKey("judge_reward"), MetricKey("accuracy")


def suite(
    levels: Mapping[CellId, float],
    prompts: int = 30,
    noise: float = 1.0,
    seed: int = 0,
    settings: dict[str, JsonValue] | None = None,
) -> Report:
    """Policies with judged answers, each cell at a level of its own."""
    rng = random.Random(seed)
    shared = [rng.gauss(0, 1) for _ in range(prompts)]
    generations = [
        answer(cell, prompt, level + own + rng.gauss(0, noise))
        for cell, level in levels.items()
        for prompt, own in enumerate(shared)
    ]
    outcomes = [outcome(cell, "base" if cell == BASE else "policy") for cell in levels]
    return build_report(header(settings=settings), outcomes, [], generations)


@cache
def full() -> Report:
    """Five policies and two reward models of three seeds, the base and the judge's own cell."""
    rng = random.Random(5)
    policies = [replace(method, seed=seed) for seed in range(3) for method in METHODS]
    rewards = [CellId(name, seed=seed) for name in ("rm", "poe") for seed in range(3)]
    judge = CellId("judge")
    outcomes = [
        outcome(BASE, "base"),
        *(outcome(cell, "policy") for cell in policies),
        *(outcome(cell, "reward") for cell in (*rewards, judge)),
    ]
    generations = [answer(cell, prompt, rng.gauss(0, 1)) for cell in (BASE, *policies) for prompt in range(12)]
    scores = [score(cell, pair, rng.gauss(0.5, 1), rng.gauss(0, 1)) for cell in (*rewards, judge) for pair in range(12)]
    scores += [
        replace(row, chosen_logp=rng.gauss(-9, 1), rejected_logp=rng.gauss(-18, 2))
        for row in (score(cell, pair, None, None) for cell in (BASE, *policies) for pair in range(12))
    ]
    return build_report(header(), outcomes, scores, generations)


def of(report: Report, metric: MetricKey, level: Level, names: Sequence[str]) -> list[Comparison]:
    return [one for one in report.comparisons if (one.metric, one.level) == (metric, level) and one.a.name in names]


def test_a_suite_of_five_methods_and_three_seeds_has_exactly_the_tests_it_should() -> None:
    """It had C(16, 2) = 120 per measure, of which 15 were between seeds of one method, and 6 more with the judge."""
    report, names = full(), [method.name for method in METHODS]
    for metric in (JUDGED, MetricKey("accuracy_logp_mean")):
        found = of(report, metric, "checkpoint", names)
        against_base = [one for one in found if one.b == BASE]
        between = [one for one in found if one.b != BASE]
        assert {one.a for one in against_base} == {
            replace(method, seed=seed) for method in METHODS for seed in range(3)
        }
        assert Counter(one.a.seed for one in between) == {0: 10, 1: 10, 2: 10}
        assert all(one.a.seed == one.b.seed and one.a.method != one.b.method for one in between)
        assert len(found) == len({frozenset((one.a, one.b)) for one in found}) == 45
        assert {one.family for one in found if one.p is not None} == {sum(one.p is not None for one in found)}
        assert [one.p_holm for one in found] == holm([one.p for one in found])
    rewards = of(report, ACCURACY, "checkpoint", ["rm", "poe"])
    assert [(one.a.name, one.b.name, one.a.seed, one.b.seed) for one in rewards] == [
        ("rm", "poe", s, s) for s in range(3)
    ]
    assert {one.family for one in rewards} == {3}
    methods = [one for one in report.comparisons if one.level == "method"]
    assert len(methods) == 15 + 15 + 1
    assert {one.family for one in methods} == {31}
    assert [one.p_holm for one in methods] == holm([one.p for one in methods])
    assert not any("judge" in (one.a.name, one.b.name) for one in report.comparisons)
    assert len(report.comparisons) == 45 + 45 + 31 + 3 * 2  # length correlations of reward models by label; no gold
    assert report.detectable.prompts is not None
    assert report.detectable.prompts.tests == 45


def test_methods_without_a_common_seed_are_paired_in_the_order_of_their_seeds() -> None:
    cells = [CellId("a", seed=seed) for seed in (5, 3, 4)] + [CellId("b", seed=seed) for seed in (9, 7)] + [BASE]
    who = Entrants({cell: cell.seed or 0 for cell in cells}, frozenset({BASE}))
    between = [(a.seed, b.seed) for a, b in who.pairs(cells) if b != BASE]
    assert sorted(between) == [(3, 7), (4, 9)]
    assert sum(b == BASE for _, b in who.pairs(cells)) == 5
    grid = [CellId("rm", (("beta", beta),), seed=0) for beta in (0.1, 0.2)]
    assert Entrants(dict.fromkeys(grid, 0), frozenset()).pairs(grid) == [(grid[0], grid[1])]


def test_claims_of_seeds_are_of_methods_and_others_of_checkpoints() -> None:
    seeded = {CellId("dpo", seed=seed): 3.0 for seed in range(3)}
    report = suite({**seeded, CellId("kto", seed=1): 3.0, BASE: 0.0}, noise=0.3)
    found = {(one.level, one.a, one.b): one for one in report.claims}
    assert set(found) == {
        ("method", DPO, BASE),
        ("checkpoint", CellId("kto", seed=1), BASE),
        next(key for key in found if "kto" in (key[1].name, key[2].name) and key[2] != BASE),
    }
    claim = found["method", DPO, BASE]
    comparison = next(one for one in report.comparisons if one.level == "method")
    assert (claim.decision, claim.kind, claim.metric, claim.unit) == ("higher", "policy", JUDGED, "reward")
    assert (claim.seeds, claim.n, claim.family, claim.prompts) == ((0, 1, 2), 3, 1, 30)
    assert (claim.difference, claim.low, claim.p_holm, claim.margin) == (
        comparison.difference,
        comparison.low,
        comparison.p_holm,
        comparison.margin,
    )
    of_one = found["checkpoint", CellId("kto", seed=1), BASE]
    assert (of_one.seeds, of_one.n, of_one.family) == ((1,), 30, 5)
    assert any(line.startswith("Higher on judge_reward: dpo over base by") for line in report.verdict)
    (line,) = [line for line in report.verdict if line.startswith("Higher on judge_reward, these checkpoints (")]
    assert "kto#1 over base" in line
    assert "dpo#0 over base" not in line


def test_the_higher_one_stands_first_in_a_claim() -> None:
    report = suite({DPO: -3.0, KTO: 0.0, BASE: 0.0}, noise=0.2)
    (comparison,) = [one for one in report.comparisons if (one.a, one.b) == (DPO, BASE)]
    assert comparison.decision == "lower"
    (claim,) = [one for one in report.claims if {one.a, one.b} == {DPO, BASE}]
    assert (claim.a, claim.b, claim.decision) == (BASE, DPO, "higher")
    assert (claim.difference, claim.low, claim.high) == (
        -(comparison.difference or 0),
        -(comparison.high or 0),
        -(comparison.low or 0),
    )
    assert {one.decision for one in report.claims} <= {"higher", "equivalent", "none", "undefined"}


def test_one_seed_never_makes_a_method_higher() -> None:
    report = suite({DPO: 3.0, KTO: 1.0, BASE: 0.0}, noise=0.2)
    assert {one.level for one in report.claims} == {"checkpoint"}
    assert {one.decision for one in report.claims} == {"higher"}
    assert all(one.seeds == (0,) and one.family == 3 for one in report.claims)
    (line,) = [line for line in report.verdict if line.startswith("Higher")]
    assert line.startswith("Higher on judge_reward, these checkpoints (seed 0): ")
    verdicts = {row[-1] for section in report_sections(report) for row in section.texts() if "higher" in row[-1]}
    assert verdicts
    assert all(one.endswith(" checkpoint higher") for one in verdicts)


def test_every_decision_follows_from_the_numbers_beside_it_and_stands_in_the_json() -> None:
    for report in (full(), suite({DPO: 0.6, KTO: 0.1, BASE: 0.0})):
        again = Report.model_validate_json(report.model_dump_json())
        for one in again.comparisons:
            assert one.decision == decide(one)
            if one.decision in ("higher", "lower"):
                assert one.low is not None
                assert one.high is not None
                assert not one.low <= 0 <= one.high
        assert again.claims == report.claims
    old = replace(report.comparisons[0], decision=None)
    assert decision(old) == report.comparisons[0].decision


@pytest.mark.parametrize("count", [1, 3])
def test_ranks_do_not_contradict_the_verdict(count: int) -> None:
    """Percentiles of resampled ranks gave 1 [1, 1] to a method whose lead was not shown."""
    for seed in range(6):
        cells = {replace(method, seed=s): 0.35 * k for k, method in enumerate(METHODS) for s in range(count)}
        report = suite({**cells, BASE: 0.0}, seed=seed, noise=0.8)
        (ranking,) = report.rankings
        assert ranking.level == ("checkpoint" if count == 1 else "method")
        shown = {(one.a.method, one.b.method) for one in report.claims if one.decision == "higher"}
        for row in ranking.methods:
            assert row.low == 1 + sum(low == row.method for _, low in shown)
            assert row.high == 6 - sum(high == row.method for high, _ in shown)
            assert row.low <= row.rank <= row.high
        assert shown


def test_two_seeds_have_no_bounds_of_ranks() -> None:
    report = suite({**{CellId(name, seed=s): 1.0 for name in ("dpo", "kto") for s in (0, 1)}, BASE: 0.0})
    (ranking,) = report.rankings
    assert {(row.low, row.high) for row in ranking.methods} == {(None, None)}
    assert ranking.level == "checkpoint"
    (table,) = [section for section in report_sections(report) if section.title == "Ranks of policies"]
    assert all("[" not in row[1] for row in table.texts())
    assert any("rank 1 of 3)" in line or "rank 1.5 of 3)" in line for line in report.verdict)
    (line,) = [line for line in report.verdict if line.startswith("Higher on")]
    assert line.startswith("Higher on judge_reward, these checkpoints (seeds 0, 1): ")


def claim_of(report: Report, a: CellId, b: CellId) -> Claim:
    return next(one for one in report.claims if (one.a, one.b) == (a, b))


def test_a_declared_seed_noise_says_how_much_of_a_difference_is_method() -> None:
    """A difference that one seed shows, and that another seed may take away."""
    levels = {DPO: 0.5, BASE: 0.0}
    settings: dict[str, JsonValue] = {"report": {"seed_noise": 0.3}}
    report, blind = suite(levels, 100, settings=settings), suite(levels, 100)
    claim = claim_of(report, DPO, BASE)
    assert claim.decision == "higher"
    assert claim.seed_noise == pytest.approx(0.3)
    assert claim.seed_noise_declared is True
    assert claim.seed_share == pytest.approx(0.3**2 / (0.3**2 + 1 / 100))
    assert (claim.method_low or 0) < 0 < (claim.low or 0) < (claim.high or 0) < (claim.method_high or 0)
    assert claim.between_methods is False
    (line,) = [line for line in report.verdict if line.startswith("Higher on")]
    assert "90% of its variance from seeds: not shown between methods)" in line
    assert any("with a seed noise (declared) of 30%" in line for line in report.verdict)
    assert not any("another seed would change is unknown" in line for line in report.verdict)
    assert claim_of(blind, DPO, BASE).between_methods is None
    assert any("another seed would change is unknown" in line for line in blind.verdict)
    assert claim_of(blind, DPO, BASE).low == claim.low  # the checkpoint's own interval is what it was
    small = claim_of(suite(levels, 100, settings={"report": {"seed_noise": 0.01}}), DPO, BASE)
    assert small.between_methods is True


def test_own_seeds_come_before_a_declared_noise() -> None:
    levels = {CellId("dpo", seed=seed): level for seed, level in enumerate((0.0, 1.0, 2.0))}
    known = suite({**levels, CellId("kto", seed=0): 4.0, BASE: 0.0}, 60, settings={"report": {"seed_noise": 0.01}})
    claim = claim_of(known, CellId("kto", seed=0), BASE)
    assert claim.seed_noise_declared is False
    assert (claim.seed_noise or 0) > 0.3  # seeds 0, 1 and 2 apart: a standard deviation of 1
    assert (claim.method_high or 0) - (claim.method_low or 0) > 3 * ((claim.high or 0) - (claim.low or 0))
    assert any("(of this suite's own seeds)" in line for line in known.verdict)
    assert all(one.method_low is None for one in known.claims if one.level == "method")
    pair = {(one.a, one.b): one for one in known.comparisons if one.level == "checkpoint"}
    assert pair[CellId("dpo", seed=0), BASE].method_low is None  # its method has a test of its own


def test_two_methods_of_which_one_is_the_base_have_one_noise() -> None:
    report = suite({DPO: 0.5, KTO: 0.0, BASE: 0.0}, 100, settings={"report": {"seed_noise": 0.2}})
    found = {frozenset((one.a, one.b)): one for one in report.claims}
    between, against = found[frozenset((DPO, KTO))], found[frozenset((DPO, BASE))]
    assert between.seed_share == pytest.approx(2 * 0.04 / (2 * 0.04 + 0.01))
    assert against.seed_share == pytest.approx(0.04 / (0.04 + 0.01))


def test_win_rates_of_methods_have_the_interval_of_seeds_and_prompts() -> None:
    cells = {CellId(name, seed=seed): level for name, level in (("dpo", 9.0), ("kto", 0.3)) for seed in range(3)}
    report = suite({**cells, BASE: 0.0}, noise=0.5)
    rates = {(one.a, one.b): one.rate for one in report.policies.win_rates if one.level == "method"}
    assert rates[DPO, KTO].value == 1.0
    assert rates[DPO, KTO].low is None  # nothing varies
    found = rates[KTO, BASE]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.value < found.high <= 1


def test_what_one_seed_says_of_methods_allows_for_its_family() -> None:
    """Between methods the interval alone decides, so it is wider the more checkpoints are compared on the measure."""
    settings: dict[str, JsonValue] = {"report": {"seed_noise": 0.1}}
    alone = claim_of(suite({DPO: 0.5, BASE: 0.0}, 100, settings=settings), DPO, BASE)
    many = {DPO: 0.5, **{CellId(f"other{place}"): 0.0 for place in range(4)}, BASE: 0.0}
    among = claim_of(suite(many, 100, settings=settings), DPO, BASE)
    assert (alone.family, among.family) == (1, 15)
    narrow, wide = ((one.method_high or 0) - (one.method_low or 0) for one in (alone, among))
    assert wide > 1.4 * narrow
