"""How many tokens a model can read at once: its positions, as its configuration gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from align_bench.records import Json

# A key's name, the type of its value (4: 32 bits without sign, 10: 64), and the value.
_CONTEXT_LENGTH = re.compile(rb"\.context_length(?:\x04\0\0\0(.{4})|\x0a\0\0\0(.{8}))", re.DOTALL)
_KEYS = ("max_position_embeddings", "n_positions")
# Rotary positions that are stretched by `factor`; other kinds (llama3, longrope) are counted in the limit already.
_STRETCHED = ("linear", "dynamic", "yarn")


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """The number of positions that a model has, learned or rotary.

    Attributes:
        tokens: the longest sequence that it can read.
        source: the key and the value that say so, for messages.
    """

    tokens: int
    source: str


def position_limit(config: Mapping[str, Json]) -> PositionLimit | None:
    """The limit that a model's `config.json` gives.

    `max_position_embeddings` or `n_positions`; rotary positions that are scaled (linear, dynamic, yarn) reach `factor`
    times as far, yarn's from `original_max_position_embeddings`.

    Args:
        config: the configuration, as a mapping.

    Returns:
        None where the model has no such limit, as with ALiBi, or the configuration gives none.
    """
    inner = config.get("text_config")
    config = {**config, **inner} if isinstance(inner, Mapping) else config
    if config.get("alibi"):
        return None
    for key in _KEYS:
        tokens = config.get(key)
        if isinstance(tokens, int) and tokens > 0:
            return _stretched(PositionLimit(tokens, f"{key}: {tokens}"), config)
    return None


def gguf_limit(head: bytes) -> PositionLimit | None:
    """The limit that a GGUF file's metadata gives: `ARCHITECTURE.context_length`, which counts scaled positions.

    Args:
        head: the beginning of the file, with its metadata.
    """
    found = _CONTEXT_LENGTH.search(head)
    if found is None:
        return None
    tokens = int.from_bytes(found[1] or found[2], "little")
    return PositionLimit(tokens, f"context_length: {tokens}") if tokens > 0 else None


def _stretched(limit: PositionLimit, config: Mapping[str, Json]) -> PositionLimit:
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        return limit
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if kind not in _STRETCHED or not isinstance(factor, int | float):
        return limit
    original = scaling.get("original_max_position_embeddings") if kind == "yarn" else None
    tokens = int((original if isinstance(original, int) else limit.tokens) * factor)
    return max(limit, PositionLimit(tokens, f"{limit.source}, {kind} by {factor:g}"), key=lambda one: one.tokens)


def positions_of(model: Any) -> int | None:
    """The longest sequence that a loaded transformers model can read; None without a limit."""
    limit = position_limit(model.config.to_dict())
    return None if limit is None else limit.tokens


def within(limit: int | None, prompt: Sequence[int], answer: Sequence[int]) -> Sequence[int]:
    """What of an answer stands at the model's positions behind its prompt."""
    return answer if limit is None else answer[: limit - len(prompt)]
