"""The gold judge: a programmatic check, where the data knows its right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from align_bench.data.planted import is_right
from align_bench.errors import DataError

if TYPE_CHECKING:
    from align_bench.records import Preference, TokenRow


def gold_score(preference: Preference, text: str) -> float | None:
    """1 when the text claims the gold answer first, 0 when not, None when the row has no gold answer."""
    if preference.gold is None:
        return None
    return float(is_right(text, preference.gold, preference.candidates))


def gold_reward(
    tokenizer: Any, preferences: Sequence[Preference]
) -> Callable[[Sequence[TokenRow], Sequence[Sequence[int]]], list[float]]:
    """The gold judge as a reward: (rows, ids of an answer to each) → 1 for a right answer, else 0.

    Raises:
        DataError: when a row has no gold answer.
    """
    if without := [preference.pair for preference in preferences if preference.gold is None]:
        raise DataError(
            f"row {without[0]} of the data has no gold answer, which the reward gold needs ({len(without)} in all)",
            fix="use data with a column gold, such as embedded/planted, or name a reward method of the suite",
        )
    by_pair = {preference.pair: preference for preference in preferences}

    def reward(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        scores = [gold_score(by_pair[row.pair], text) for row, text in zip(rows, texts, strict=True)]
        return [score for score in scores if score is not None]  # which every row has

    return reward
