"""align-bench: every preference-alignment method on the same base, rows and judge, compared with honest statistics.

Example:
    >>> import align_bench
    >>> report = align_bench.run("assignment", set={"methods": ["dpo", "simpo"]})  # or align_bench.load("reports/mine")
    >>> report.leaderboard()
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_bench.notebook import Figure as Figure
    from align_bench.notebook import Report as Report
    from align_bench.notebook import load as load
    from align_bench.notebook import run as run

# Read by these libraries when they are first imported: nothing is reported to anyone, and no code comes from the hub.
for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "0",
    "HF_DATASETS_TRUST_REMOTE_CODE": "0",
}.items():
    os.environ.setdefault(_name, _value)

__all__ = ["Figure", "Report", "load", "run"]


def __getattr__(name: str) -> object:
    if name in __all__:  # on demand, so that importing the package loads nothing
        return getattr(importlib.import_module("align_bench.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
