"""Names that a suite reserves, in a module that needs no pydantic: whoever prints a report reads them too."""

from __future__ import annotations

BASE_CELL = "base"
JUDGE_CELL = "judge"
GOLD = "gold"  # the programmatic judge, where the data knows its right answers
