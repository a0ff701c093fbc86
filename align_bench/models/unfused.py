"""The plain computation, to which every shortcut is held: layers as transformers and peft wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNFUSED: ContextVar[bool] = ContextVar("unfused", default=False)


@contextmanager
def unfused() -> Iterator[None]:
    """Within it, no layer takes a shortcut."""
    token = _UNFUSED.set(True)
    try:
        yield
    finally:
        _UNFUSED.reset(token)


def is_unfused() -> bool:
    """Whether `unfused` is in force."""
    return _UNFUSED.get()
