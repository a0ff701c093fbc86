"""Records with fewer fields, from those that have all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

R = TypeVar("R")


def narrowed(record: object, kind: Callable[..., R]) -> R:
    """A record of that class, from one that has all of its fields."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every record is a dataclass
    return kind(**{name: getattr(record, name) for name in names})
