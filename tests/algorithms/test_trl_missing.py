"""A trainer that the installed TRL does not have makes its own method n/a, in words, and no other."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest

from align_bench.errors import PluginError
from align_bench.plugins.registry import load_registry

TRAINERS = {
    "trl_rm": ("trl", "Reward"),
    "trl_dpo": ("trl", "DPO"),
    "trl_kto": ("trl", "KTO"),
    "trl_simpo": ("trl.experimental.cpo", "CPO"),
    "trl_orpo": ("trl.experimental.orpo", "ORPO"),
    "trl_rloo": ("trl", "RLOO"),
    "trl_grpo": ("trl", "GRPO"),
}


def test_every_recipe_of_trl_is_looked_at() -> None:
    assert {name for name in load_registry().plugins if name.startswith("trl_")} == set(TRAINERS)


@pytest.mark.parametrize("name", TRAINERS)
def test_installed_trl_has_the_trainer(name: str) -> None:
    load_registry()[name].load()


def take_away(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    """Make the import of a module fail, as where a release has moved it."""
    imported = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == module:
            raise error
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", without)


def test_missing_module_is_told_with_versions_and_stops_that_method_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "trl.experimental.cpo", ModuleNotFoundError("No module named 'trl.experimental.cpo'"))
    registry = load_registry()
    assert not registry.broken
    with pytest.raises(PluginError, match="trl_simpo cannot train here: trl") as caught:
        registry["trl_simpo"].load()
    for said in (importlib.metadata.version("trl"), "trl.experimental.cpo.CPOTrainer", "trl>=1.16,<1.17"):
        assert said in str(caught.value)
    registry["trl_orpo"].load()


def test_missing_trainer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trl = importlib.import_module("trl")
    monkeypatch.delattr(trl, "KTOTrainer", raising=False)
    monkeypatch.setattr(type(trl), "__getattr__", lambda module, name: missing(name))
    with pytest.raises(PluginError, match=r"trl_kto cannot train here: .* gives no trl\.KTOTrainer: no KTO"):
        load_registry()["trl_kto"].load()


def missing(name: str) -> Any:
    raise AttributeError(f"no {name}")


def test_trainer_with_an_order_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trl = importlib.import_module("trl")
    monkeypatch.setattr(trl, "DPOTrainer", type("DPOTrainer", (), {}))
    with pytest.raises(PluginError, match=r"trl\.DPOTrainer of trl .* orders its rows in another way"):
        load_registry()["trl_dpo"].load()


def test_missing_trl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    plugin = load_registry()["trl_dpo"]
    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(PluginError, match=r"trl_dpo cannot train here: trl is not installed; pip install 'trl>=1\.16,"):
        plugin.load()


def test_recipe_says_the_same_when_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "trl.experimental.orpo", ModuleNotFoundError("gone"))
    with pytest.raises(PluginError, match=r"gives no trl\.experimental\.orpo\.ORPOTrainer: gone"):
        load_registry()["trl_orpo"].algorithm.function(None, lambda_=0.1)
