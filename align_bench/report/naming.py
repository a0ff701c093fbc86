"""What the id of a cell says."""

from __future__ import annotations

import re


def method_of(cell: str) -> str:
    """A cell's id without its seed: what several seeds replicate.

    >>> method_of("rm[learning_rate=1e-05]#2")
    'rm[learning_rate=1e-05]'
    """
    return re.sub(r"#-?\d+$", "", cell)
