"""Adapters added to the weights of their base, in fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from align_bench.errors import ModelError
from align_bench.models.adapters import read_adapter
from align_bench.models.load import load_adapter
from align_bench.models.quiet import clear_errors

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.models.base import Base


def merged(base: Base, loader: Any, **options: Any) -> Any:
    """The whole model, in fp32 on the CPU.

    Args:
        base: the adapter, and the base below it.
        loader: a transformers Auto class.
        options: more arguments of its `from_pretrained`.

    Raises:
        ModelError: the base or the adapter cannot be loaded whole, or the adapter is of a kind that changes no weights.
    """
    adapter, below = read_adapter(base.folder), base.below
    assert below is not None, "an adapter stands on a base"
    gguf = {"gguf_file": below.gguf} if below.gguf else {"use_safetensors": True}
    with clear_errors(below):
        model = loader.from_pretrained(below.folder, trust_remote_code=False, dtype=torch.float32, **gguf, **options)
    size = adapter.vocabulary
    if size is not None and size != model.get_input_embeddings().weight.shape[0]:  # tokens were added before training
        model.resize_token_embeddings(size, mean_resizing=False)
    adapted = load_adapter(model, adapter.folder)
    if not hasattr(adapted, "merge_and_unload"):
        raise ModelError(
            f"{adapter.folder}: an adapter of type {type(adapted.active_peft_config).__name__} cannot be added to the "
            "weights of its base",
            fix="use a LoRA adapter",
        )
    return adapted.merge_and_unload(safe_merge=True)


def write_whole(base: Base, folder: Path) -> None:
    """Write a policy's adapter as a whole model, with its tokenizer, or with its base's where it brings none.

    Args:
        base: the adapter, and the base below it.
        folder: where to write.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, source = merged(base, AutoModelForCausalLM), base.texts
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    with clear_errors(source):
        gguf = {"gguf_file": source.gguf} if source.gguf else {}
        AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, **gguf).save_pretrained(folder)
