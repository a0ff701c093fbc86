"""The audit and the agreement of judges, as the report computes and shows them."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from pydantic import BaseModel

from align_bench.metrics.calibration import calibration_test, longer_first
from align_bench.records import CellId, Estimate, Generation
from align_bench.report.audit import audit
from align_bench.report.build import build_report
from align_bench.report.render.markdown import render
from align_bench.report.rows import AuditRow, Side
from align_bench.report.schema import AuditMetrics, Reversal, SharedRows
from align_bench.report.tables.audit import (
    agreement,
    calibration,
    edited_answers,
    length_and_form,
    length_controls,
    prompt_controls,
)
from tests.report.conftest import BASE, DPO, KTO, Run, answer, header, judge, outcome

PAIRS, AUDITED = 60, 20
SIDES: tuple[Side, ...] = ("chosen", "rejected")


@pytest.fixture(scope="module")
def rows() -> list[AuditRow]:
    """Answers to 30 prompts, two pairs each; the first 20 pairs have scores with changed texts."""
    rng = random.Random(3)
    made = []
    for pair in range(PAIRS):
        for side in SIDES:
            words = rng.randint(3, 40)
            score = 0.04 * words + rng.gauss(0.8 * (side == "chosen"), 1)
            row = AuditRow("rm", pair, pair // 2, side, score, words, rng.gauss(6, 2), rng.randint(0, 2), 0)
            row = replace(row, bold=rng.randint(0, 1))
            if pair < AUDITED:
                shuffled, empty, filler, doubled = (score + rng.gauss(0.5, 1) for _ in range(4))
                row = replace(row, score_plain=score, score_shuffled=shuffled, score_empty=empty)
                row = replace(row, score_filler=filler, score_doubled=doubled)
            made.append(row)
    return made


def known(number: float | None) -> float:
    assert number is not None
    return number


def values(metrics: AuditMetrics) -> dict[str, float | None]:
    """Every estimate's value, those of effects and edits included."""

    def estimates(block: BaseModel, prefix: str = "") -> dict[str, Estimate]:
        found = {f"{prefix}{name}": value for name, value in block}
        return {name: value for name, value in found.items() if isinstance(value, Estimate)}

    every = estimates(metrics) | estimates(metrics.effects, "effect ")
    for edit in metrics.edits:
        every |= estimates(edit, f"{edit.edit} ")
    return {name: estimate.value for name, estimate in every.items()}


Measure = Callable[[AuditRow], float | None]


def column(rows: list[AuditRow], side: Side, measure: Measure) -> list[float]:
    return [value for row in rows if row.side == side and (value := measure(row)) is not None]


def test_every_number_is_of_its_own_column(rows: list[AuditRow]) -> None:
    (found,) = audit(random.Random(0).sample(rows, len(rows)))
    metrics = found.metrics
    assert found.scorer == "rm"
    expected: list[tuple[Estimate, Measure]] = [
        (metrics.accuracy, lambda row: row.score),
        (metrics.accuracy_prompts_shuffled, lambda row: row.score_shuffled),
        (metrics.accuracy_prompts_empty, lambda row: row.score_empty),
        (metrics.longer_wins, lambda row: row.words),
    ]
    for estimate, measure in expected:
        pairs = list(zip(column(rows, "chosen", measure), column(rows, "rejected", measure), strict=True))
        right = statistics.fmean((a > b) + (a == b) / 2 for a, b in pairs)
        assert estimate.value == pytest.approx(right)
        assert estimate.n == len(pairs)
    longer = [
        known(a.score) > known(b.score)
        for a, b in zip(rows[::2], rows[1::2], strict=True)
        if known(a.words) > known(b.words)
    ]
    assert metrics.accuracy_chosen_longer.value == pytest.approx(statistics.fmean(longer))
    assert sum(one.n for one in found.reliability) == PAIRS
    assert metrics.effects.words.n == 2 * PAIRS
    assert metrics.effects.headings.value is None
    assert metrics.effects.bold.value is not None
    assert metrics.brier.n == PAIRS
    scores, words = (
        tuple(column(rows, side, measure) for side in SIDES)
        for measure in (lambda row: row.score, lambda row: row.words)
    )
    tested = calibration_test(
        *longer_first(scores[0], scores[1], words[0], words[1]), [pair // 2 for pair in range(PAIRS)]
    )
    assert (metrics.calibration_slope, metrics.calibration_intercept) == (tested.slope, tested.intercept)
    assert metrics.calibration_p == known(tested.p)


def test_changed_prompts_stand_beside_the_accuracy_on_the_same_pairs(rows: list[AuditRow]) -> None:
    """Of the whole file the accuracy is another one: what is lost by shuffling is a difference on the audited pairs."""
    (found,) = audit(rows)
    metrics = found.metrics
    pairs = [(rows[2 * pair], rows[2 * pair + 1]) for pair in range(AUDITED)]
    plain = [float(known(a.score) > known(b.score)) for a, b in pairs]
    shuffled = [float(known(a.score_shuffled) > known(b.score_shuffled)) for a, b in pairs]
    assert metrics.accuracy_audited.value == pytest.approx(statistics.fmean(plain))
    assert metrics.accuracy_audited.value != metrics.accuracy.value
    assert metrics.accuracy_audited.n == metrics.accuracy_prompts_shuffled.n == metrics.accuracy_prompts_empty.n == 20
    assert (found.audited_pairs, found.audited_prompts) == (20, 10)
    lost = metrics.accuracy_less_shuffled
    assert lost.value == pytest.approx(statistics.fmean(plain) - statistics.fmean(shuffled))
    differences = [a - b for a, b in zip(plain, shuffled, strict=True)]
    prompts = [a.prompt for a, _ in pairs]
    fit = sm.OLS(differences, np.ones(20)).fit(cov_type="cluster", cov_kwds={"groups": prompts}, use_t=True)
    assert (lost.low, lost.high) == pytest.approx(tuple(fit.conf_int()[0]))


def test_a_scorer_that_does_not_read_the_prompt_loses_nothing(rows: list[AuditRow], run: Run) -> None:
    deaf = [replace(row, score_shuffled=row.score_plain, score_empty=row.score_plain) for row in rows]
    (found,) = audit(deaf)
    assert found.metrics.accuracy_less_shuffled.value == 0
    section = prompt_controls(run.report().model_copy(update={"audit": [found]}))
    (row,) = section.texts()
    assert row[1].split()[0] == row[2].split()[0] == row[4].split()[0]
    assert row[3] == "0.000"
    assert "On the audited pairs: 20 pairs of 10 prompts, drawn at random." in section.captions
    assert "n = 20." in section.captions


def test_without_changed_texts_there_are_no_prompt_controls(rows: list[AuditRow]) -> None:
    plain = [replace(row, score_plain=None, score_shuffled=None, score_empty=None) for row in rows]
    (found,) = audit(plain)
    assert (found.audited_pairs, found.audited_prompts) == (None, None)
    assert found.metrics.accuracy_audited.value is None
    assert found.metrics.accuracy_less_shuffled.value is None


def test_edits_are_compared_with_the_answer_as_it_was(rows: list[AuditRow]) -> None:
    edits = {one.edit: one for one in audit(rows)[0].metrics.edits}
    assert list(edits) == ["filler", "doubled", "stripped"]
    audited = [(known(row.score), row.score_filler, row.score_doubled) for row in rows[: 2 * AUDITED]]
    spread = statistics.stdev(score for score, _, _ in audited)
    filler = statistics.fmean((known(edited) - score) / spread for score, edited, _ in audited)
    doubled = statistics.fmean((known(edited) - score) / spread for score, _, edited in audited)
    assert edits["filler"].shift.value == pytest.approx(filler)
    assert edits["doubled"].shift.value == pytest.approx(doubled)
    turned = [
        (own[0] - other[0]) * (known(own[1]) - other[0]) < 0
        for pair in range(AUDITED)
        for own, other in [(audited[2 * pair], audited[2 * pair + 1]), (audited[2 * pair + 1], audited[2 * pair])]
    ]
    assert 0 < sum(turned) < len(turned)
    assert edits["filler"].flips.value == pytest.approx(statistics.fmean(turned))
    assert edits["filler"].flips.n == 2 * AUDITED
    assert edits["stripped"].shift == edits["stripped"].flips == Estimate(None)


def test_tables_show_what_there_is(rows: list[AuditRow], run: Run) -> None:
    report = run.report()
    audited = report.model_copy(update={"audit": audit(rows)})
    assert [row[0] for row in length_controls(audited).texts()] == ["rm"]
    assert "headings" not in [column.heading for column in length_and_form(audited).columns]
    edits = edited_answers(audited).texts()
    assert [row[1] for row in edits] == ["filler sentence appended", "last paragraph doubled"]
    headings = [column.heading for column in calibration(audited).columns]
    assert headings[1:] == ["Brier", "log-loss", "ECE", "slope", "intercept", "p", "ties"]
    for table in (length_controls, prompt_controls, length_and_form, edited_answers, calibration):
        assert not table(report).rows  # without an audit
    hostile = [replace(row, scorer="<b>|`x`") for row in rows]
    text = render(report.model_copy(update={"audit": audit(hostile)}))
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_agreement_has_a_row_for_every_two_judges(run: Run) -> None:
    section = agreement(run.report())
    assert [row[0] for row in section.texts()] == ["judge rm, judge other", "judge rm, gold", "judge other, gold"]
    assert not agreement(build_report(header(), [], [], [])).rows


def test_methods_that_judges_rank_the_other_way_round_are_named() -> None:
    """DPO is far above KTO by one judge and far below by the other; the base is below both."""
    rng = random.Random(0)
    levels = {BASE: (-9.0, -9.0), DPO: (3.0, 0.0), KTO: (0.0, 3.0)}

    def judged(cell: CellId, prompt: int) -> Generation:
        scores = {name: level + rng.gauss(0, 0.5) for name, level in zip(("rm", "other"), levels[cell], strict=True)}
        return replace(answer(cell, prompt), scores=scores)

    rows = [judged(cell, prompt) for cell in levels for prompt in range(30)]
    outcomes = [outcome(BASE, "base"), outcome(DPO, "policy"), outcome(KTO, "policy")]
    overlap = SharedRows(rows=1_000, same_rows=2, same_prompts=30)
    other = judge("other").model_copy(update={"overlap": overlap})
    report = build_report(header([judge("rm"), other]), outcomes, [], rows)
    (found,) = report.agreement
    assert (found.a, found.b, found.methods) == ("rm", "other", 3)
    assert found.reversed == [Reversal(higher=DPO, lower=KTO, shown=True)]
    assert found.kendall_tau == pytest.approx(1 / 3)
    assert (
        "The ranking of checkpoints depends on the judge: judge rm and judge other differ on 1 of 3 "
        "pairs. By judge rm, not by judge other: dpo over kto (shown by both)."
    ) in report.notes
    assert (
        "Judge other: 2 of its 1,000 training rows are also training rows of the policies, and 30 share a prompt "
        "with them."
    ) in report.notes


def test_judges_that_differ_on_methods_of_three_seeds_say_methods() -> None:
    rng = random.Random(0)
    levels = {"base": (-9.0, -9.0), "dpo": (3.0, 0.0), "kto": (0.0, 3.0)}
    cells = [BASE, *(replace(method, seed=seed) for method in (DPO, KTO) for seed in range(3))]

    def judged(cell: CellId, prompt: int) -> Generation:
        own = zip(("rm", "other"), levels[cell.name], strict=True)
        return replace(answer(cell, prompt), scores={name: level + rng.gauss(0, 0.5) for name, level in own})

    rows = [judged(cell, prompt) for cell in cells for prompt in range(30)]
    outcomes = [outcome(cell, "base" if cell == BASE else "policy") for cell in cells]
    report = build_report(header([judge("rm"), judge("other")]), outcomes, [], rows)
    assert any(note.startswith("The ranking of methods depends on the judge") for note in report.notes)


def test_an_audit_of_nothing_is_undefined() -> None:
    (found,) = audit([AuditRow("rm", 0, 0, side, None, 3, None, 0, 0, 0) for side in SIDES])
    assert {name for name, value in values(found.metrics).items() if value is not None} == {"longer_wins"}
    assert found.reliability == []


def test_scores_that_are_not_finite_are_left_out(rows: list[AuditRow]) -> None:
    spoiled = [
        replace(row, score=math.inf, score_plain=math.inf, score_filler=math.inf) if row.pair == 3 else row
        for row in rows
    ]
    metrics = audit(spoiled)[0].metrics
    assert metrics.accuracy.n == PAIRS - 1
    numbers = [value for value in values(metrics).values() if value is not None]
    assert len(numbers) > 20
    assert all(abs(value) < 1e3 for value in numbers)
