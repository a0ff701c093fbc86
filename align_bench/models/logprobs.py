"""Response log-probabilities and scalar scores of token rows. Masks decide what counts, never a token's id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Positions whose logits exist at once: 1,024 × 150,000 fp32 logits are 0.6 GB.
_HEAD_CHUNK = 1024
_PLAIN_HEADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


def response_logps(model: Any, rows: Sequences) -> Tensor:
    """`s = Σ_t log π(y_t | x, y_<t)` of each row's response.

    The vocabulary is projected only at response positions, in chunks that are computed again in the backward pass, so
    that no tensor of shape [rows, time, vocabulary] ever exists.

    Args:
        model: a causal language model, plain or with an adapter.
        rows: (prompt ids, response ids) pairs; prompt and response both non-empty.

    Returns:
        Sums over response tokens, nats, float32 tensor of shape [rows].
    """
    inner = _inner(model)
    inputs, mask = _padded([[*prompt, *response][:-1] for prompt, response in rows], inner.device)
    # The hidden state at position t predicts token t + 1, so a response of n tokens after p is predicted from p - 1 on.
    row_index = torch.tensor([row for row, (_, response) in enumerate(rows) for _ in response], device=inner.device)
    position = torch.tensor(
        [len(prompt) - 1 + step for prompt, response in rows for step in range(len(response))], device=inner.device
    )
    target = torch.tensor([token for _, response in rows for token in response], device=inner.device)
    if not _head_is_plain(inner):
        logits = inner(input_ids=inputs, attention_mask=mask, use_cache=False).logits[row_index, position]
        token_logps = _log_softmax_at(logits, target)
    else:
        hidden = inner.get_decoder()(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
        token_logps = _head_logps(inner.get_output_embeddings(), hidden[row_index, position], target)
    return torch.zeros(len(rows), device=inner.device).index_add(0, row_index, token_logps)


def scores(model: Any, rows: Sequences) -> Tensor:
    """`r`: the scalar head at each row's last token, found by the mask.

    Args:
        model: a sequence-classification model with one label, plain or with an adapter.
        rows: (prompt ids, response ids) pairs.

    Returns:
        float32 tensor of shape [rows].
    """
    inner = _inner(model)
    inputs, mask = _padded([[*prompt, *response] for prompt, response in rows], inner.device)
    decoder = getattr(inner, inner.base_model_prefix)
    hidden = decoder(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(rows), device=inner.device), mask.sum(1) - 1]
    return _score_head(inner, last).squeeze(-1).float()


def _score_head(inner: Any, hidden: Tensor) -> Tensor:
    weight = next(inner.score.parameters())
    result: Tensor = inner.score(hidden.to(weight.dtype))
    return result


def _inner(model: Any) -> Any:
    """The transformers model, with adapter layers in place, under peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask, both of shape [rows, longest]; the pad id is 0, which the mask hides."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def _head_is_plain(inner: Any) -> bool:
    """Whether the model's logits are its head's output and nothing more, found by a look at three tokens.

    Some are soft-capped (Gemma 2) or scaled (Cohere, Granite, Falcon-H1) after the head; those take the model's own
    forward.
    """
    if inner not in _PLAIN_HEADS:
        training = inner.training
        inner.eval()
        ids = torch.tensor([[0, 1, 2]], device=inner.device)
        with torch.no_grad():
            logits = inner(input_ids=ids, use_cache=False).logits
            hidden = inner.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            plain = inner.get_output_embeddings()(hidden)
        inner.train(training)
        tolerance = 1e-2 if logits.dtype in (torch.bfloat16, torch.float16) else 1e-4
        _PLAIN_HEADS[inner] = torch.allclose(logits.float(), plain.float(), rtol=tolerance, atol=tolerance)
    return _PLAIN_HEADS[inner]


def _head_logps(head: Any, hidden: Tensor, target: Tensor) -> Tensor:
    chunks = [
        checkpoint(
            _chunk_logps,
            head,
            hidden[start : start + _HEAD_CHUNK],
            target[start : start + _HEAD_CHUNK],
            use_reentrant=False,
        )
        if torch.is_grad_enabled()
        else _chunk_logps(head, hidden[start : start + _HEAD_CHUNK], target[start : start + _HEAD_CHUNK])
        for start in range(0, len(target), _HEAD_CHUNK)
    ]
    return torch.cat(chunks)


def _chunk_logps(head: Any, hidden: Tensor, target: Tensor) -> Tensor:
    return _log_softmax_at(head(hidden), target)


def _log_softmax_at(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(1, target[:, None]).squeeze(1) - logits.logsumexp(1)
