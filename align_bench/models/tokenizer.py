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
_TOKENIZER = ("tokenizer", "vocab", "spiece", "merges", "tekken")  # a file of one begins with it
_NO_INPUTS = TemplateInputs()


def load_tokenizer(base: Base, inputs: TemplateInputs = _NO_INPUTS) -> Any:
    """The base's own tokenizer, with an end token and a pad token (which is never scored: masks decide, not ids).

    Args:
        base: the model on disk.
        inputs: what its chat template reads beside the turns, whoever applies it.

    Raises:
        ModelError: it cannot be read, or neither it nor the model's configuration names an end token.
    """
    from transformers import AutoTokenizer

    source = base.texts
    files = [file.name for file in source.folder.iterdir()]
    if not source.gguf and not any(name.startswith(_TOKENIZER) or name.endswith(".model") for name in files):
        raise ModelError(
            f"{source.role} {source.name!r}: {source.folder} holds no tokenizer, expected tokenizer.json or its like",
            fix="save the tokenizer into the model's folder: tokenizer.save_pretrained(folder)",
        )
    with clear_errors(source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, trust_remote_code=False, **({"gguf_file": source.gguf} if source.gguf else {})
        )
    set_ends(tokenizer, base)
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


def set_ends(tokenizer: Any, base: Base) -> None:
    """Give a tokenizer an end token, if only the model's configuration names one, and a pad token that can be read.

    Raises:
        ModelError: neither names an end token.
    """
    if tokenizer.eos_token_id is None:
        end = base.end_token
        if end is None or (token := tokenizer.convert_ids_to_tokens(end)) is None:
            raise ModelError(
                f"base {base.name!r}: neither its tokenizer nor its config.json names an end-of-sequence token",
                fix="set eos_token in the model folder's tokenizer_config.json",
            )
        tokenizer.eos_token = token
    size = base.vocabulary
    if tokenizer.pad_token_id is None or (size is not None and tokenizer.pad_token_id >= size):
        tokenizer.pad_token = tokenizer.eos_token


def check_ids(tokenizer: Any, base: Base, largest: int) -> None:
    """Hold the ids of texts, and of the end token, to the base's input embeddings.

    Ids below may have gaps, and the embeddings more rows than there are tokens.

    Args:
        tokenizer: from `load_tokenizer`.
        base: its base.
        largest: the largest id of the texts.

    Raises:
        ModelError: an id is beyond the embeddings.
    """
    size, largest = base.vocabulary, max(largest, tokenizer.eos_token_id)
    if size is not None and largest >= size:
        raise ModelError(
            f"base {base.name!r}: its tokenizer gives {tokenizer.convert_ids_to_tokens(largest)!r} the id {largest}, "
            f"but the model has {size} input embeddings (vocab_size in its config.json)",
            fix="use the tokenizer that the model was trained with, or give the model embeddings for the added tokens "
            "(resize_token_embeddings) and save it",
        )
