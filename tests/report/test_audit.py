"""The audit and the agreement of judges, as the report computes and shows them."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from align_bench.metrics.counterfactual import VERSIONS
from align_bench.report.audit import audit
from align_bench.report.judges import agreement, audit_sections
from align_bench.report.markdown import render

PAIRS, AUDITED = 60, 20


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Answers to 30 prompts, two pairs each; the first 20 pairs have scores with changed texts."""
    rng = random.Random(3)
    made = []
    for pair in range(PAIRS):
        for side in ("chosen", "rejected"):
            words = rng.randint(3, 40)
            score = 0.04 * words + rng.gauss(0.8 * (side == "chosen"), 1)
            row = {"scorer": "rm", "pair": pair, "prompt": pair // 2, "side": side, "score": score, "words": words}
            row |= {"grade": rng.gauss(6, 2), "list_items": rng.randint(0, 2), "headings": 0, "bold": rng.randint(0, 1)}
            versions = {name: score + rng.gauss(0.5, 1) for name in VERSIONS} | {"plain": score, "stripped": None}
            made.append(row | {f"score_{name}": own if pair < AUDITED else None for name, own in versions.items()})
    return made


def column(rows: list[dict[str, Any]], side: str, name: str) -> list[Any]:
    return [row[name] for row in rows if row["side"] == side and row[name] is not None]


def test_every_number_is_of_its_own_column(rows: list[dict[str, Any]]) -> None:
    (found,) = audit(random.Random(0).sample(rows, len(rows)))
    metrics = found["metrics"]
    assert found["scorer"] == "rm"
    for name, source in (
        ("accuracy", "score"),
        ("accuracy_prompts_shuffled", "score_shuffled"),
        ("accuracy_prompts_empty", "score_empty"),
        ("longer_wins", "words"),
    ):
        pairs = list(zip(column(rows, "chosen", source), column(rows, "rejected", source), strict=True))
        right = statistics.fmean((a > b) + (a == b) / 2 for a, b in pairs)
        assert (metrics[name]["value"], metrics[name]["n"]) == (pytest.approx(right), len(pairs))
    longer = [a["score"] > b["score"] for a, b in zip(rows[::2], rows[1::2], strict=True) if a["words"] > b["words"]]
    assert metrics["accuracy_chosen_longer"]["value"] == pytest.approx(statistics.fmean(longer))
    assert sum(one["n"] for one in found["reliability"]) == PAIRS
    assert metrics["effect_words"]["n"] == 2 * PAIRS
    assert metrics["effect_headings"]["value"] is None
    assert metrics["brier"]["n"] == PAIRS // 2  # prompts


def test_edits_are_compared_with_the_answer_as_it_was(rows: list[dict[str, Any]]) -> None:
    metrics = audit(rows)[0]["metrics"]
    audited = rows[: 2 * AUDITED]
    spread = statistics.stdev(row["score"] for row in audited)
    shifts = [(row["score_filler"] - row["score"]) / spread for row in audited]
    assert metrics["shift_filler"]["value"] == pytest.approx(statistics.fmean(shifts))
    turned = [
        (own["score"] - other["score"]) * (own["score_filler"] - other["score"]) < 0
        for pair in range(AUDITED)
        for own, other in [(audited[2 * pair], audited[2 * pair + 1]), (audited[2 * pair + 1], audited[2 * pair])]
    ]
    assert 0 < sum(turned) < len(turned)
    assert metrics["flips_filler"]["value"] == pytest.approx(statistics.fmean(turned))
    assert metrics["flips_filler"]["n"] == AUDITED // 2
    assert metrics["shift_stripped"] == metrics["flips_stripped"] == {"value": None, "low": None, "high": None, "n": 0}


def test_tables_show_what_there_is(rows: list[dict[str, Any]], run: Any) -> None:
    accuracy, form, edits, calibration = audit_sections({"audit": audit(rows)})
    assert [row[0] for row in accuracy.rows] == ["rm"]
    assert "headings" not in [column.heading for column in form.columns]
    assert [row[1] for row in edits.rows] == ["filler sentence appended", "last paragraph doubled"]
    assert [column.heading for column in calibration.columns][1:] == ["Brier", "log-loss", "ECE", "temperature", "ties"]
    assert [section.rows for section in audit_sections({"audit": []})] == [[]] * 4
    hostile = [{**row, "scorer": "<b>|`x`"} for row in rows]
    report = run.report() | {"audit": audit(hostile)}
    assert "<b>" not in render(report).replace("&lt;b&gt;", "")


def test_agreement_has_a_row_for_every_two_judges(run: Any) -> None:
    section = agreement(run.report())
    assert [row[0] for row in section.rows] == ["rm, other", "rm, gold", "other, gold"]
    assert agreement({}).rows == []


def test_an_audit_of_nothing_is_undefined() -> None:
    row = {"scorer": "rm", "pair": 0, "prompt": 0, "score": None, "words": 3, "grade": None}
    row |= dict.fromkeys(("list_items", "headings", "bold"), 0) | {f"score_{name}": None for name in VERSIONS}
    (found,) = audit([{**row, "side": "chosen"}, {**row, "side": "rejected"}])
    assert {name for name, one in found["metrics"].items() if one["value"] is not None} == {"longer_wins"}
    assert found["reliability"] == []


def test_scores_that_are_not_finite_are_left_out(rows: list[dict[str, Any]]) -> None:
    spoiled = [
        {**row, "score": float("inf"), "score_plain": float("inf"), "score_filler": float("inf")}
        if row["pair"] == 3
        else row
        for row in rows
    ]
    metrics = audit(spoiled)[0]["metrics"]
    assert metrics["accuracy"]["n"] == PAIRS - 1
    assert all(one["value"] is None or abs(one["value"]) < 1e3 for one in metrics.values())
