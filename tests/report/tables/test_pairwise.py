from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from align_bench.errors import MissingResultError
from align_bench.report.tables.differences import against_base
from align_bench.report.tables.pairwise import pairwise

if TYPE_CHECKING:
    from tests.report.conftest import Run


def test_against_the_base_holds_every_policy(run: Run) -> None:
    rows = against_base(run.report()).texts()
    assert len(rows) == 3 * 4
    assert {row[0] for row in rows} > {"dpo", "simpo"}
    assert "base" not in {row[0] for row in rows}


def test_it_turns_with_its_arguments(run: Run) -> None:
    report = run.report()
    there, back = pairwise(report, "dpo", "simpo"), pairwise(report, "simpo", "dpo")
    assert (there.title, back.title) == ("dpo against simpo", "simpo against dpo")
    rows = there.texts()
    assert [row[0] for row in rows] == [
        "accuracy_logratio",
        "accuracy_logp_mean",
        "judge_reward",
        "judge_reward[other]",
        "gold_accuracy",
    ]
    for row, turned in zip(rows, back.texts(), strict=True):
        assert float(row[1]) == -float(turned[1])
        for column in (2, 3):
            bounds, mirrored = (re.findall(r"[+-][\d.]+", text) for text in (row[column], turned[column]))
            assert [float(bound) for bound in bounds] == [-float(bound) for bound in reversed(mirrored)]
        assert row[4:9] == turned[4:9]
        assert row[10] == turned[10]


def test_within_one_method(run: Run) -> None:
    found = pairwise(run.report(), "rm", "rm")
    assert found.title == "rm against rm"
    assert [row[0] for row in found.rows] == [
        "accuracy",
        "accuracy_right_shorter",
        "length_correlation_given_label",
        "length_correlation_given_gold",
    ]


def test_reward_model_against_policy_says_why_it_is_empty(run: Run) -> None:
    section = pairwise(run.report(), "rm", "dpo")
    assert not section.rows
    (why,) = section.captions
    assert "only among themselves" in why


def test_it_names_what_it_cannot_find(run: Run) -> None:
    with pytest.raises(MissingResultError, match="Did you mean dpo"):
        pairwise(run.report(), "dop", "simpo")
    with pytest.raises(MissingResultError, match="its reward model failed"):
        pairwise(run.report(), "dpo", "ppo")
