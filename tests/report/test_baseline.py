"""Judges and reward models against preferring the longer answer, and what can be known of drawn labels."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest

from align_bench.data.planted import planted
from align_bench.records import CellId, PairTexts
from align_bench.report.baseline import against_longer, longer_wins_verdict
from align_bench.report.build import build_report
from align_bench.report.cells import gather
from align_bench.report.render.markdown import render
from align_bench.report.rows import AuditRow, ScoreRow, Side
from align_bench.report.schema import AgainstLonger
from align_bench.report.tables.baseline import against_longer as table
from align_bench.report.tables.baseline import knowable
from align_bench.report.tables.results import reward_models
from tests.report.conftest import RM, header, outcome, score

SIDES: tuple[Side, ...] = ("chosen", "rejected")
Rewards = list[tuple[float, float]]
Words = list[tuple[int, int]]


def scored(cell: CellId, prompts: list[int], rewards: Rewards, words: Words) -> list[ScoreRow]:
    return [
        replace(
            score(cell, pair, chosen, rejected),
            prompt_id=prompt,
            chosen_words=chosen_words,
            rejected_words=rejected_words,
        )
        for pair, (prompt, (chosen, rejected), (chosen_words, rejected_words)) in enumerate(
            zip(prompts, rewards, words, strict=True)
        )
    ]


def audits(scorer: str, rows: list[ScoreRow]) -> list[AuditRow]:
    return [
        AuditRow(scorer, row.pair, row.prompt_id or 0, side, getattr(row, side).reward, getattr(row, side).words)
        for row, side in product(rows, SIDES)
    ]


def drawn(count: int, each: int, skill: float, seed: int = 0) -> tuple[list[int], Rewards, Words]:
    """Prompts of `each` pairs; the chosen answer's reward is higher by `skill`, and it is the longer one in 6 of 10."""
    rng = random.Random(seed)
    prompts = [pair // each for pair in range(count)]
    rewards = [(rng.gauss(skill, 1), rng.gauss(0, 1)) for _ in range(count)]
    words = [(9, 5) if rng.random() < 0.6 else (5, 9) for _ in range(count)]
    return prompts, rewards, words


def test_one_pair_a_prompt_is_mcnemars() -> None:
    prompts, rewards, words = drawn(300, 1, 1.0)
    words[:5] = [(4, 4)] * 5  # a tie of length counts one half
    (found,) = against_longer(gather([outcome(RM, "reward")], scored(RM, prompts, rewards, words), []), [])
    own = [float(a > b) for a, b in rewards]
    longer = [(a > b) + (a == b) / 2 for a, b in words]
    better, worse = (sum(sign * (a - b) > 0 for a, b in zip(own, longer, strict=True)) for sign in (1, -1))
    assert found.scorer == str(RM)
    assert (found.test, found.n, found.prompts) == ("exact McNemar, paired t", 300, 300)
    assert found.accuracy.value == pytest.approx(np.mean(own))
    assert found.longer_wins.value == pytest.approx(np.mean(longer))
    assert found.difference == pytest.approx(np.mean(own) - np.mean(longer))
    assert found.p == found.p_holm == pytest.approx(binomtest(better, better + worse).pvalue)
    assert found.decision == "above"


def test_pairs_of_one_prompt_are_a_cluster() -> None:
    """Every prompt's four pairs are copies of one another: four times the rows say no more than the prompts do."""
    prompts, rewards, words = drawn(60, 1, 1.2, seed=1)
    fourfold = ([prompt for prompt in prompts for _ in range(4)], [r for r in rewards for _ in range(4)])
    rows = scored(RM, *fourfold, [w for w in words for _ in range(4)])
    (found,) = against_longer(gather([outcome(RM, "reward")], rows, []), [])
    differences = [
        float(r[0] > r[1]) - float(w[0] > w[1]) for r, w in zip(rewards, words, strict=True) for _ in range(4)
    ]
    fit = sm.OLS(differences, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": fourfold[0]}, use_t=True)
    assert (found.test, found.n, found.prompts) == ("clustered t", 240, 60)
    assert found.p == pytest.approx(fit.pvalues[0])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert found.low is not None
    assert found.high is not None
    alone = np.std(differences, ddof=1) / math.sqrt(240)
    assert (found.high - found.low) / 2 > 3 * alone


def test_holms_family_is_the_scorers_of_the_report() -> None:
    prompts, rewards, words = drawn(200, 1, 0.65)
    names = [CellId(name) for name in ("a", "b", "c")]
    rows = [row for cell in names for row in scored(cell, prompts, rewards, words)]
    found = against_longer(gather([outcome(cell, "reward") for cell in names], rows, []), [])
    assert [one.scorer for one in found] == ["a", "b", "c"]
    assert all(one.p is not None and one.p_holm == pytest.approx(min(1.0, 3 * one.p)) for one in found)
    single = against_longer(gather([outcome(names[0], "reward")], rows[:200], []), [])
    assert single[0].p == found[0].p
    assert [single[0].decision, found[0].decision] == ["above", "none"], "what one test shows, three may not"


def test_a_judge_that_counts_words_is_no_better_than_that() -> None:
    prompts, _, words = drawn(100, 1, 0.0)
    rows = scored(RM, prompts, [(float(a), float(b)) for a, b in words], words)
    (found,) = against_longer(gather([outcome(RM, "reward")], rows, []), [])
    assert (found.difference, found.p, found.decision) == (0.0, None, "undefined")
    assert "not tested, since there is no pair that they rank differently: rm" in longer_wins_verdict([found])[0]


def test_audited_scorers_come_from_their_audit() -> None:
    """A loaded judge or an ensemble has audit rows; members of an ensemble are no scorers of their own."""
    prompts, rewards, words = drawn(50, 1, 1.0)
    judge, member, other = CellId("judge2"), CellId("judge", seed=0), CellId("rm")
    outcomes = [outcome(judge, "reward", "judge"), outcome(member, "reward", "judge"), outcome(other, "reward")]
    outcomes.append(outcome(CellId("dpo"), "policy"))
    rows = [row for cell in (member, other, CellId("dpo")) for row in scored(cell, prompts, rewards, words)]
    own = scored(judge, prompts, [(b, a) for a, b in rewards], words)
    every = [*audits("judge2", own), *audits("judge", rows[:50])]
    found = {one.scorer: one for one in against_longer(gather(outcomes, rows, []), every)}
    assert found.keys() == {"judge2", "judge", "rm"}
    assert found["judge2"].decision == "below"
    assert found["judge"].difference == found["rm"].difference


def test_a_report_without_policies_says_it_in_its_verdict() -> None:
    prompts, rewards, words = drawn(300, 1, 1.5)
    rows = scored(RM, prompts, rewards, words)
    report = build_report(header(), [outcome(RM, "reward")], rows, [], audits(str(RM), rows))
    (found,) = report.against_longer
    assert any(
        line.startswith("Preferring the longer answer is right on 0.")
        and "(a claim about this checkpoint)" in line
        and f"above it: {RM} by +" in line
        for line in report.verdict
    )
    (row,) = table(report).texts()
    assert (row[0], row[-1]) == (str(RM), "above")
    assert "Against preferring the longer answer" in render(report)
    assert AgainstLonger.model_validate_json(found.model_dump_json()) == found
    assert not longer_wins_verdict(build_report(header(), [], [], []).against_longer)


def test_of_many_scorers_the_verdict_names_some_and_counts_the_rest() -> None:
    prompts, rewards, words = drawn(100, 1, 2.0)
    names = [CellId(f"rm{place}") for place in range(9)]
    rows = [row for cell in names for row in scored(cell, prompts, rewards, words)]
    (line,) = longer_wins_verdict(against_longer(gather([outcome(cell, "reward") for cell in names], rows, []), []))
    assert "rm5 by" in line
    assert "rm6" not in line
    assert line.endswith(" and 3 more.")
    assert "(claims about these checkpoints)" in line


def test_unknown_scores_and_lengths_are_left_out() -> None:
    prompts, rewards, words = drawn(10, 1, 1.0)
    rows = scored(RM, prompts, rewards, words)
    rows[0], rows[1] = replace(rows[0], chosen_reward=None), replace(rows[1], rejected_words=None)
    (found,) = against_longer(gather([outcome(RM, "reward")], rows, []), [])
    assert found.n == 8
    assert not against_longer(gather([outcome(RM, "reward")], [replace(r, chosen_reward=None) for r in rows], []), [])


def test_the_ceiling_of_drawn_labels_stands_beside_accuracies() -> None:
    pairs = planted("val")
    texts = [
        PairTexts(number, pair.prompt, pair.chosen, pair.rejected, pair.label_probability)
        for number, pair in enumerate(pairs)
    ]
    rows = [score(RM, number, 1.0, 0.0) for number in range(len(pairs))]
    report = build_report(header(), [outcome(RM, "reward")], rows, [], pairs=texts)
    ceiling = report.baselines.labels_knowable
    assert ceiling.value == pytest.approx(sum(max(p, 1 - p) for p in (pair.label_probability for pair in pairs)) / 1000)
    assert f"{ceiling.value:.3f}" == "0.874"
    assert ceiling.n == 1000
    (said,) = knowable(report)
    assert said == "Labels are sampled: even their true probabilities are right on 0.874 of them, on average."
    assert said in reward_models(report).captions


def test_data_that_do_not_say_how_labels_were_drawn_have_no_ceiling() -> None:
    report = build_report(
        header(), [outcome(RM, "reward")], [score(RM, 0, 1.0, 0.0)], [], pairs=[PairTexts(0, "?", "a", "b")]
    )
    assert report.baselines.labels_knowable.value is None
    assert not knowable(report)
