"""Gold is a check of an answer's first claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from align_bench.errors import DataError
from align_bench.judge.gold import gold_reward, gold_score
from align_bench.records import Message, Preference, TokenRow


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
