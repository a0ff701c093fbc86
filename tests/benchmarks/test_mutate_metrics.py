"""What `benchmarks/mutate_metrics.py` makes of mutmut's results."""

from __future__ import annotations

from pathlib import Path

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
    found: dict[str, dict[str, int | None]] = {
        "a.py": {"a1": 1, "a2": 0, "a3": None, "a4": 36},
        "b.py": {"b1": 33},
        "c.py": {},
    }
    page = mutate_metrics.written(found, "")
    assert "| a.py | 4 | 1 | 1 | 1 | 0 | 1 |" in page
    assert "| b.py | 1 | 0 | 0 | 0 | 1 | 0 |" in page
    assert "c.py" not in page
    assert "| all | 5 | 1 | 1 | 1 | 1 | 1 |" in page
    assert "`a2`\n\n```diff\n-a2 as it was\n+changed\n```" in page
    assert "`b1`" in page
    assert "`a1`" not in page
    assert "`a4`" not in page
    assert "Judged" not in page


def test_what_a_person_judged_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mutate_metrics, "change", lambda mutant: f"-{mutant} as it was\n+changed")
    monkeypatch.setattr(mutate_metrics, "version", lambda library: "3.8")
    monkeypatch.setattr(mutate_metrics, "MUTANTS", tmp_path)
    (tmp_path / "a.py.meta").write_text('{"exit_code_by_key": {"a1": 0}}', encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["mutate_metrics.py", str(tmp_path / "page.md")])
    page = tmp_path / "page.md"
    page.write_text("old counts\n\n## Judged\n\nEquivalent.\n\n## What survived\n\nold\n", encoding="utf-8")
    mutate_metrics.main()
    text = page.read_text(encoding="utf-8")
    assert text.count("## Judged\n\nEquivalent.\n\n## What survived") == 1
    assert "old" not in text.replace("as it was", "")
