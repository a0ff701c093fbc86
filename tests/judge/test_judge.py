"""Judges: the reward model's scores do not depend on the batch; gold is a check of the first claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import DataError
from align_bench.judge.gold import gold_reward, gold_score
from align_bench.judge.reward_model import score_answers
from align_bench.models.base import find_base
from align_bench.models.load import load_scorer
from align_bench.models.logprobs import scores
from align_bench.models.precision import Precision
from align_bench.records import Message, Preference, TokenRow

ANSWERS = [((5, 6), (7, 8, 9)), ((11,), (12,)), ((5, 7, 8, 9), (3, 4)), ((5,), (4, 4, 4, 4, 4))]


def test_scores_come_back_in_order_and_alone_as_together(base_folder: Path) -> None:
    model = load_scorer(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    expected = [float(scores(model, [answer])) for answer in ANSWERS]
    for limit in (1, 12, 1000):
        assert score_answers(model, ANSWERS, max_tokens=limit) == pytest.approx(expected, abs=1e-5)


def preference(gold: str | None) -> Preference:
    return Preference(0, (Message("user", "?"),), "a", "b", gold, ("Paris", "Rome"))


def test_gold_takes_the_first_claim() -> None:
    assert gold_score(preference("Paris"), "It is Paris, not Rome.") == 1
    assert gold_score(preference("Paris"), "Rome. Or Paris.") == 0
    assert gold_score(preference(None), "Paris") is None


def test_gold_is_a_reward_of_answers_as_token_ids(tokenizer: Any) -> None:
    reward = gold_reward(tokenizer, [preference("Paris"), replace(preference("Rome"), pair=1)])
    answer = [*tokenizer("It is Paris.")["input_ids"], tokenizer.eos_token_id]
    rows = [TokenRow(pair, (1,), None, None) for pair in (0, 1)]
    assert reward(rows, [answer, answer]) == [1.0, 0.0]


def test_gold_reward_needs_gold_answers(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"row 0 of the data has no gold answer, .* \(1 in all\)"):
        gold_reward(tokenizer, [preference("Paris"), preference(None)])
