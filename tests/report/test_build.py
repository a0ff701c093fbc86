from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import asdict, replace
from datetime import date

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from align_bench.records import CellId, Comparison, Cost, Estimate, Generation, Level, MetricKey, Outcome
from align_bench.report.build import build_report
from align_bench.report.decision import decide
from align_bench.report.files import json_line, json_ready
from align_bench.report.rows import AttackedScores, ScoreRow
from align_bench.report.schema import Attacked, Metrics, Report
from align_bench.stats.equivalence import tost_methods
from align_bench.stats.paired import holm
from align_bench.stats.seeds import crossed
from tests.report.conftest import (
    BASE,
    DPO,
    HOSTILE,
    KTO,
    PPO,
    RM,
    SIMPO,
    Run,
    answer,
    header,
    judge,
    outcome,
    result_of,
    score,
)

UNDEFINED = Estimate(None)
REWARD = CellId("rm")
ACCURACY, JUDGED, GOLD = MetricKey("accuracy"), MetricKey("judge_reward"), MetricKey("gold_accuracy")

RATIO, LOGP = MetricKey("accuracy_logratio"), MetricKey("accuracy_logp_mean")


def compared(report: Report, a: CellId, b: CellId, metric: MetricKey, level: Level = "checkpoint") -> Comparison:
    return next(
        found for found in report.comparisons if (found.a, found.b, found.metric, found.level) == (a, b, metric, level)
    )


def metrics_of(outcome: Outcome, scores: list[ScoreRow]) -> Metrics:
    return build_report(header(), [outcome], scores, []).results[0].metrics


def words(row: ScoreRow, chosen: int, rejected: int) -> ScoreRow:
    return replace(row, chosen_words=chosen, rejected_words=rejected)


def log_ratios(run: Run, cell: CellId) -> list[tuple[float, float]]:
    own = [row for row in run.scores if row.cell == str(cell)]
    return [
        (row.chosen_logp - row.ref_chosen_logp, row.rejected_logp - row.ref_rejected_logp)
        for row in own
        if row.chosen_logp is not None
        and row.ref_chosen_logp is not None
        and row.rejected_logp is not None
        and row.ref_rejected_logp is not None
    ]


def judged(answers: list[Generation], cell: CellId, judge: str = "rm") -> list[float]:
    return [answer.scores[judge] for answer in answers if answer.cell == str(cell)]


def test_a_report_is_what_its_json_says(run: Run) -> None:
    report = run.report()
    text = report.model_dump_json()
    assert Report.model_validate_json(text) == report
    assert json.loads(text)["version"] == 1
    assert [result.cell for result in report.results] == [outcome.cell for outcome in run.outcomes]
    assert [result.name for result in report.results] == [str(outcome.cell) for outcome in run.outcomes]
    assert result_of(report, DPO).cost == Cost(754.0, 12_345, 3 * 2**30, flops=2.5e12, utilisation=0.125)


def test_lone_surrogates_are_escaped_and_their_cell_keeps_its_rows() -> None:
    cell = CellId('lone \ud800"\\\udfff')
    rows = [replace(score(cell, pair, 1.0, 0.0), cell=name) for pair, name in enumerate([str(cell)] * 2)]
    report = build_report(header(name="\udc00"), [outcome(cell, "reward")], rows, [])
    assert report.suite.name == "\\udc00"
    assert report.results[0].cell == CellId('lone \\ud800"\\\\udfff')
    assert report.results[0].name == str(report.results[0].cell)
    assert Report.model_validate_json(report.model_dump_json()) == report
    again = build_report(
        header(),
        [outcome(report.results[0].cell, "reward")],
        [replace(row, cell=report.results[0].name) for row in rows],
        [],
    )
    assert again.results[0].metrics.accuracy.n == report.results[0].metrics.accuracy.n == 2


def test_preference_metrics_by_hand() -> None:
    def row(
        pair: int, chosen: float, rejected: float, logps: tuple[float, float], words: int, gold: int | None
    ) -> ScoreRow:
        return replace(
            score(DPO, pair, chosen, rejected),
            chosen_logp=logps[0],
            rejected_logp=logps[1],
            ref_chosen_logp=-3.0,
            ref_rejected_logp=-9.0,
            chosen_words=words,
            gold_choice=gold,
        )

    rows = [
        row(0, 2.0, 1.0, (-2.0, -8.0), words=3, gold=1),
        row(1, 0.0, 3.0, (-6.0, -8.0), words=3, gold=2),
        row(2, 1.0, 1.0, (-4.0, -8.0), words=1, gold=2),
        row(3, 5.0, 1.0, (-1.0, -9.0), words=1, gold=None),
    ]
    found = metrics_of(outcome(DPO, "policy"), rows)
    assert found.accuracy.value == 0.625
    assert found.tie_rate.value == 0.25
    assert found.reward_mean.value == pytest.approx(14 / 8)
    assert found.reward_std.value == pytest.approx(statistics.stdev([2, 0, 1, 5, 1, 3, 1, 1]))
    assert found.margin.value == pytest.approx(0.5)
    # s̄ chosen −1, −3, −2, −0.5 against −2, −2, −2, −2.25
    assert found.accuracy_logp_mean.value == 0.625
    # ρ chosen 1, −3, −1, 2 against 1, 1, 1, 0
    assert found.accuracy_logratio.value == 0.375
    # right, right, tie, unknown
    assert found.accuracy_gold_choice.value == pytest.approx(2.5 / 3)
    assert found.accuracy_chosen_longer.value == 0.5
    assert found.accuracy_chosen_shorter.value == 0.75
    assert found.accuracy_chosen_longer.n == 2
    assert found.gold_accuracy.value is None


def test_pairs_of_one_length_are_neither_longer_nor_shorter() -> None:
    rows = [words(score(REWARD, pair, 1.0, 0.0), count, 2) for pair, count in enumerate([1, 2, 2, 3, 4, 5])]
    found = metrics_of(outcome(REWARD, "reward"), rows)
    assert found.accuracy_chosen_longer.n == 3
    assert found.accuracy_chosen_shorter.n == 1


def test_generation_metrics_by_hand() -> None:
    def own(prompt: int, sample: int, reward: float, gold: float, text: str, tokens: int) -> Generation:
        scores = {"rm": reward, "gold": gold}
        return replace(answer(DPO, prompt, sample=sample), scores=scores, text=text, tokens=tokens)

    base = [replace(answer(BASE, k), scores={"rm": reward, "gold": 1.0}) for k, reward in enumerate([0.0, 1.0, 0.4])]
    answers = [
        replace(own(0, 0, 3.0, 1.0, "one two", 3), finished=False),
        own(0, 1, -1.0, 0.0, "one two three four", 5),
        own(1, 0, 1.0, 0.0, "我爱", 7),
        own(1, 1, 1.0, 0.0, "", 1),
        own(2, 0, 0.0, 1.0, "42", 2),
        own(2, 1, 1.0, 1.0, "a", 2),
    ]
    report = build_report(header(), [outcome(BASE, "base"), outcome(DPO, "policy")], [], [*answers, *base])
    found, of_base = result_of(report, DPO).metrics, result_of(report, BASE).metrics
    assert found.judge_reward_mean.value == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.judge_reward_std.value == pytest.approx(statistics.stdev([3, -1, 1, 1, 0, 1]))
    # 3 > 0 > −1; 1 = 1 twice; 1 > 0.4 > 0
    assert found.win_rate_vs_base.value == pytest.approx(0.5)
    assert found.gold_accuracy.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert found.length_words.value == pytest.approx((3 + 1 + 1) / 3)
    assert found.length_tokens.value == pytest.approx((4 + 4 + 2) / 3)
    assert found.unfinished_share.value == pytest.approx(0.5 / 3)
    assert found.readability_grade.n == 2
    assert of_base.win_rate_vs_base == UNDEFINED
    assert of_base.gold_accuracy.value == 1.0
    # several samples per prompt: no McNemar
    assert compared(report, DPO, BASE, GOLD).test == "paired t"


def test_metrics_without_data_are_undefined(run: Run) -> None:
    report = run.report()
    rm, base = (result_of(report, cell).metrics for cell in (RM, BASE))
    for name in ("accuracy_logp_mean", "accuracy_logratio", "judge_reward_mean", "gold_accuracy", "length_words"):
        assert getattr(rm, name) == UNDEFINED
    assert base.accuracy_logratio == UNDEFINED
    assert base.accuracy_logp_mean.value is not None
    for cell in (KTO, PPO):
        metrics = result_of(report, cell).metrics
        assert {judge.judge: (judge.mean, judge.std) for judge in metrics.other_judges} == {
            "other": (UNDEFINED, UNDEFINED)
        }
        assert metrics.model_copy(update={"other_judges": ()}) == Metrics()
    assert result_of(report, PPO).reason == "its reward model failed"


def test_a_main_judge_that_failed_is_replaced_by_no_other(run: Run) -> None:
    panel = [judge(name) for name in ("failed", "rm", "gold")]
    report = replace(run, header=header(panel)).report()
    metrics = result_of(report, DPO).metrics
    assert metrics.judge_reward_mean.value is None
    (other,) = metrics.other_judges
    assert other.judge == "rm"
    assert other.mean.value is not None
    assert metrics.win_rate_vs_base.value is None
    assert [(found.a, found.b) for found in report.agreement] == [("rm", "gold")]


def test_the_first_judge_is_the_main_one(run: Run) -> None:
    report = run.report()
    metrics = result_of(report, DPO).metrics
    assert metrics.judge_reward_mean.value == pytest.approx(statistics.mean(judged(run.generations, DPO)))
    (other,) = metrics.other_judges
    assert other.judge == "other"
    assert other.mean.value == pytest.approx(statistics.mean(judged(run.generations, DPO, "other")))
    assert metrics.gold_accuracy.value == pytest.approx(statistics.mean(judged(run.generations, DPO, "gold")))
    assert {found.metric for found in report.comparisons} == {
        ACCURACY,
        RATIO,
        LOGP,
        MetricKey("accuracy_right_shorter"),
        MetricKey("length_correlation_given_label"),
        MetricKey("length_correlation_given_gold"),
        JUDGED,
        MetricKey("judge_reward", "other"),
        GOLD,
    }
    assert replace(run, header=header()).report().results == report.results  # of no panel, as the answers name them


def test_own_rewards_are_no_judges() -> None:
    """A reward model may have a judge's name."""
    base = [replace(answer(BASE, k, 0.0), proxies={"rm": 1.0, "poe": 2.0}) for k in range(5)]
    own = [replace(answer(PPO, k, 1.0), proxies={"rm": float(k)}) for k in range(5)]
    report = build_report(header(), [outcome(BASE, "base"), outcome(PPO, "policy")], [], [*base, *own])
    metrics = result_of(report, PPO).metrics
    assert metrics.judge_reward_mean.value == 1.0
    assert metrics.other_judges == ()
    assert [(proxy.reward, proxy.mean.value) for proxy in metrics.proxies] == [("rm", 2.0)]
    assert [proxy.reward for proxy in result_of(report, BASE).metrics.proxies] == ["rm", "poe"]
    assert compared(report, PPO, BASE, MetricKey("proxy_reward", "rm")).difference == 1.0
    assert {found.metric for found in report.comparisons} == {JUDGED, MetricKey("proxy_reward", "rm")}


def test_comparisons_against_scipy(run: Run) -> None:
    report = run.report()
    dpo, base = judged(run.generations, DPO), judged(run.generations, BASE)
    test = ttest_rel(dpo, base)
    found = compared(report, DPO, BASE, JUDGED)
    assert found.p == pytest.approx(test.pvalue)
    assert found.low == pytest.approx(test.confidence_interval().low)
    gaps = [a - b for a, b in zip(dpo, base, strict=True)]
    assert found.effect == pytest.approx(statistics.mean(gaps) / statistics.stdev(gaps))

    right = {cell: [float(chosen > rejected) for chosen, rejected in log_ratios(run, cell)] for cell in (DPO, SIMPO)}
    only = [sum(a > b for a, b in zip(right[x], right[y], strict=True)) for x, y in ((DPO, SIMPO), (SIMPO, DPO))]
    found = compared(report, DPO, SIMPO, RATIO)
    exact, t = binomtest(only[0], sum(only)).pvalue, ttest_rel(right[DPO], right[SIMPO]).pvalue
    assert found.p == pytest.approx(max(exact, t))
    assert found.difference == pytest.approx((only[0] - only[1]) / 60)
    assert found.test == "exact McNemar, paired t"
    assert found.effect is None


def test_only_comparable_cells_are_compared_and_the_base_stands_last(run: Run) -> None:
    report = run.report()
    kinds = {found.cell: found.kind for found in report.results}
    for found in report.comparisons:
        assert (kinds[found.a] == "reward") == (kinds[found.b] == "reward")
        assert found.a != BASE
        assert not {found.a, found.b} & {KTO, PPO}
    # 1 pair of reward models on accuracy and three biases; 6 pairs of policies and base on accuracy by their mean
    # log-probability, two judges, gold; 3 pairs of policies on accuracy by the log-ratio
    assert len(report.comparisons) == 4 + 6 * 4 + 3


def test_the_tests_of_one_metric_are_one_family(run: Run) -> None:
    report = run.report()
    kinds = {found.cell: found.kind == "reward" for found in report.results}
    families: dict[tuple[MetricKey, bool], list[Comparison]] = {}
    for found in report.comparisons:
        families.setdefault((found.metric, kinds[found.a]), []).append(found)
    assert len(families) == 4 + 5
    for own in families.values():
        assert [found.p_holm for found in own] == holm([found.p for found in own])
        assert [found.p_tost_holm for found in own] == holm([found.p_tost for found in own])
        assert {found.family for found in own} == {len(own)}
        assert all(found.decision == decide(found) for found in own)
    tested = [found for found in report.comparisons if found.p is not None]
    assert len(tested) == len(report.comparisons) - 2  # a bootstrap is no test
    assert report.detectable.prompts is not None
    assert report.detectable.prompts.tests == 6


def seeded(counts: dict[str, int]) -> tuple[list[Outcome], list[Generation]]:
    rng = random.Random(3)
    cells = [CellId(method, seed=seed) for method, count in counts.items() for seed in range(count)]
    outcomes = [outcome(BASE, "base"), *(outcome(cell, "policy") for cell in cells)]
    generations = [answer(cell, prompt, rng.gauss(0, 1)) for cell in [BASE, *cells] for prompt in range(10)]
    return outcomes, generations


def test_three_seeds_allow_a_test_between_methods() -> None:
    outcomes, generations = seeded({"dpo": 3, "simpo": 3, "kto": 2})
    report = build_report(header(), outcomes, [], generations)
    dpo, simpo = (
        np.array([judged(generations, replace(method, seed=seed)) for seed in range(3)]) for method in (DPO, SIMPO)
    )
    base = np.array([judged(generations, BASE)])
    found, expected = compared(report, DPO, SIMPO, JUDGED, "method"), crossed(dpo, simpo)
    tested = expected.tested()
    assert (found.difference, found.low, found.high, found.p, found.df) == pytest.approx(
        (dpo.mean() - simpo.mean(), tested.low, tested.high, tested.p, tested.df)
    )
    assert found.n == 3
    assert found.margin is not None
    assert found.p_tost == pytest.approx(tost_methods(expected, found.margin))
    assert found.bootstrap_low is found.bootstrap_high is None
    against = compared(report, DPO, BASE, JUDGED, "method")
    assert against.p == pytest.approx(crossed(dpo, base, b_trained=False).tested().p)
    assert found.test == against.test == "crossed t (seeds × prompts)"
    assert not any(KTO in (found.a, found.b) for found in report.comparisons if found.level == "method")
    assert (
        "Two seeds for kto: the tests compare these checkpoints; a claim about methods needs at least 3 seeds."
        in report.notes
    )


def test_a_method_with_a_number_sign_in_its_name_is_one_method() -> None:
    """A cell's text is never taken apart."""
    names = ["dpo#1", "dpo#2", "dpo#3"]
    outcomes = [outcome(BASE, "base"), *(outcome(CellId(name), "policy") for name in names)]
    rng = random.Random(0)
    generations = [answer(one.cell, prompt, rng.gauss(0, 1)) for one in outcomes for prompt in range(10)]
    report = build_report(header(), outcomes, [], generations)
    assert {found.level for found in report.comparisons} == {"checkpoint"}
    assert {row.method.name for row in report.rankings[0].methods} == {"base", *names}


def test_one_seed_allows_no_claim_about_methods(run: Run) -> None:
    report = run.report()
    assert not [found for found in report.comparisons if found.level == "method"]
    assert any(note.startswith("One seed for every method:") for note in report.notes)


def test_the_seed_of_a_judge_is_no_method_without_seeds() -> None:
    cells = [CellId("dpo", (), seed) for seed in range(3)]
    outcomes = [outcome(CellId("judge"), "reward"), *(outcome(cell, "policy") for cell in cells)]
    report = build_report(header(), outcomes, [], [answer(cell, prompt) for cell in cells for prompt in range(3)])
    assert not any("claim about methods needs" in note for note in report.notes)


def test_notes_name_the_policies_without_a_gain_in_gold() -> None:
    good, flat = CellId("good"), CellId("flat")
    marks = {BASE: (0,), good: (0, 1, 2), flat: (1,)}
    rows = [
        replace(answer(cell, k), scores={"gold": float(k % 4 in own)}) for cell, own in marks.items() for k in range(40)
    ]
    outcomes = [outcome(BASE, "base"), outcome(good, "policy"), outcome(flat, "policy")]
    report = build_report(header(), outcomes, [], rows)
    (note,) = [note for note in report.notes if "gold accuracy" in note]
    assert "for 1 of 2 checkpoints: flat +0.000 [" in note
    found = compared(report, good, BASE, GOLD)
    assert found.test == "exact McNemar, paired t"
    assert found.low is not None
    assert found.low > 0
    assert any(note.startswith("Minimum detectable effect with 40 prompts at 80% power") for note in report.notes)


def test_diverged_numbers_are_left_out_out_loud() -> None:
    rows = [
        score(REWARD, 0, math.nan, 1.0),
        score(REWARD, 1, 1.0, None),
        score(REWARD, 2, 1.0, 0.0),
        score(REWARD, 3, 2.0, 2.0),
    ]
    answers = [answer(DPO, 0, math.inf), answer(DPO, 1, 1.0)]
    settings = header(settings={"loss": math.nan})
    report = build_report(settings, [outcome(REWARD, "reward"), outcome(DPO, "policy")], rows, answers)
    assert report.suite.settings == {"loss": None}
    json.dumps(report.model_dump(), allow_nan=False)
    assert result_of(report, REWARD).metrics.accuracy.value == 0.75
    assert result_of(report, REWARD).metrics.accuracy.n == 2
    assert result_of(report, DPO).metrics.judge_reward_mean == Estimate(1.0, n=1)
    assert any("rm has no finite reward for 2 of 4 pairs" in note for note in report.notes)
    assert any("dpo has no finite judge score for 1 of 2 generations" in note for note in report.notes)
    assert any("rm gives both answers the same score on 50.0% of its pairs" in note for note in report.notes)


def test_accuracy_under_attack_is_of_the_pairs_that_were_attacked() -> None:
    rows = [
        replace(
            score(REWARD, pair, 1.0, 0.0),
            attacked=(AttackedScores(0.1, 1.0, 0.0), AttackedScores(0.5, float(pair), 1.0)) if pair < 3 else (),
        )
        for pair in range(4)
    ]
    found = metrics_of(outcome(REWARD, "reward"), rows).attacked
    assert [(one.epsilon, one.accuracy.value, one.accuracy.n) for one in found] == [(0.1, 1.0, 3), (0.5, 0.5, 3)]
    assert all(isinstance(one, Attacked) for one in found)


def test_baselines_are_over_distinct_pairs() -> None:
    a, b = CellId("a"), CellId("b")
    rows = [
        replace(words(score(cell, pair, 1.0, 0.0), count, 3), gold_choice=gold)
        for cell in (a, b)
        for pair, count, gold in ((0, 5, 1), (1, 3, 2), (2, 9, None), (3, 1, 1))
    ]
    found = build_report(header(), [outcome(a, "reward"), outcome(b, "reward")], rows, []).baselines
    assert (found.longer_wins.value, found.longer_wins.n) == (0.625, 4)
    assert found.labels_agree_with_gold.value == pytest.approx(2 / 3)


def test_the_order_of_rows_does_not_matter(run: Run) -> None:
    shuffled = random.Random(1).sample(run.scores, len(run.scores))
    moved = run.generations[::-1]
    assert replace(run, scores=shuffled).report() == run.report()
    assert replace(run, generations=moved).report().results == run.report().results


def test_rows_that_fit_no_outcome_or_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="in no outcome: dpo"):
        build_report(header(), [], [score(DPO, 0, 1.0, 0.0)], [])
    with pytest.raises(ValueError, match="more than one score row"):
        build_report(header(), [outcome(DPO, "policy")], [score(DPO, 0, 1.0, 0.0)] * 2, [])
    with pytest.raises(ValueError, match="more than one generation"):
        build_report(header(), [outcome(DPO, "policy")], [], [answer(DPO, 0)] * 2)
    with pytest.raises(ValueError, match="more than one outcome"):  # rows could not say whose they are
        build_report(header(), [outcome(CellId("dpo#1"), "policy"), outcome(CellId("dpo", seed=1), "policy")], [], [])


def test_an_empty_run_is_a_report() -> None:
    report = build_report(header(), [], [], [])
    assert [*report.results, *report.comparisons, *report.notes] == []
    assert report.baselines.longer_wins == UNDEFINED


def test_hostile_names_stay_as_they_are(run: Run) -> None:
    assert result_of(run.report(), CellId(HOSTILE)).name == HOSTILE


def test_json_ready_leaves_only_json() -> None:
    mixed = {
        1: (np.float64("nan"), np.int64(3), np.bool_(True)),
        "day": date(2026, 1, 2),
        "set": {"b", "a"},
        "x": [2.5],
    }
    assert json_ready(mixed) == {"1": [None, 3, True], "day": "2026-01-02", "set": ["a", "b"], "x": [2.5]}


@pytest.mark.parametrize("text", ["plain", "新", "a\nb\u2028c", "half \ud83d of a pair"])
@pytest.mark.parametrize("score", [0.1 + 0.2, float("nan"), -float("inf"), np.float64(1e-7), np.float32(0.1), None])
def test_a_line_of_json_says_what_json_ready_does(text: str, score: float | None) -> None:
    known = ("dpo#0", "dpo", 0, 3, 0, "asked", text, 4, True)
    answer = Generation(*known, scores={"judge": score}, kl=score)  # type: ignore[dict-item]
    line = json_line(answer)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == json_ready(answer)


def test_json_ready_takes_a_record_as_its_fields() -> None:
    done = replace(outcome(DPO, "policy"), cost=Cost(seconds=1.5, tokens=2, peak_bytes=3))
    assert json_ready([done]) == json_ready([asdict(done)])
