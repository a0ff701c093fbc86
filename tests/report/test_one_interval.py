"""One number has one interval wherever it stands, and pairs of a prompt are one cluster in each."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.length_bias import partial_correlation
from align_bench.records import CellId, MetricKey
from align_bench.report.build import build_report
from align_bench.report.rows import AttackedScores, AuditRow, ScoreRow, Side
from align_bench.report.schema import Report
from align_bench.stats.bootstrap import difference
from tests.report.conftest import header, outcome

PROMPTS = 68
POE, PLAIN = CellId("poe_rm"), CellId("rm")
SIDES: tuple[Side, ...] = ("chosen", "rejected")


def made(seed: int = 1) -> tuple[list[ScoreRow], list[AuditRow]]:
    """390 pairs of 68 prompts, one to eleven each, that two reward models score; prompts differ, not pairs alone.

    In each prompt length goes with worth to a degree of its own, which both models follow, and each adds its own.
    """
    draw = random.Random(seed)
    scores, audited, pair = [], [], 0
    for prompt in range(PROMPTS):
        pull = {cell: draw.gauss(0.04 if cell == POE else 0, 0.16) for cell in (POE, PLAIN)}
        worth = draw.gauss(0.3, 1.5)
        for _ in range(draw.choice((1, 2, 3, 4, 8, 9, 10, 11))):
            words = [draw.randint(3, 40) for _ in SIDES]
            base = [0.05 * draw.gauss(20, 10) + worth * (side == "chosen") for side in SIDES]
            for cell in (POE, PLAIN):
                own = [
                    one + pull[cell] * (length - 20) + draw.gauss(0, 1) for one, length in zip(base, words, strict=True)
                ]
                own = [own[0], own[0]] if draw.random() < 0.02 else own
                attack = (AttackedScores(0.1, own[0] - 0.5, own[1]),)
                scores.append(
                    ScoreRow(
                        cell=str(cell), algorithm=cell.name, seed=0, pair=pair, prompt_id=prompt, chosen_reward=own[0],
                        rejected_reward=own[1], chosen_words=words[0], rejected_words=words[1], attacked=attack,
                        gold_choice=1 + (prompt % 7 == 0),
                    )
                )  # fmt: skip
                for side, score, length in zip(SIDES, own, words, strict=True):
                    extra = {"score_plain": score, "score_shuffled": score, "score_empty": score}
                    audited.append(AuditRow(str(cell), pair, prompt, side, score, length, 6.0, 0, 0, **extra))
            pair += 1
    return scores, audited


@pytest.fixture(scope="module")
def rows() -> tuple[list[ScoreRow], list[AuditRow]]:
    return made()


@pytest.fixture(scope="module")
def report(rows: tuple[list[ScoreRow], list[AuditRow]]) -> Report:
    return build_report(header(), [outcome(cell, "reward") for cell in (POE, PLAIN)], rows[0], [], rows[1])


def test_one_number_has_one_interval(report: Report) -> None:
    for result, audit in zip(report.results, report.audit, strict=True):
        assert result.name == audit.scorer
        ours, theirs = result.metrics, audit.metrics
        assert ours.accuracy.n == 390
        assert ours.accuracy == theirs.accuracy == theirs.accuracy_prompts_shuffled == theirs.accuracy_prompts_empty
        assert ours.tie_rate == theirs.tie_rate
        assert ours.accuracy_chosen_longer == theirs.accuracy_chosen_longer
        assert ours.accuracy_chosen_shorter == theirs.accuracy_chosen_shorter
        assert ours.length_correlation_given_label == theirs.length_partial
        assert report.baselines.longer_wins == theirs.longer_wins


def test_prompts_widen_every_interval(report: Report, rows: tuple[list[ScoreRow], list[AuditRow]]) -> None:
    """Against the same pairs taken for prompts of their own."""
    alone = build_report(
        header(),
        [outcome(cell, "reward") for cell in (POE, PLAIN)],
        [replace(row, prompt_id=row.pair) for row in rows[0]],
        [],
        [replace(row, prompt=row.pair) for row in rows[1]],
    )
    for together, apart in (
        (report.results[0].metrics, alone.results[0].metrics),
        (report.audit[0].metrics, alone.audit[0].metrics),
        (report.baselines, alone.baselines),
    ):
        for name in (
            "accuracy", "length_correlation_given_label", "accuracy_length_controlled", "length_partial",
            "length_partial_within", "length_spearman_within", "labels_agree_with_gold",
        ):  # fmt: skip
            wide, narrow = getattr(together, name, None), getattr(apart, name, None)
            if wide is not None and narrow is not None and wide.low is not None:
                assert wide.value == pytest.approx(narrow.value), name
                assert wide.high - wide.low > 1.15 * (narrow.high - narrow.low), name
    attacked = report.results[0].metrics.attacked[0].accuracy, alone.results[0].metrics.attacked[0].accuracy
    assert attacked[0].value == attacked[1].value
    assert (attacked[0].high or 0) - (attacked[0].low or 0) > 1.3 * ((attacked[1].high or 0) - (attacked[1].low or 0))


def test_a_difference_in_length_bias_that_vanishes_when_prompts_are_resampled(
    report: Report, rows: tuple[list[ScoreRow], list[AuditRow]]
) -> None:
    (found,) = [one for one in report.comparisons if one.metric == MetricKey("length_correlation_given_label")]
    assert (found.n, found.prompts) == (len(rows[0]) // 2, PROMPTS)
    sides = [
        [np.array([getattr(row, name) for row in rows[0] if row.cell == str(cell)], dtype=float) for name in names]
        for cell in (POE, PLAIN)
        for names in (("chosen_reward", "rejected_reward", "chosen_words", "rejected_words"),)
    ]
    codes = cluster_codes(None, found.n)
    a, b = (partial_correlation(one[0], one[1], one[2], one[3], codes) for one in sides)
    by_pair = difference(a, b, found.n, found.n)
    assert by_pair.difference == pytest.approx(found.difference)
    assert (by_pair.low or 0) > 0  # "poe_rm higher"
    assert (found.low or 0) < 0 < (found.high or 0)


def test_planted_heavy_tails_are_named_with_the_n_that_they_want() -> None:
    draw = np.random.default_rng(0)
    cells = {POE: draw.lognormal(0, 2, (150, 2)), PLAIN: draw.normal(size=(150, 2))}
    scores = [
        ScoreRow(str(cell), cell.name, 0, pair, float(one), float(other), prompt_id=pair)
        for cell, table in cells.items()
        for pair, (one, other) in enumerate(table)
    ]
    report = build_report(header(), [outcome(cell, "reward") for cell in cells], scores, [])
    notes = [note for note in report.notes if "too skewed" in note]
    skewed, normal = (result.metrics for result in report.results)
    assert len(notes) == 1
    assert notes[0].startswith("poe_rm: too few or too skewed values")
    for name, found in (("reward mean", skewed.reward_mean), ("reward std", skewed.reward_std)):
        assert f"{name} (n 150, wanted {found.wanted:,})" in notes[0]
        assert (found.wanted or 0) > 150
    assert normal.reward_mean.wanted is normal.reward_std.wanted is None
