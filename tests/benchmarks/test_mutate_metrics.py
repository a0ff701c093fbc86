"""What `benchmarks/mutate_metrics.py` makes of mutmut's results."""

from __future__ import annotations

import mutate_metrics
import pytest


def test_guards_are_told_from_formulas() -> None:
    assert mutate_metrics.is_guard("-    zip(a, b, strict=True)\n+    zip(a, b, )")
    assert mutate_metrics.is_guard("-    np.asarray(a, dtype=np.float64)\n+    np.asarray(a, dtype=None)")
    assert not mutate_metrics.is_guard("-    a - b\n+    a + b")
    assert not mutate_metrics.is_guard("")


def test_mutants_are_counted_and_survivors_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutate_metrics, "change", lambda mutant: f"-{mutant} as it was\n+changed")
    monkeypatch.setattr(mutate_metrics, "version", lambda library: "3.8")
    page = mutate_metrics.written({"a.py": {"a1": 1, "a2": 0, "a3": None, "a4": 36}, "b.py": {"b1": 33}, "c.py": {}})
    assert "| a.py | 4 | 1 | 1 | 1 | 0 | 1 |" in page
    assert "| b.py | 1 | 0 | 0 | 0 | 1 | 0 |" in page
    assert "c.py" not in page
    assert "| all | 5 | 1 | 1 | 1 | 1 | 1 |" in page
    assert "`a2`\n\n```diff\n-a2 as it was\n+changed\n```" in page
    assert "`b1`" in page
    assert "`a1`" not in page
    assert "`a4`" not in page
