from itertools import chain

import pytest

from align_bench.errors import DataError
from align_bench.models.passes import micro_batches


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
