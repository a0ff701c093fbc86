"""Layers that compute again in the backward pass: the same gradients, from less that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config

from align_bench.errors import ModelError
from align_bench.models.activation_checkpointing import checkpoint_activations, keep_activations
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.precision import Precision
from align_bench.suite.models import Lora

FP32 = Precision("fp32", "float32", "cpu")
# Two answers behind each prompt, of lengths that padding has to fill up.
ROWS = [
    (tuple(range(5, 5 + prompt)), tuple(range(9, 9 + answer)))
    for prompt, answers in ((40, (60, 35)), (17, (52, 8)))
    for answer in answers
]


def trained(folder: Path, loader: Any, dropout: float = 0.0) -> Any:
    model = add_adapter(loader(find_base(str(folder)), FP32), Lora(r=4, alpha=8, dropout=dropout), seed=0).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which hides every gradient of A
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model


def gradients(model: Any) -> dict[str, Tensor]:
    """Of a sum over the rows."""
    measure = scores if hasattr(model, "score") else response_logps
    torch.manual_seed(3)
    model.zero_grad()
    measure(model, ROWS).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def counted_gradients(model: Any) -> tuple[dict[str, Tensor], int]:
    """The same, and the bytes that were kept for them."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = gradients(model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return found, sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("loader", [load_policy, load_scorer])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_the_same_from_less_that_is_kept(base_folder: Path, loader: Any, dropout: float) -> None:
    model = trained(base_folder, loader, dropout)
    if dropout:  # masks are drawn for the rows as they lie in memory, which are then padded in both
        for module in model.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = "eager"
    plain, much = counted_gradients(model)
    checkpoint_activations(model)
    again, little = counted_gradients(model)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))
    assert little < 0.6 * much
    with torch.autograd.graph.save_on_cpu(pin_memory=True):  # as a run does where this is not enough
        elsewhere = gradients(model)
    assert all(torch.equal(elsewhere[name], gradient) for name, gradient in again.items())
    keep_activations(model)
    kept, as_before = counted_gradients(model)
    assert all(torch.equal(kept[name], gradient) for name, gradient in plain.items())
    assert as_before == pytest.approx(much, rel=0.1)  # memory that is free again may be counted twice


def test_another_familys_layers_can_as_well() -> None:
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, pad_token_id=0, resid_pdrop=0, embd_pdrop=0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    ids = torch.arange(40).reshape(2, 20)

    def gradient() -> Tensor:
        model.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found: Tensor = model.transformer.h[0].attn.c_attn.weight.grad.clone()
        return found

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradient()
    checkpoint_activations(model)
    assert torch.equal(gradient(), plain)


def test_a_model_that_cannot_is_told() -> None:
    with pytest.raises(ModelError, match="Linear cannot compute its layers again") as caught:
        checkpoint_activations(torch.nn.Linear(1, 1))
    assert "train.micro_batch_tokens" in str(caught.value)
