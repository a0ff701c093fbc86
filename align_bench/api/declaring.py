"""What a plugin may hand over in a declaration: checked where it is given, and refused as a plugin's mistake."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from align_bench.errors import PluginError

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

MOST_LETTERS = 2000  # of a text that a plugin declares: a citation, a phrase, a default
MOST_NAME_LETTERS = 100  # of a method's or a parameter's name
MOST_WHOLE = 2**63 - 1  # of whole numbers, as tables store them

# What a hyper-parameter, or a setting, was called once → what it is called.
RENAMED = {"no_end_penalty": "missing_eos_penalty", "kl_weight": "kl_coef"}


def is_number(value: object) -> bool:
    """Whether a value is a plain int or float that is finite as a float; a bool or a numpy number is not."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def in_short(value: object) -> str:
    """A value as a message shows it, cut where it is long; a number of thousands of digits has no text at all."""
    try:
        text = repr(value)
    except Exception:  # a plugin's own class may raise anything
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 100 else f"{text[:100]}…"


def checked_text(where: str, what: str, value: object) -> str:
    """A text that a plugin declares.

    Raises:
        PluginError: when it is none, or too long.
    """
    if not isinstance(value, str):
        raise PluginError(f"{where}: {what}={in_short(value)}, expected text")
    if len(value) > MOST_LETTERS:
        raise PluginError(f"{where}: {what} has {len(value):,} characters, expected at most {MOST_LETTERS:,}")
    return value


def checked_name(where: str, name: str) -> str:
    """The name of a method or of a parameter.

    Raises:
        PluginError: when it is too long for the name of a column or file.
    """
    if len(name) > MOST_NAME_LETTERS:
        raise PluginError(
            f"{where}: the name {name[:30]}… has {len(name):,} letters, expected at most {MOST_NAME_LETTERS}",
            fix="choose a shorter one",
        )
    return name


def checked_function(where: str, what: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        PluginError: when it cannot.
    """
    if not callable(value):
        raise PluginError(f"{where}: {what}={in_short(value)}, expected a function")


def declaring(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments stand in a plugin: one that is missing or unknown is the plugin's mistake."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            raise _refusal(function.__name__, error, kwargs) from error

    return checked


def declared_record(kind: C) -> C:
    """A record whose values stand in a plugin: a field that is missing or unknown is the plugin's mistake."""
    make = kind.__init__  # type: ignore[misc]

    @functools.wraps(make)
    def checked(self: object, *args: object, **kwargs: object) -> None:
        try:
            make(self, *args, **kwargs)
        except TypeError as error:
            raise _refusal(kind.__name__, error, kwargs) from error

    kind.__init__ = checked  # type: ignore[misc]
    return kind


def _refusal(name: str, error: TypeError, given: dict[str, object]) -> PluginError:
    said = str(error).replace(f"{name}.__init__()", f"{name}(…)").replace(f"{name}()", f"{name}(…)")
    renamed = [f"write {RENAMED[each]} in place of {each}" for each in given if each in RENAMED]
    return PluginError(f"{name}: {said}", fix=", ".join(renamed) or None)
