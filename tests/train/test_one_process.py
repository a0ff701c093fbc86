"""A training that something else starts as one of several processes refuses, and says how several are used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align_bench.errors import ModelError
from align_bench.train import recipe, steps


@pytest.mark.parametrize("way", ["loss", "recipe"])
def test_accelerate_launch_is_refused_and_other_ways_are_named(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "Accelerator", lambda **_: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(recipe, "PartialState", lambda: SimpleNamespace(num_processes=2))
    nothing: Any = None
    with pytest.raises(ModelError, match=r"one of several processes|trains in one process") as told:
        steps.one_process() if way == "loss" else recipe.train_by_recipe(nothing, nothing, nothing, Path())
    assert "--jobs auto" in str(told.value.fix)
    assert ("train.processes" in str(told.value.fix)) == (way == "loss")
