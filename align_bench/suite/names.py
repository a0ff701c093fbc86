"""Names that a suite reserves, in a module that needs no pydantic: whoever prints a report reads them too."""

from __future__ import annotations

import re

BASE_CELL = "base"
JUDGE_CELL = "judge"
RESERVED = re.compile(rf"{BASE_CELL}|{JUDGE_CELL}\d*")  # no method is called so: `judge2` is the second judge
GOLD = "gold"  # the programmatic judge, where the data knows its right answers
TRY_OUT = (
    "This is a try-out (--quick), cut down so that it ends soon: it shows that everything runs, and its numbers say "
    "nothing of the methods."
)
