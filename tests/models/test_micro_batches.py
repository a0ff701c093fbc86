from collections.abc import Callable
from itertools import chain
from random import Random

import pytest

from align_bench.errors import DataError
from align_bench.models.micro_batches import even_passes, micro_batches, scoring_tokens, training_tokens


def test_micro_batches_hold_the_bound_and_every_row() -> None:
    lengths = [3, 9, 1, 4, 9, 2, 7, 5]
    indices = [7, 0, 4, 2, 6, 1]
    parts = micro_batches(indices, lengths, max_tokens=12)
    assert sorted(chain(*parts)) == sorted(indices)
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[index] for index in part) <= 12
    assert parts == [[1], [4], [6], [7, 0], [2]]


def test_a_part_does_not_pad_short_rows_to_a_long_one() -> None:
    lengths = [100, 90, 80, 79, 10, 9, 8]
    assert micro_batches(range(7), lengths, max_tokens=600) == [[0, 1, 2], [3, 4, 5, 6]]
    # A part that is not half full takes any row: many small passes cost more than padding.
    assert micro_batches(range(7), lengths, max_tokens=1000) == [[0, 1, 2, 3, 4], [5, 6]]


@pytest.mark.parametrize(("device", "training", "scoring"), [("cpu", 768, 1024), ("cuda", 8192, 8192)])
def test_what_a_suite_leaves_open_goes_by_the_device(device: str, training: int, scoring: int) -> None:
    assert (training_tokens(None, device), scoring_tokens(None, device)) == (training, scoring)
    assert (training_tokens(5000, device), scoring_tokens(5000, device)) == (5000, 5000)


def test_a_row_longer_than_the_bound_goes_alone() -> None:
    assert micro_batches([0, 1, 2], [100, 2, 2], max_tokens=4) == [[0], [1, 2]]


def test_one_micro_batch_where_all_fits() -> None:
    assert micro_batches(range(4), [2, 2, 2, 2], max_tokens=8) == [[0, 1, 2, 3]]
    assert micro_batches([], [2], max_tokens=8) == []


@pytest.mark.parametrize("split", [micro_batches, even_passes])
def test_parts_need_room(split: Callable[..., list[list[int]]]) -> None:
    with pytest.raises(DataError, match="max_tokens is 0"):
        split([0], [1], max_tokens=0)


def test_unpadded_parts_are_as_few_as_fit_and_about_equal() -> None:
    lengths = [400, 380, 250, 200, 90, 10]
    assert even_passes(range(4), lengths, max_tokens=768) == [[1, 2], [0, 3]]
    assert even_passes(range(4), lengths, max_tokens=8192) == [[0, 1, 2, 3]]
    assert even_passes(range(4), lengths, max_tokens=500) == [[2, 3], [0], [1]]
    assert even_passes([5, 3, 4], lengths, max_tokens=300) == [[3, 4, 5]]
    assert even_passes([0, 5, 4], lengths, max_tokens=99) == [[0], [4], [5]]
    assert even_passes([], lengths, max_tokens=1) == []


def test_unpadded_parts_hold_the_bound_and_every_row() -> None:
    random = Random(0)
    for _ in range(200):
        lengths = [random.randint(1, 900) for _ in range(20)]
        indices = random.sample(range(20), random.randint(1, 20))
        bound = random.randint(1, 2000)
        parts = even_passes(indices, lengths, max_tokens=bound)
        tokens = [sum(lengths[index] for index in part) for part in parts]
        assert sorted(chain(*parts)) == sorted(indices)
        assert tokens == sorted(tokens, reverse=True)
        assert all(some <= bound or len(part) == 1 for some, part in zip(tokens, parts, strict=True))
