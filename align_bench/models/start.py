"""Adapters that a training starts from: their weights copied into a fresh adapter, and held against it later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor

from align_bench.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

_WEIGHTS = "adapter_model.safetensors"


def begin_with(model: Any, folder: Path) -> None:
    """Give a fresh adapter the weights of a stored one, which stays as it is.

    Args:
        model: a base with a trainable LoRA adapter, changed in place.
        folder: the stored adapter.

    Raises:
        ModelError: the two have other layers or ranks.
    """
    weights = _weights(model, folder)
    for name, parameter in _factors(model).items():
        parameter.data.copy_(weights[name])


@contextmanager
def as_reference(model: Any, folder: Path | None) -> Iterator[None]:
    """Within it, the model is the reference of its training.

    Args:
        model: a base with one LoRA adapter.
        folder: the stored adapter of the reference; None for the model with its adapter off.
    """
    if folder is None:
        with model.disable_adapter():
            yield
        return
    weights, factors = _weights(model, folder), _factors(model)
    own = {name: parameter.data for name, parameter in factors.items()}
    try:
        for name, parameter in factors.items():
            parameter.data = weights[name].to(parameter.device, parameter.dtype)
        yield
    finally:
        for name, parameter in factors.items():
            parameter.data = own[name]


def _factors(model: Any) -> dict[str, Tensor]:
    """The low-rank factors of the adapter that is trained, by their names in peft's files."""
    return {
        name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" in name
    }


def _weights(model: Any, folder: Path) -> Mapping[str, Tensor]:
    """The weights of a stored adapter, held to those of the model's own."""
    weights: Mapping[str, Tensor] = load_file(folder / _WEIGHTS)
    wanted = {name: tuple(parameter.shape) for name, parameter in _factors(model).items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelError(
            f"start_from: {folder}: the adapter has {name} of shape {found.get(name)}, expected {wanted.get(name)}, as "
            "lora of the suite has it",
            fix="set lora.r and lora.target_modules to those of the adapter",
        )
    return weights
