"""Activation checkpointing: of a layer only its input is kept for the backward pass, which computes the rest again."""

from __future__ import annotations

from typing import Any

from align_bench.errors import ModelError


def checkpoint_activations(model: Any) -> None:
    """Let the layers of a model that trains compute again in the backward pass, with the dropout of the first time.

    Memory then holds the input of each layer, and what one layer keeps; a step takes about a third more operations,
    or half as many again where the weights are frozen. Gradients are the same.

    Args:
        model: a transformers model, with or without an adapter, changed in place.

    Raises:
        ModelError: an architecture that cannot.
    """
    inner = _inner(model)
    try:
        # What releases of transformers before 5.24 call it comes second.
        for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
            if hasattr(inner, name):
                getattr(inner, name)({"use_reentrant": False})
                return
    except ValueError:
        pass
    raise ModelError(
        f"{type(inner).__name__} cannot compute its layers again (train.activation_checkpointing)",
        fix="leave the key out, and lower train.micro_batch_tokens or train.max_length where memory runs out",
    )


def keep_activations(model: Any) -> None:
    """Undo `checkpoint_activations`; of a model that it was not asked of, nothing changes."""
    for module in _inner(model).modules():
        if getattr(module, "gradient_checkpointing", False):
            module.gradient_checkpointing = False


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
