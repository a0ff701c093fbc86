"""Work that several workers share."""

from __future__ import annotations

import pytest

from align_bench.planning.schedule import schedule

FREE: dict[str, list[str]] = {"a": [], "b": [], "c": [], "d": [], "e": []}


@pytest.mark.parametrize(("workers", "seconds"), [(1, 20), (2, 10), (5, 7), (9, 7)])
def test_the_longest_goes_first(workers: int, seconds: float) -> None:
    """7 and 3 on one worker; 5, 4 and 1 on the other one."""
    found = schedule({"a": 1, "b": 3, "c": 4, "d": 5, "e": 7}, FREE, workers)
    assert found.seconds == seconds
    assert found.chain == ("e",)
    assert found.chain_seconds == 7


def test_work_waits_for_what_it_needs() -> None:
    """Two workers: `judge` and `rm` together, `ppo` after `rm`, `dpo` as soon as one is free."""
    seconds = {"judge": 2.0, "rm": 3.0, "ppo": 10.0, "dpo": 4.0}
    needs: dict[str, list[str]] = {"judge": [], "rm": [], "ppo": ["rm"], "dpo": ["judge"]}
    found = schedule(seconds, needs, 2)
    assert found.seconds == found.chain_seconds == 13
    assert found.chain == ("rm", "ppo")
    assert schedule(seconds, needs, 1).seconds == 19
    chained = {"judge": [], "rm": ["judge"], "ppo": ["rm"], "dpo": ["ppo"]}
    assert schedule(seconds, chained, 8).seconds == 19


def test_no_work_takes_no_time() -> None:
    found = schedule(dict[str, float](), dict[str, list[str]](), 3)
    assert (found.seconds, found.chain, found.chain_seconds) == (0, (), 0)
