from __future__ import annotations

import statistics

import pytest

from align_bench.judge.ensemble import combine
from align_bench.suite.models import Ensemble

MEMBERS = [[1.0, -2.0, 0.5, 3.0], [2.0, -2.0, -0.5, 2.5], [6.0, -2.0, 0.25, 2.0]]
ANSWERS = list(zip(*MEMBERS, strict=True))


def test_combinations_answer_by_answer() -> None:
    assert combine(MEMBERS, Ensemble()) == pytest.approx([statistics.fmean(scores) for scores in ANSWERS])
    assert combine(MEMBERS, Ensemble(combine="worst")) == [min(scores) for scores in ANSWERS]
    penalised = [statistics.fmean(scores) - 0.7 * statistics.pvariance(scores) for scores in ANSWERS]
    assert combine(MEMBERS, Ensemble(combine="variance_penalised", penalty=0.7)) == pytest.approx(penalised)


def test_members_that_agree_are_one_judge() -> None:
    for how in ("mean", "worst", "variance_penalised"):
        assert combine([MEMBERS[0]] * 3, Ensemble(combine=how)) == MEMBERS[0]
    assert combine([MEMBERS[1]], None) == MEMBERS[1]
