"""How much memory a run will take at its peak, roughly, from the base's shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.models.micro_batches import training_tokens
from align_bench.models.precision import has_avx512

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.suite.models import Suite

BYTES = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.56}
_COMPUTED = {"float32": 4, "bfloat16": 2}
# Seen with SmolLM2-135M on a CPU (fp32: 2.0 GB in training, 768 tokens per pass) and on an H200 (NF4: 4.5 GB, 5,000).
_KEPT_PER_LAYER = 12  # activations kept for the backward pass, in vectors of the hidden size, per token and layer
_BYTES_PER_PREDICTION = 10  # of logits and their gradient, per token and entry of the vocabulary
_COPIES_OF_CACHE = 2  # keys and values, while they grow
ROOM = 1.25  # of a device's memory, for what torch keeps and does not use
# On a CPU the process's memory is what counts: torch, libraries and rows. What oneDNN's products in bf16 add there was
# seen with the embedded model and with SmolLM2-135M, and is about the same. Without AVX-512 torch does not ask oneDNN.
_PROCESS_BYTES, _BF16_PROCESS_BYTES = 0.65e9, 0.8e9


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak.

    Attributes:
        weights: the frozen base, in memory all the time.
        training: of a step of training, the weights included.
        answering: of writing answers, the weights included.
    """

    weights: float
    training: float
    answering: float


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    hidden: int
    intermediate: int
    cached: int
    vocabulary: int


def expected_memory(
    suite: Suite, base: Base, parameters: int, precision: Precision, tokens: tuple[int, int], *, scores: bool = False
) -> Memory | None:
    """The peak memory of a suite's training and of its answers.

    Args:
        suite: its settings.
        base, parameters: the base, and how many weights it has.
        precision: how it is stored and computed.
        tokens: of a batch of training, and of a prompt (its 95th percentile).
        scores: whether a reward model is trained, which predicts no tokens.

    Returns:
        None for a base whose shape is not in a `config.json`, such as a GGUF file.
    """
    if (shape := _shape(base)) is None:
        return None
    per_value = _COMPUTED[precision.compute]
    embedding = shape.vocabulary * shape.hidden
    inner = max(0, parameters - embedding)
    weights = inner * BYTES[precision.storage] + embedding * (4 if precision.storage == "fp32" else 2)
    on_cpu = precision.device == "cpu"
    limit = training_tokens(suite.train.micro_batch_tokens, precision.device)
    passed = min(max(limit, suite.train.max_length), max(tokens[0], 1))
    predicted = 0 if scores else shape.vocabulary * _BYTES_PER_PREDICTION
    vectors = shape.layers * _KEPT_PER_LAYER
    if suite.train.activation_checkpointing:  # the input of each layer, and what the one keeps that is computed again
        vectors = shape.layers + _KEPT_PER_LAYER
    kept = vectors * shape.hidden * per_value + predicted
    adapter_rows = 9 * shape.hidden + 2 * shape.cached + 3 * shape.intermediate
    adapters = 16 * suite.lora.r * shape.layers * adapter_rows  # weights, gradients and Adam's two moments
    answer = tokens[1] + suite.generate.max_new_tokens
    cache = 2 * shape.layers * shape.cached * per_value * answer * suite.generate.batch_size * _COPIES_OF_CACHE
    logits = suite.generate.batch_size * shape.vocabulary * 4
    by_library = precision.compute == "bfloat16" and has_avx512() is not False
    process = _PROCESS_BYTES + (_BF16_PROCESS_BYTES if by_library else 0.0)
    fixed = weights + (process if on_cpu else 0.0)
    return Memory(weights, fixed + adapters + passed * kept, fixed + cache + logits)


def _shape(base: Base) -> _Shape | None:
    if base.gguf:
        return None
    try:
        config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        width = config.get("head_dim") or hidden // heads
        return _Shape(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            cached=(config.get("num_key_value_heads") or heads) * width,
            vocabulary=config["vocab_size"],
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ZeroDivisionError):
        return None
