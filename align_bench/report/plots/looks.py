"""Colours and dashes.

Colours are written out here and become variables of the page (`page.css`), so that one drawing suits light and dark.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

INK, MUTED, GRID = "#1c1e21", "#5f6368", "#d7dbe0"
# Okabe and Ito's palette without its yellow, which white paper swallows: told apart by colour-blind readers too.
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")
# Colour → its variable in the page.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{hue: f"hue-{place}" for place, hue in enumerate(HUES)}}


@dataclass(frozen=True, slots=True)
class Look:
    """How one cell or group is drawn in every figure."""

    hue: str
    dash: str = "-"


def looks(keys: Sequence[Key], *, plain: Key | None = None) -> dict[Key, Look]:
    """A look for each key, in order; that of `plain` (the base) is ink."""
    others = [key for key in keys if key != plain]
    found = {
        key: Look(HUES[place % len(HUES)], DASHES[place // len(HUES) % len(DASHES)]) for place, key in enumerate(others)
    }
    return found | ({plain: Look(INK)} if plain is not None else {})


def rgb(colour: str) -> tuple[float, float, float]:
    """A colour `#rrggbb` as shares of red, green and blue."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
