"""An adapter as a start: copied, trained on, and held against what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align_bench.errors import ModelError
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer, save_adapter, without_adapter
from align_bench.models.precision import Precision
from align_bench.models.start import as_reference, begin_with
from align_bench.suite.models import Lora

IDS = torch.tensor([[5, 6, 7, 8, 9, 30, 31]])


@pytest.fixture(scope="module")
def frozen(base_folder: Path) -> Any:
    return load_policy(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))


@pytest.fixture(scope="module")
def stored(frozen: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that matters."""
    folder = tmp_path_factory.mktemp("stored")
    model = add_adapter(frozen, Lora(r=4, alpha=8), seed=1)
    moved(model, 2)
    save_adapter(model, folder)
    without_adapter(model)
    return folder


def moved(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(IDS).logits


def test_it_begins_where_the_stored_one_is_and_is_its_reference_from_then_on(frozen: Any, stored: Path) -> None:
    weights = (stored / "adapter_model.safetensors").read_bytes()
    model = add_adapter(frozen, Lora(r=4, alpha=8), seed=0)
    base = logits(model)  # a fresh adapter changes nothing
    begin_with(model, stored)
    start = logits(model)
    assert not torch.allclose(start, base, atol=0.1)
    moved(model, 3)
    own = logits(model)
    with as_reference(model, stored):
        assert torch.equal(logits(model), start)
    with as_reference(model, None):
        assert torch.allclose(logits(model), base, atol=1e-6)
    assert torch.equal(logits(model), own)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if ".lora_" in name)
    with pytest.raises(ZeroDivisionError), as_reference(model, stored):
        _ = 1 / 0
    assert torch.equal(logits(model), own)
    assert (stored / "adapter_model.safetensors").read_bytes() == weights
    without_adapter(model)


def test_what_is_saved_stands_on_the_base_alone(frozen: Any, stored: Path, tmp_path: Path) -> None:
    model = add_adapter(frozen, Lora(r=4, alpha=8), seed=0)
    begin_with(model, stored)
    save_adapter(model, tmp_path)
    without_adapter(model)
    own, given = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, stored))
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], given[name]) for name in own)


def test_a_reward_model_gets_the_factors_and_keeps_its_head(base_folder: Path, stored: Path, tmp_path: Path) -> None:
    scorer = load_scorer(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"), seed=5)
    head = scorer.score.weight.clone()
    model = add_adapter(scorer, Lora(r=4, alpha=8), seed=0)
    begin_with(model, stored)
    save_adapter(model, tmp_path)
    own, given = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, stored))
    assert own.keys() - given.keys() == {"base_model.model.score.weight"}
    assert all(torch.equal(own[name], given[name]) for name in given)
    assert torch.equal(own["base_model.model.score.weight"], head)


def test_another_rank_is_refused(frozen: Any, stored: Path) -> None:
    model = add_adapter(frozen, Lora(r=2, alpha=8), seed=0)
    with pytest.raises(ModelError, match=r"of shape \(4, .*\), expected \(2, .*\), as lora of the suite has it"):
        begin_with(model, stored)
    without_adapter(model)
