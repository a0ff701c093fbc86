"""Which rows are held out of train for trials."""

from __future__ import annotations

from typing import Any

import pytest

from align_bench.data.holdout import split_holdout
from align_bench.errors import DataError
from align_bench.records import TokenRow


def rows(*prompts: int, chosen: bool = True) -> list[TokenRow]:
    return [TokenRow(pair, (prompt,), (1, pair) if chosen else None, (2, pair)) for pair, prompt in enumerate(prompts)]


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_is_on_both_sides_and_none_of_val_is_held_out(seed: int) -> None:
    every = rows(*(number % 10 for number in range(40)))
    excluded = {(0,), (1,), (99,)}
    kept, held = split_holdout(every, excluded, share=0.25, seed=seed)
    assert not {row.prompt for row in kept} & {row.prompt for row in held}
    assert not {row.prompt for row in held} & excluded
    assert sorted(kept + held, key=lambda row: row.pair) == every
    assert len({row.prompt for row in held}) == 2, "a quarter of the eight prompts that are not in val"
    assert len(held) == 8, "all four rows of each"


def test_cut_follows_its_seed() -> None:
    every = rows(*range(30))
    assert split_holdout(every, (), share=0.2, seed=0) == split_holdout(every, (), share=0.2, seed=0)
    assert split_holdout(every, (), share=0.2, seed=0) != split_holdout(every, (), share=0.2, seed=1)


def test_held_out_rows_with_one_answer_are_left_out() -> None:
    every = [*rows(1, 2, 3, 4), *rows(1, 2, 3, 4, chosen=False)]
    kept, held = split_holdout(every, (), share=0.5, seed=0)
    assert (len(kept), len(held)) == (4, 2)
    assert all(row.chosen and row.rejected for row in held)


@pytest.mark.parametrize(
    ("every", "excluded"),
    [(rows(1, 1, 1), ()), (rows(1, 2, 3), {(1,), (2,), (3,)}), (rows(1, 2, 3, chosen=False), ())],
)
def test_cut_that_leaves_nothing_on_one_side_is_refused(every: list[TokenRow], excluded: Any) -> None:
    with pytest.raises(DataError, match=r"tune\.holdout=0\.2 .* rows to train on and \d pairs to measure on"):
        split_holdout(every, excluded, share=0.2, seed=0)
