from collections import Counter
from itertools import chain

import pytest

from align_bench.data.batches import effective_batches, mismatched
from align_bench.errors import DataError
from align_bench.records import TokenRow


def row(prompt: int) -> TokenRow:
    return TokenRow(pair=0, prompt=(prompt,), chosen=(1,), rejected=(2,))


def test_every_row_occurs_once_an_epoch_and_the_rest_is_kept() -> None:
    batches = effective_batches(10, 4, epochs=3, seed=0)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(10), 3)
    for epoch in range(3):
        assert sorted(chain(*batches[3 * epoch : 3 * epoch + 3])) == list(range(10))


def test_the_order_hangs_on_seed_and_epoch_alone() -> None:
    first = effective_batches(50, 50, epochs=2, seed=1)
    assert first == effective_batches(50, 50, epochs=2, seed=1)
    assert first[0] != first[1]
    assert first[0] != effective_batches(50, 50, epochs=1, seed=2)[0]
    assert first[0] == effective_batches(50, 50, epochs=1, seed=1)[0]


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_below_one_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="expected at least 1"):
        effective_batches(numbers[0], numbers[1], epochs=numbers[2], seed=0)


@pytest.mark.parametrize(
    "prompts",
    [[1, 2], [1, 1, 2], [1, 2, 2], [2, 1, 1, 1, 3, 3, 2], [1, 2, 1, 2], [5, 5, 5, 5, 6, 5]],
)
def test_mismatched_is_the_next_row_with_another_prompt(prompts: list[int]) -> None:
    rows = [row(prompt) for prompt in prompts]
    naive = [
        next(
            (index + step) % len(rows)
            for step in range(1, len(rows))
            if prompts[(index + step) % len(rows)] != prompts[index]
        )
        for index in range(len(rows))
    ]
    assert mismatched(rows) == naive


@pytest.mark.parametrize("count", [0, 1, 3])
def test_equal_prompts_cannot_be_mismatched(count: int) -> None:
    with pytest.raises(DataError, match="same prompt"):
        mismatched([row(1)] * count)
