"""Load a base's tokenizer; apart from its model, since a table of tokens depends on nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from align_bench.errors import ModelError
from align_bench.models.quiet import clear_errors

if TYPE_CHECKING:
    from align_bench.models.base import Base


def load_tokenizer(base: Base) -> Any:
    """The base's own tokenizer, with a pad token (which is never scored: masks decide, not ids)."""
    from transformers import AutoTokenizer

    with clear_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(
            base.folder, trust_remote_code=False, **({"gguf_file": base.gguf} if base.gguf else {})
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"base {base.name!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
