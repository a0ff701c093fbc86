"""Fused LoRA layers: peft's own numbers and gradients, in every state that peft's layer knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_adapter, load_policy, save_adapter
from align_bench.models.logprobs import response_logps
from align_bench.models.lora import Affine, FusedLinear, factors, steady
from align_bench.models.precision import Compute, Precision
from align_bench.models.unfused import unfused
from align_bench.suite.models import Lora

ROWS = [((5, 6, 7), (8, 9)), ((5, 6, 7), (10,)), ((11, 12), (13, 14, 15))]


def adapted(base_folder: Path, storage: str = "fp32", **lora: Any) -> Any:
    """A model whose adapters do something."""
    compute: Compute = "float32" if storage == "fp32" else "bfloat16"
    base = load_policy(find_base(str(base_folder)), Precision(storage, compute, "cpu"))
    model = add_adapter(base, Lora(**{"r": 4, "alpha": 12, **lora}), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    return model


def values_and_gradient(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    values = response_logps(model, ROWS)
    (values * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
    model.zero_grad()
    return values.detach(), gradient


def fused_layers(model: Any) -> int:
    return sum(type(module) is FusedLinear for module in model.modules())


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05), ("nf4", 0.05)])
def test_equals_pefts_own_layer(base_folder: Path, storage: str, tolerance: float) -> None:
    model = adapted(base_folder, storage)
    assert fused_layers(model) == 14
    values, gradient = values_and_gradient(model)
    with unfused():
        expected, slope = values_and_gradient(model)
    assert (values - expected).norm() < tolerance * expected.norm()
    assert slope.norm() > 0
    assert (gradient - slope).norm() < tolerance * slope.norm()
    assert all(value.dtype == torch.float32 for value in model.parameters() if value.requires_grad)


def test_the_reference_is_the_base_alone(base_folder: Path) -> None:
    model = adapted(base_folder)
    base = load_policy(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(response_logps(model, ROWS), response_logps(base, ROWS))
    with torch.no_grad():
        assert not torch.allclose(response_logps(model, ROWS), response_logps(base, ROWS), atol=1e-2)


def test_dropout_is_pefts(base_folder: Path) -> None:
    model = adapted(base_folder, dropout=0.5).train()
    values, gradient = values_and_gradient(model)
    with unfused():
        expected, slope = values_and_gradient(model)
    assert torch.equal(values, expected)
    assert torch.equal(gradient, slope)


def test_merged_weights_hold_the_update(base_folder: Path) -> None:
    model = adapted(base_folder).eval()
    with torch.no_grad():
        before = response_logps(model, ROWS)
        model.merge_adapter()
        torch.testing.assert_close(response_logps(model, ROWS), before)


def test_a_saved_adapter_has_the_same_bytes_in_every_process(base_folder: Path, tmp_path: Path) -> None:
    """peft holds the names of modules in a set, whose order hangs on the process."""
    save_adapter(adapted(base_folder), tmp_path)
    names = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert len(names) > 6
    assert names == sorted(names)


def test_a_saved_adapter_loads_fused_and_in_plain_peft(base_folder: Path, tmp_path: Path) -> None:
    model = adapted(base_folder).eval()
    save_adapter(model, tmp_path)
    base = find_base(str(base_folder))
    precision = Precision("fp32", "float32", "cpu")
    loaded = load_adapter(load_policy(base, precision), tmp_path)
    plain = PeftModel.from_pretrained(load_policy(base, precision), tmp_path).eval()
    assert (fused_layers(loaded), fused_layers(plain)) == (14, 0)
    with torch.no_grad():
        expected = response_logps(model, ROWS)
        torch.testing.assert_close(response_logps(loaded, ROWS), expected)
        torch.testing.assert_close(response_logps(plain, ROWS), expected)


def test_factors_are_cast_once_while_nothing_changes() -> None:
    low, high = torch.randn(2, 4), torch.randn(3, 2)
    wide = Affine(torch.randn(3, 4, dtype=torch.bfloat16), None, low, high, 0.5)
    plain = [Affine(torch.randn(width, width, dtype=torch.bfloat16), None) for width in (4, 5)]
    with steady():
        first = factors([wide])
        assert factors([wide]) is first
        assert [factors([one]).low.shape[1] for one in plain] == [4, 5]
        with torch.no_grad():
            high += 1
    torch.testing.assert_close(factors([wide]).high[0], high.bfloat16())
    assert not torch.equal(first.high[0], high.bfloat16())
