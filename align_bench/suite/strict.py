"""The types of a suite's values: nothing is taken for something else, such as a text or `true` for a number."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

MOST_LETTERS = 4096  # of a text
MOST_SEED = 2**32 - 1  # the largest seed that every library takes
MOST_WHOLE = 2**53  # whole numbers beyond it are not exact in reports


class FromEnvironment(str):
    """A text that environment variables have filled in, which may stand for a number."""

    __slots__ = ()


def _plain_number(value: object) -> object:
    """A number of a suite is written as a number; text, true and bytes are none."""
    if isinstance(value, FromEnvironment):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a valid number")
    if isinstance(value, int) and abs(value) > MOST_WHOLE:
        raise ValueError(f"expected a number of at most {MOST_WHOLE:,}")
    return value


def _plain_truth(value: object) -> object:
    if isinstance(value, FromEnvironment):
        return str(value)
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _plain_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("expected text; put it into quotes if it looks like something else")
    if len(value) > MOST_LETTERS:
        raise ValueError(f"expected at most {MOST_LETTERS:,} characters, got {len(value):,}")
    if "\0" in value:
        raise ValueError("expected text without a null character")
    return str(value)


Whole = Annotated[int, BeforeValidator(_plain_number)]
Number = Annotated[float, BeforeValidator(_plain_number)]
Truth = Annotated[bool, BeforeValidator(_plain_truth)]
Text = Annotated[str, BeforeValidator(_plain_text)]
Seed = Annotated[Whole, Field(ge=0, le=MOST_SEED)]
