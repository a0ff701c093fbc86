"""Labels: readable, and safe as a part of a folder's name wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from align_bench.store.labels import safe_label


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("dpo", "dpo"),
        ("dpo#1", "dpo-1"),
        ("rm[learning_rate=1e-05]#1", "rm-learning_rate=1e-05-1"),
        ("dpo[beta=0.1,epochs=2]", "dpo-beta=0.1,epochs=2"),
        ("reward: rm", "reward-rm"),
        ("größe", "größe"),
        ("gro\u0308ße", "größe"),  # composed, as file systems differ
        ("模型#2", "模型-2"),
        ("हिन्दी", "हिन्दी"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("-rf *", "rf"),
        ("a\0b\nc\\d:e", "a-b-c-d-e"),
        ("\ud800", "unnamed"),
        ("con", "con"),  # a key follows
        ("x" * 100, "x" * 60),
    ],
)
def test_label_stays_readable(label: str, expected: str) -> None:
    assert safe_label(label) == expected


@settings(deadline=None)
@given(st.text())
@example("𠀀" * 70)
@example("e\u0301" * 70)
@example("<>:\"/\\|?*'`$&;~ .")
def test_any_label_is_safe(tmp_path_factory: pytest.TempPathFactory, label: str) -> None:
    safe = safe_label(label)
    assert 0 < len(safe) <= 60
    assert not set(safe) & set("<>:\"/\\|?*'`$&;~#[]{}() \0\n\r\t")
    assert safe[0] not in "-."
    folder = tmp_path_factory.getbasetemp() / f"{safe}-{'0' * 20}"
    folder.mkdir(exist_ok=True)
    assert folder.parent == Path(tmp_path_factory.getbasetemp())
    folder.rmdir()
