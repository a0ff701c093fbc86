"""Load a base's tokenizer; apart from its model, since a table of tokens depends on nothing else."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from align_bench.errors import ModelError
from align_bench.models.quiet import clear_errors
from align_bench.records import TemplateInputs

if TYPE_CHECKING:
    from align_bench.models.base import Base

# Of strftime: those of a date, and those of a time, which is midnight's.
_DIRECTIVES = ["-d", "-m", "-y", "-j", "-H", "-I", "-M", "-S", *"aAbBcdDeFgGhHIjmMnpRSTuUVwWxXyYzZ"]
_NO_INPUTS = TemplateInputs()


def load_tokenizer(base: Base, inputs: TemplateInputs = _NO_INPUTS) -> Any:
    """The base's own tokenizer, with a pad token (which is never scored: masks decide, not ids).

    Args:
        base: the model on disk.
        inputs: what its chat template reads beside the turns, whoever applies it.
    """
    from transformers import AutoTokenizer

    with clear_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(
            base.folder, trust_remote_code=False, **({"gguf_file": base.gguf} if base.gguf else {})
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"base {base.name!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return with_inputs(tokenizer, inputs)


def with_inputs(tokenizer: Any, inputs: TemplateInputs) -> Any:
    """The tokenizer, whose chat template reads these inputs wherever it is applied, by recipes of others too."""
    if inputs.date is not None and tokenizer.chat_template:
        clock, known = _clock(datetime.fromisoformat(inputs.date)), tokenizer.chat_template
        named = isinstance(known, dict)
        tokenizer.chat_template = {name: clock + text for name, text in known.items()} if named else clock + known
    if inputs.kwargs:
        tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, **inputs.kwargs)
    return tokenizer


def _clock(day: datetime) -> str:
    """A `strftime_now` for templates, in their language: transformers gives them the clock's, and takes no other."""
    written = "".join(f".replace('%{one}', {day.strftime(f'%{one}')!r})" for one in _DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{written} -}}}}{{%- endmacro -%}}{{{{ '' }}}}"
