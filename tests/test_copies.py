"""Copies of the process that has everything imported have imported what tests test."""

from __future__ import annotations

from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkServerContext

import align_bench


def say_what_is_loaded(told: Connection) -> None:
    import sys

    told.send((sys.modules["align_bench"].__file__, "tests.warm" in sys.modules, "torch" in sys.modules))


def test_a_copy_has_loaded_the_package_that_is_tested(copies: ForkServerContext) -> None:
    hears, told = Pipe(duplex=False)
    process = copies.Process(target=say_what_is_loaded, args=(told,))
    process.start()
    assert hears.recv() == (align_bench.__file__, True, True)
    process.join()
