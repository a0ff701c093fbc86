"""align-bench: every preference-alignment method on the same base, rows and judge, compared with honest statistics.

Example:
    >>> import align_bench
    >>> report = align_bench.run("assignment", set={"methods": ["dpo", "simpo"]})  # or align_bench.load("reports/mine")
    >>> report.leaderboard()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_bench.notebook import Figure as Figure
    from align_bench.notebook import Report as Report
    from align_bench.notebook import load as load
    from align_bench.notebook import run as run

__all__ = ["Figure", "Report", "load", "run"]


def __getattr__(name: str) -> object:
    if name in __all__:  # on demand, so that importing the package loads nothing
        return getattr(importlib.import_module("align_bench.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
