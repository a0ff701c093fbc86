"""Libraries are imported at once, and searches for garbage do not look through them."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest

from align_bench.runner.libraries import import_libraries


@pytest.mark.parametrize("there", [False, True])
def test_what_was_imported_is_set_aside_unless_the_caller_has_torch(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: done.append("set aside"))
    monkeypatch.setattr(importlib, "import_module", done.append)
    if not there:
        monkeypatch.delitem(sys.modules, "torch")
    import_libraries()
    assert done == ["torch", "transformers.modeling_utils", "peft", *([] if there else ["set aside"])]
    assert gc.isenabled()
