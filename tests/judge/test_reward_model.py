"""A reward model's scores do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_bench.judge.reward_model import score_answers
from align_bench.models.base import find_base
from align_bench.models.load import load_scorer
from align_bench.models.logprobs import scores
from align_bench.models.precision import Precision

ANSWERS = [((5, 6), (7, 8, 9)), ((11,), (12,)), ((5, 7, 8, 9), (3, 4)), ((5,), (4, 4, 4, 4, 4))]


def test_scores_come_back_in_order_and_alone_as_together(base_folder: Path) -> None:
    model = load_scorer(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    expected = [float(scores(model, [answer])) for answer in ANSWERS]
    for limit in (1, 12, 1000):
        assert score_answers(model, ANSWERS, max_tokens=limit) == pytest.approx(expected, abs=1e-5)
