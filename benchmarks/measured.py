"""Seconds of a step, on the clock and on the processor, as the benchmarks of reports and of data note them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(seconds: dict[str, dict[str, float]], step: str, work: Callable[[], T]) -> T:
    """The work's result.

    Args:
        seconds: takes `wall` and `processor` seconds under the step's name.
        step: the name.
        work: what is measured.
    """
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    seconds[step] = {
        "wall": round(time.perf_counter() - wall, 2),
        "processor": round(time.process_time() - processor, 2),
    }
    return result
