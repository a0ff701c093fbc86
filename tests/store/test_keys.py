"""Keys: equal for equal values only, and readable again as addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_bench.store.keys import Address, content_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2, None]}, {"b": [2, None], "a": 1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ([1, "ü"], (1, "ü")),
        (0.1, 0.1000),
    ],
)
def test_key_is_canonical(one: Any, other: Any) -> None:
    assert content_key(one) == content_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"b": 1}),
        ([1, 2], [2, 1]),
        ([1, [2]], [[1], 2]),
        ([12], [1, 2]),
        (None, "null"),
        (None, 0),
        (0.1, 0.1 + 1e-16),
        ("a", "A"),
        (True, "true"),
    ],
)
def test_key_tells_values_apart(one: Any, other: Any) -> None:
    assert content_key(one) != content_key(other)


def test_key_is_twenty_hexadecimal_digits() -> None:
    key = content_key({"a": 1})
    assert len(key) == 20
    assert set(key) <= set("0123456789abcdef")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_key_refuses_what_equals_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_key(value)


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"x", object()])
def test_key_refuses_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(TypeError):
        content_key(value)


def test_address_is_read_again() -> None:
    address = Address("adapter", content_key("a"))
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "adapter", "adapter-", f"-{'0' * 20}", f"a/b-{'0' * 20}", f"a-{'0' * 19}g", "a-0"]
)
def test_other_text_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Address.parse(text)
