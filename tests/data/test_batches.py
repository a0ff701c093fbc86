from collections import Counter
from itertools import chain

import pytest

from align_bench.data.batches import effective_batches, micro_batches, mismatched
from align_bench.errors import DataError
from align_bench.records import TokenRow


def row(prompt: int) -> TokenRow:
    return TokenRow(pair=0, prompt=(prompt,), chosen=(1,), rejected=(2,))


def test_every_row_occurs_once_an_epoch_and_the_rest_is_kept():
    batches = effective_batches(10, 4, epochs=3, seed=0)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(10), 3)
    for epoch in range(3):
        assert sorted(chain(*batches[3 * epoch : 3 * epoch + 3])) == list(range(10))


def test_the_order_hangs_on_seed_and_epoch_alone():
    first = effective_batches(50, 50, epochs=2, seed=1)
    assert first == effective_batches(50, 50, epochs=2, seed=1)
    assert first[0] != first[1]
    assert first[0] != effective_batches(50, 50, epochs=1, seed=2)[0]
    assert first[0] == effective_batches(50, 50, epochs=1, seed=1)[0]


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_below_one_are_refused(numbers):
    with pytest.raises(DataError, match="expected at least 1"):
        effective_batches(numbers[0], numbers[1], epochs=numbers[2], seed=0)


def test_micro_batches_hold_the_bound_and_every_row():
    lengths = [3, 9, 1, 4, 9, 2, 7, 5]
    indices = [7, 0, 4, 2, 6, 1]
    parts = micro_batches(indices, lengths, max_tokens=12)
    assert sorted(chain(*parts)) == sorted(indices)
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[index] for index in part) <= 12
    assert parts == [[1], [4], [6], [7, 0], [2]]


def test_a_part_does_not_pad_short_rows_to_a_long_one():
    lengths = [100, 90, 80, 79, 10, 9, 8]
    assert micro_batches(range(7), lengths, max_tokens=600) == [[0, 1, 2], [3, 4, 5, 6]]
    # A part that is not half full takes any row: many small passes cost more than padding.
    assert micro_batches(range(7), lengths, max_tokens=1000) == [[0, 1, 2, 3, 4], [5, 6]]


def test_a_cpus_part_is_small_whatever_the_bound():
    lengths = [400] * 5
    assert micro_batches(range(5), lengths, max_tokens=8192) == [[0, 1], [2, 3], [4]]
    assert micro_batches(range(5), lengths, max_tokens=8192, device="cuda") == [[0, 1, 2, 3, 4]]
    assert micro_batches(range(5), lengths, max_tokens=800, device="cuda") == [[0, 1], [2, 3], [4]]


def test_a_row_longer_than_the_bound_goes_alone():
    assert micro_batches([0, 1, 2], [100, 2, 2], max_tokens=4) == [[0], [1, 2]]


def test_one_micro_batch_where_all_fits():
    assert micro_batches(range(4), [2, 2, 2, 2], max_tokens=8) == [[0, 1, 2, 3]]
    assert micro_batches([], [2], max_tokens=8) == []


def test_micro_batches_need_room():
    with pytest.raises(DataError, match="max_tokens is 0"):
        micro_batches([0], [1], max_tokens=0)


@pytest.mark.parametrize(
    "prompts",
    [[1, 2], [1, 1, 2], [1, 2, 2], [2, 1, 1, 1, 3, 3, 2], [1, 2, 1, 2], [5, 5, 5, 5, 6, 5]],
)
def test_mismatched_is_the_next_row_with_another_prompt(prompts):
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
def test_equal_prompts_cannot_be_mismatched(count):
    with pytest.raises(DataError, match="same prompt"):
        mismatched([row(1)] * count)
