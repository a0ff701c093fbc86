"""Names that a suite reserves, in a module that needs no pydantic: whoever prints a report reads them too."""

from __future__ import annotations

import re

BASE_CELL = "base"
JUDGE_CELL = "judge"
RESERVED = re.compile(rf"{BASE_CELL}|{JUDGE_CELL}\d*")  # no method is called so: `judge2` is the second judge
GOLD = "gold"  # the programmatic judge, where the data knows its right answers
TRIED_OUT = "-quick"  # what the name of a try-out ends with
TRY_OUT = (
    "This is a try-out (--quick), cut down so that it ends soon: it shows that everything runs, and its numbers say "
    "nothing of the methods."
)


class PlacedText(str):
    """A path as the suite has it, which cells are named after, wherever the command runs that reads it.

    Attributes:
        place: where it is.
    """

    place: str

    def __new__(cls, text: str, place: str) -> PlacedText:
        """The text, and where it is."""
        found = super().__new__(cls, text)
        found.place = place
        return found

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # str has one argument
        """For a worker process."""
        return str(self), self.place
