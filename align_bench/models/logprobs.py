"""Response log-probabilities and scalar scores of token rows. Masks decide what counts, never a token's id."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from align_bench.errors import ModelError, PluginError
from align_bench.models.flops import passes
from align_bench.models.head import head_log_squares, head_logps, log_softmax_at, log_squares
from align_bench.models.layout import inner_of, lay_out
from align_bench.models.transfer import on_device
from align_bench.models.unfused import unfused

if TYPE_CHECKING:
    from align_bench.models.layout import Layout, Sequences

_PLAIN_HEADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_CHECKED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_LOOK = 16, 8  # tokens of a prompt, and of an answer, that the check of a first batch reads


def response_logps(model: Any, rows: Sequences) -> Tensor:
    """`s = Σ_t log π(y_t | x, y_<t)` of each row's response.

    The vocabulary is projected only at response positions, in chunks whose gradient is made at once (or, under a head
    that is trained, computed again in the backward pass), so that no tensor of shape [rows, time, vocabulary] ever
    exists.

    Args:
        model: a causal language model, plain or with an adapter.
        rows: (prompt ids, response ids) pairs; prompt and response both non-empty.

    Returns:
        Sums over response tokens, nats, float32 tensor of shape [rows].
    """
    found = _predict(model, rows)
    return torch.zeros(len(rows), device=found.logps.device).index_add(0, found.sequence, found.logps)


def token_logps(model: Any, rows: Sequences, value_head: Any = None) -> tuple[Tensor, Tensor | None]:
    """`log π(y_t | x, y_<t)` of each response token, and what a value head makes of the state before it.

    Args:
        model, rows: as in `response_logps`.
        value_head: a module from hidden states to one number, or None.

    Returns:
        Two float32 tensors of shape [rows, longest response], 0 beyond a response's end: nats, and the value head's
        numbers (None without one).
    """
    found = _predict(model, rows)
    shape = len(rows), max(len(response) for _, response in rows)
    places = found.sequence, found.step
    logps = torch.zeros(shape, device=found.logps.device).index_put(places, found.logps)
    if value_head is None:
        return logps, None
    values = value_head(found.hidden.to(next(value_head.parameters()).dtype)).squeeze(-1).float()
    return logps, torch.zeros_like(logps).index_put(places, values)


class ResponseParts(NamedTuple):
    """Of each row's response, float32 tensors of shape [rows].

    Attributes:
        logps: `s`, nats, as of `response_logps`.
        prefix: `s` of its first tokens alone, nats.
        confidence: mean over its tokens of `log π(y_t) − log Σ_v π(v)²`, nats per token, no gradient; None where it was
            not asked for.
    """

    logps: Tensor
    prefix: Tensor
    confidence: Tensor | None


def response_parts(model: Any, rows: Sequences, prefixes: Sequence[int], *, confidence: bool) -> ResponseParts:
    """`s` of each row's response, of its first tokens, and how confident the model is in it, in one pass.

    Args:
        model, rows: as in `response_logps`.
        prefixes: for each row, how many tokens of the response are its first ones.
        confidence: whether to compute that, which projects to the vocabulary once more.
    """
    found = _predict(model, rows, squares=confidence)
    zeros = torch.zeros(len(rows), device=found.logps.device)
    first = found.step < on_device(prefixes, zeros.device)[found.sequence]
    logps = zeros.index_add(0, found.sequence, found.logps)
    prefix = zeros.index_add(0, found.sequence, torch.where(first, found.logps, 0.0))
    if found.squares is None:
        return ResponseParts(logps, prefix, None)
    tokens = on_device([len(response) for _, response in rows], zeros.device)
    sums = zeros.index_add(0, found.sequence, found.logps.detach() - found.squares)
    return ResponseParts(logps, prefix, sums / tokens)


class _Predicted(NamedTuple):
    """Response tokens of all rows in one line: row number, place in the response, log-probability, hidden state.

    `squares` is `log Σ_v π(v)²` where each token is predicted, no gradient, where it was asked for.
    """

    sequence: Tensor
    step: Tensor
    logps: Tensor
    hidden: Tensor
    squares: Tensor | None = None


def _predict(model: Any, rows: Sequences, *, squares: bool = False) -> _Predicted:
    inner = inner_of(model)
    if model not in _CHECKED:
        _check(inner, rows)
        _CHECKED[model] = True
    passes(inner, _read(rows), predictions=sum(len(response) for _, response in rows))
    return _predicted(inner, rows, squares=squares)


def _read(rows: Sequences) -> Sequences:
    """What the model reads of them: the last token predicts nothing."""
    return [(prompt, response[:-1]) for prompt, response in rows]


def _predicted(inner: Any, rows: Sequences, *, squares: bool = False) -> _Predicted:
    layout = lay_out(inner, _read(rows))
    answers = [response for _, response in rows]
    lengths = [len(answer) for answer in answers]
    # A token is predicted by the hidden state before it.
    columns = [own[len(own) - length :] for own, length in zip(layout.columns, lengths, strict=True)]
    places = (
        np.repeat(np.arange(len(rows)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.repeat(layout.row, lengths),
        np.concatenate(columns),
        np.concatenate([np.asarray(answer, dtype=np.int64) for answer in answers]),
    )
    sequence, step, row, column, target = on_device(np.stack(places), inner.device)
    if _head_is_plain(inner):
        hidden = layout.states(inner, inner.get_decoder())[row, column]
        head = inner.get_output_embeddings()
        found = head_log_squares(head, hidden) if squares else None
        return _Predicted(sequence, step, head_logps(head, hidden, target), hidden, found)
    output = layout.through(inner, inner, output_hidden_states=True)
    logits = output.logits[row, column]
    found = log_squares(logits) if squares else None
    return _Predicted(sequence, step, log_softmax_at(logits, target), output.hidden_states[-1][row, column], found)


def _check(inner: Any, rows: Sequences) -> None:
    """Hold the shortcuts to the model's own forward on short rows of the first batch.

    Raises:
        ModelError: when they differ by more than rounding, so that no number made through them could be trusted.
        PluginError: when the model's own are not finite.
    """
    some = _few(rows)
    with _looking(inner):
        found = _predicted(inner, some).logps
        with unfused():
            expected = torch.cat([_plain_logps(inner, prompt, response) for prompt, response in some])
    _finite(inner, expected, "log-probabilities")
    _agree(
        inner,
        float((found - expected).abs().mean()),
        "log-probabilities with a shared prompt and a chunked head",
        "nats per token",
    )


def _check_states(inner: Any, rows: Sequences) -> None:
    """The same for what a scalar head reads; differences are relative to the states' norm."""
    some = _few(rows)
    decoder = getattr(inner, inner.base_model_prefix)
    with _looking(inner):
        found = _at_ends(*_through(inner, some)).float()
        with unfused():
            ids = [torch.tensor([[*prompt, *response]], device=inner.device) for prompt, response in some]
            alone = [decoder(input_ids=row, use_cache=False).last_hidden_state[:, -1] for row in ids]
    expected = torch.cat(alone).float()
    _finite(inner, expected, "hidden states")
    norm = expected.norm().clamp(min=torch.finfo(torch.float32).tiny)
    _agree(inner, float((found - expected).norm() / norm), "hidden states with a shared prompt", "of their norm")


def _few(rows: Sequences) -> Sequences:
    """Two short rows of one prompt, if there are, else one, with the last tokens of the prompt and the first behind."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, (prompt, _) in enumerate(rows):
        by_prompt.setdefault(tuple(prompt), []).append(index)
    asked, answered = _LOOK
    couples = [
        [(rows[index][0][-asked:], rows[index][1][:answered]) for index in places[:2]] for places in by_prompt.values()
    ]
    return min(couples, key=lambda couple: (-len(couple), sum(len(row[0]) + len(row[1]) for row in couple)))


@contextmanager
def _looking(inner: Any) -> Iterator[None]:
    """Without dropout and gradients."""
    training = inner.training
    inner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        inner.train(training)


def _finite(inner: Any, plain: torch.Tensor, what: str) -> None:
    if not bool(torch.isfinite(plain).all()):
        raise PluginError(
            f"{type(inner).__name__}: its {what} are not finite on rows of the first batch: training diverged",
            fix="lower the learning_rate; if it is the base that overflows, use precision: fp32",
        )


def _agree(inner: Any, apart: float, what: str, unit: str) -> None:
    if not apart <= (1e-3 if inner.dtype == torch.float32 else 0.1):
        name = type(inner).__name__
        raise ModelError(
            f"{name}: {what} differ from the plain ones by {apart:.3g} {unit} on rows of the first batch",
            fix="this architecture is not supported; report it with its config.json",
        )


def _plain_logps(inner: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """Log-probability of each response token by the definition, shape [response]."""
    ids = torch.tensor([[*prompt, *response]], device=inner.device)
    keeps = "logits_to_keep" in inspect.signature(type(inner).forward).parameters
    wanted = {"logits_to_keep": len(response) + 1} if keeps else {}
    logits = inner(input_ids=ids, use_cache=False, **wanted).logits[0, -len(response) - 1 : -1]
    return log_softmax_at(logits, ids[0, len(prompt) :])


def scores(model: Any, rows: Sequences) -> Tensor:
    """`r`: the scalar head at each row's last token, found by the mask.

    Args:
        model: a sequence-classification model with one label, plain or with an adapter.
        rows: (prompt ids, response ids) pairs.

    Returns:
        float32 tensor of shape [rows].
    """
    return head_scores(model, last_states(model, rows))


def last_states(model: Any, rows: Sequences) -> Tensor:
    """The hidden state at each row's last token, which the scalar head reads, shape [rows, width]."""
    inner = inner_of(model)
    if model not in _CHECKED:
        _check_states(inner, rows)
        _CHECKED[model] = True
    passes(inner, rows)
    return _at_ends(*_through(inner, rows))


def _through(inner: Any, rows: Sequences) -> tuple[Tensor, Layout]:
    """The decoder's states of all rows, and where they lie."""
    layout = lay_out(inner, rows)
    return layout.states(inner, getattr(inner, inner.base_model_prefix)), layout


def head_scores(model: Any, states: Tensor) -> Tensor:
    """`r` from the last hidden states, float32 tensor of shape [rows]."""
    result: Tensor = inner_of(model).score(states.to(head_weight(model).dtype)).squeeze(-1).float()
    return result


def head_weight(model: Any) -> Tensor:
    """The weight of the scalar head in use, the trained copy where an adapter has one, shape [1, width]."""
    head = inner_of(model).score
    weight: Tensor = (head.modules_to_save[head.active_adapter] if hasattr(head, "modules_to_save") else head).weight
    return weight


def input_embeddings(model: Any) -> Any:
    """The module that turns token ids into the model's input embeddings."""
    return inner_of(model).get_input_embeddings()


def attacked_scores(
    model: Any, rows: Sequences, directions: Sequence[float], *, epsilon: float
) -> tuple[Tensor, Tensor]:
    """`r` of each row, and again after one step of its input embeddings `e` along or against the gradient of `r`.

    The step has the norm ε‖e‖, over all tokens of the row, and is a constant for the gradient of the result. It is the
    worst one of that norm where `r` is linear in `e` (Miyato et al. 2017, arXiv:1605.07725, equation 5).

    Args:
        model: as in `scores`.
        rows: (prompt ids, response ids) pairs.
        directions: +1 to raise a row's score, −1 to lower it.
        epsilon: size of the step, relative to ‖e‖.

    Returns:
        The scores before and after the step, float32 tensors of shape [rows].
    """
    inner = inner_of(model)
    layout = lay_out(inner, rows, share=False)  # a step is taken in each answer's own prompt
    ids = layout.inputs["input_ids"]
    others = {name: value for name, value in layout.inputs.items() if name != "input_ids"}
    lengths = on_device([len(columns) for columns in layout.columns], inner.device)
    real = torch.arange(ids.shape[1], device=inner.device) < lengths[:, None]
    decoder = getattr(inner, inner.base_model_prefix)

    def scored(embeddings: Tensor) -> Tensor:
        hidden = decoder(inputs_embeds=embeddings, **others, use_cache=False).last_hidden_state
        return head_scores(model, _at_ends(hidden, layout))

    training = torch.is_grad_enabled()
    passes(inner, rows, forward=2, backward=1 + 2 * training)
    with torch.enable_grad():
        embeddings = input_embeddings(model)(ids)
        if not embeddings.requires_grad:
            embeddings.requires_grad_()
        clean = scored(embeddings)
        (gradient,) = torch.autograd.grad(clean.sum(), embeddings, retain_graph=training)
    gradient = gradient.float()
    steepest = gradient / _row_norm(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
    radius = epsilon * _row_norm(embeddings.detach().float() * real[..., None])
    step = on_device(directions, inner.device)[:, None, None] * radius * steepest
    attacked = scored(embeddings + step.to(embeddings.dtype))
    return (clean, attacked) if training else (clean.detach(), attacked.detach())


def _row_norm(values: Tensor) -> Tensor:
    """Euclidean norm over a row's positions and features, shape [rows, 1, 1]."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True)
    return norm


def _at_ends(hidden: Tensor, layout: Layout) -> Tensor:
    """The states at each row's last token, shape [rows, width]."""
    last = np.array([layout.row, [columns[-1] for columns in layout.columns]])
    row, column = on_device(last, hidden.device)
    return hidden[row, column]


def _head_is_plain(inner: Any) -> bool:
    """Whether the model's logits are its head's output and nothing more, found by a look at three tokens.

    Some are soft-capped (Gemma 2) or scaled (Cohere, Granite, Falcon-H1) after the head; those take the model's own
    forward.
    """
    if inner not in _PLAIN_HEADS:
        ids = torch.tensor([[0, 1, 2]], device=inner.device)
        with _looking(inner):
            logits = inner(input_ids=ids, use_cache=False).logits
            hidden = inner.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            plain = inner.get_output_embeddings()(hidden)
        tolerance = 1e-2 if logits.dtype in (torch.bfloat16, torch.float16) else 1e-4
        _PLAIN_HEADS[inner] = torch.allclose(logits.float(), plain.float(), rtol=tolerance, atol=tolerance)
    return _PLAIN_HEADS[inner]
