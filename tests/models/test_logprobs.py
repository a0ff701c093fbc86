"""Response log-probabilities and scores against the plain computation, row by row and without padding."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    MistralConfig,
)

from align_bench.errors import ModelError, PluginError
from align_bench.models import head as heads
from align_bench.models import layout, logprobs
from align_bench.models.layout import additive_mask, lay_out
from align_bench.models.logprobs import response_logps, response_parts, scores, token_logps

ROWS = [((5, 6, 7), (8, 9)), ((5,), (6, 7, 8, 9, 10)), ((11, 12, 13, 14), (15,)), ((20, 21), (1, 1, 1))]


def naive_logp(model: Any, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """The definition: one row at a time, full logits, a sum over response positions."""
    ids = [*prompt, *response]
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    total = torch.zeros((), dtype=torch.float64)
    for step, token in enumerate(response):
        total = total + torch.log_softmax(logits[len(prompt) + step - 1], -1)[token]
    return total


@pytest.fixture
def policy(base_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


def test_equals_the_definition(policy: Any) -> None:
    expected = torch.stack([naive_logp(policy, *row) for row in ROWS])
    torch.testing.assert_close(response_logps(policy, ROWS).double(), expected, rtol=1e-5, atol=1e-5)


def test_gradient_equals_the_definition(policy: Any) -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    parameter = policy.model.layers[0].self_attn.q_proj.weight
    (response_logps(policy, ROWS) * weights).sum().backward()
    ours = parameter.grad.clone()
    parameter.grad = None
    sum(weight * naive_logp(policy, *row) for weight, row in zip(weights, ROWS, strict=True)).backward()
    torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [(2, None), (3, 7), (100, 1)])
def test_chunks_of_the_head_change_nothing(
    policy: Any, monkeypatch: pytest.MonkeyPatch, at_once: tuple[int, int | None]
) -> None:
    whole = response_logps(policy, ROWS)
    monkeypatch.setattr(heads, "_HEAD_CHUNK", 2)
    torch.testing.assert_close(response_logps(policy, ROWS), whole, rtol=1e-6, atol=1e-6)
    policy.lm_head.weight.requires_grad_(False)
    try:
        for here in (heads._ON_A_CPU, at_once):
            monkeypatch.setattr(heads, "_ON_A_CPU", here)
            torch.testing.assert_close(response_logps(policy, ROWS), whole, rtol=1e-6, atol=1e-5)
    finally:
        policy.lm_head.weight.requires_grad_(True)


@pytest.mark.parametrize("plain", [True, False], ids=["a plain head", "the model's own forward"])
def test_parts_of_a_response_equal_the_definition(policy: Any, monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    monkeypatch.setattr(logprobs, "_head_is_plain", lambda inner: plain)
    monkeypatch.setattr(heads, "_HEAD_CHUNK", 3)
    prefixes = [1, 3, 1, 2]
    found = response_parts(policy, ROWS, prefixes, confidence=True)
    torch.testing.assert_close(found.logps, response_logps(policy, ROWS))
    first = [naive_logp(policy, prompt, answer[:count]) for (prompt, answer), count in zip(ROWS, prefixes, strict=True)]
    torch.testing.assert_close(found.prefix.double(), torch.stack(first), rtol=1e-5, atol=1e-5)
    expected = []
    for prompt, answer in ROWS:
        chances = policy(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        ratios = [chances[at, token] / chances[at].square().sum() for at, token in zip(places, answer, strict=True)]
        expected.append(torch.stack(ratios).log().mean())
    assert found.confidence is not None
    assert not found.confidence.requires_grad
    torch.testing.assert_close(found.confidence.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert response_parts(policy, ROWS, prefixes, confidence=False).confidence is None


def test_a_row_does_not_see_its_batch(policy: Any) -> None:
    together = response_logps(policy, ROWS)
    alone = torch.cat([response_logps(policy, [row]) for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_mask_of_rows_apart_hides_their_padding_alone(policy: Any) -> None:
    inputs = layout._plain_inputs(policy, [((5, 6), (7, 8)), ((9,), (10,))], [[0], [1]], 4)
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_an_answer_for_which_there_was_no_room_has_no_token(policy: Any) -> None:
    """As of a prompt that is as long as the model's positions."""
    logps, _ = token_logps(policy, [((5, 6), ()), ((5, 6), (7, 8)), ((9,), (10,))])
    alone, _ = token_logps(policy, [((5, 6), (7, 8)), ((9,), (10,))])
    torch.testing.assert_close(logps, torch.cat([torch.zeros(1, 2), alone]), rtol=1e-5, atol=1e-5)


def test_prompt_tokens_are_not_scored(policy: Any) -> None:
    (prompt, response), *_ = ROWS
    whole, part = response_logps(policy, [((*prompt[:1],), (*prompt[1:], *response)), (prompt, response)])
    expected = naive_logp(policy, prompt[:1], prompt[1:])
    torch.testing.assert_close((whole - part).double(), expected, rtol=1e-4, atol=1e-5)


# Answers to one prompt: two of ROWS' prompts with more answers, one of a single token, one prompt with four answers.
SHARED = [
    *ROWS,
    ((5, 6, 7), (10, 3, 8, 2)),
    ((5,), (9,)),
    ((5, 6, 7), (2,)),
    ((5, 6, 7), (8, 9, 8, 9)),
    ((20, 21), (4, 5)),
]


def rows_of(model: Any, sequences: Any) -> int:
    return len(lay_out(model, sequences).inputs["input_ids"])


# Two answers that begin alike, one that begins another, one given twice, and a prompt that begins another.
ALIKE = [
    *SHARED,
    ((5, 6, 7), (8, 9, 4, 4, 1)),
    ((5, 6, 7), (8, 9)),
    ((20, 21), (1, 1, 1, 7, 8, 9, 2, 3)),
    ((5, 6, 7, 10), (3, 8)),
]


@pytest.mark.usefixtures("sharing")
def test_a_batch_is_one_row_without_padding_in_which_each_start_stands_once(policy: Any) -> None:
    starts = {(*prompt, *answer)[:end] for prompt, answer in ALIKE for end in range(1, 1 + len(prompt + answer))}
    layout = lay_out(policy, ALIKE)
    ids = layout.inputs["input_ids"]
    assert ids.shape == (1, len(starts))
    assert [tuple(ids[0, columns].tolist()) for columns in layout.columns] == [(*one, *other) for one, other in ALIKE]
    expected = torch.stack([naive_logp(policy, *row) for row in ALIKE])
    torch.testing.assert_close(response_logps(policy, ALIKE).double(), expected, rtol=1e-5, atol=1e-5)
    assert policy.config._attn_implementation == "sdpa"


def test_the_probe_has_pieces_of_all_kinds() -> None:
    pieces = layout._packed([layout._BEFORE, *layout._PROBE], worth=1).pieces
    assert [len(piece.before) for piece in pieces] == [0, 1, 2]


def test_a_few_common_tokens_are_not_worth_sharing(policy: Any) -> None:
    system = tuple(range(30, 37))
    short, long = ([((*start, 1, 2), (3,)), ((*start, 4), (5, 6))] for start in (system, (*system, 37)))
    assert lay_out(policy, short).inputs["input_ids"].shape == (1, 20)
    assert lay_out(policy, long).inputs["input_ids"].shape == (1, 22 - 8)
    assert [len(layout.passes_over(policy, rows, max_tokens=19)) for rows in (short, long)] == [2, 1]


def test_training_passes_are_even_where_rows_pack_and_padded_where_not(policy: Any, packs: bool) -> None:
    lengths = [400, 380, 250, 200]
    expected = [[1, 2], [0, 3]] if packs else [[0, 1], [2, 3]]
    assert layout.training_passes(policy, range(4), lengths, max_tokens=800) == expected
    assert layout.training_passes(policy, range(4), lengths, max_tokens=8192) == [[0, 1, 2, 3]]
    assert layout.training_passes(policy, [], lengths, max_tokens=800) == []


@pytest.mark.usefixtures("sharing")
def test_passes_are_full_rows_of_what_begins_alike(policy: Any) -> None:
    for limit in (1, 12, 20, 1024):
        passes = layout.passes_over(policy, ALIKE, max_tokens=limit)
        assert sorted(number for numbers in passes for number in numbers) == list(range(len(ALIKE)))
        rows = [
            lay_out(policy, [ALIKE[number] for number in numbers]).inputs["input_ids"].numel() for numbers in passes
        ]
        assert all(row <= limit or len(numbers) == 1 for row, numbers in zip(rows, passes, strict=True))
    assert len(passes) == 1
    assert layout.passes_over(policy, [], max_tokens=10) == []


@pytest.mark.usefixtures("padded")
def test_passes_of_padded_rows_keep_answers_to_a_prompt_together(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = layout.passes_over(policy, SHARED, max_tokens=12)
    assert sorted(number for numbers in passes for number in numbers) == list(range(len(SHARED)))
    assert [4, 6] in [[number for number in numbers if SHARED[number][0] == (5, 6, 7)][1:] for numbers in passes]
    monkeypatch.setattr(layout, "can_share", lambda inner, longest: False)
    alone = layout.passes_over(policy, SHARED, max_tokens=12)
    for numbers in alone:
        lengths = [len(prompt) + len(answer) for prompt, answer in (SHARED[number] for number in numbers)]
        assert len(lengths) * max(lengths) <= 12


def test_attention_is_as_before_when_a_pass_fails(policy: Any) -> None:
    with pytest.raises(IndexError):
        response_logps(policy, [((5, 6), (7, 8)), ((5, 10**6), (9,))])
    assert policy.config._attn_implementation == "sdpa"
    torch.testing.assert_close(response_logps(policy, ROWS[:1]).double(), naive_logp(policy, *ROWS[0])[None])


def test_a_model_whose_positions_do_not_restart_is_not_packed(base_folder: Path) -> None:
    """A probe sees it; the padded rows of a model that ignores positions would be wrong with shared prompts as well."""
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    decoder = model.get_decoder().forward

    def counting(*arguments: Any, position_ids: Any = None, **more: Any) -> Any:
        return decoder(*arguments, **more)

    model.get_decoder().forward = counting
    with pytest.warns(UserWarning, match="cannot read two answers behind one prompt"):
        assert rows_of(model, SHARED) == len(SHARED)


@pytest.mark.usefixtures("padded")
def test_answers_to_one_prompt_share_its_tokens(policy: Any) -> None:
    assert rows_of(policy, ROWS) == len(ROWS)
    assert rows_of(policy, SHARED) == len(ROWS) + 1  # at most three answers behind a prompt
    expected = torch.stack([naive_logp(policy, *row) for row in SHARED])
    torch.testing.assert_close(response_logps(policy, SHARED).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize("columns", [1, 7, 8, 9])
def test_rows_of_a_mask_begin_where_a_gpu_wants_them(columns: int) -> None:
    hidden = torch.ones(2, 1, 3, columns).tril().bool()
    mask = additive_mask(hidden, torch.bfloat16)
    assert mask.shape == hidden.shape
    assert torch.equal(mask == torch.finfo(torch.bfloat16).min, hidden)
    assert torch.equal(mask == 0, ~hidden)
    assert all(stride % 8 == 0 for stride in mask.stride()[:-1])
    assert mask.stride(-1) == 1


def test_gradient_through_a_shared_start_equals_the_definition(policy: Any) -> None:
    weights = torch.linspace(-2, 3, len(ALIKE))
    parameter = policy.model.layers[0].self_attn.q_proj.weight
    (response_logps(policy, ALIKE) * weights).sum().backward()
    ours = parameter.grad.clone()
    parameter.grad = None
    sum(weight * naive_logp(policy, *row) for weight, row in zip(weights, ALIKE, strict=True)).backward()
    torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("packs")
def test_scores_through_a_shared_start_equal_those_alone(base_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32).eval()
    alone = torch.cat([scores(model, [row]) for row in ALIKE])
    torch.testing.assert_close(scores(model, ALIKE), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [(3, None), (4, 7), (100, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_head_gives_the_gradient_of_a_trained_one(
    policy: Any, monkeypatch: pytest.MonkeyPatch, at_once: tuple[int, int | None], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(heads, "_HEAD_CHUNK", 3)
    monkeypatch.setattr(heads, "_ON_A_CPU", at_once)
    head, target = deepcopy(policy.lm_head).to(dtype), torch.tensor([3, 1, 4, 1, 5, 9, 2])
    found = []
    for trained in (True, False):
        head.weight.requires_grad_(trained)
        hidden = torch.randn(7, 32, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        logps = heads.head_logps(head, hidden, target)
        (logps * torch.linspace(-1, 2, 7)).sum().backward()
        found.append((logps, hidden.grad))
    exact = dtype == torch.float32
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5 if exact else 0.02, atol=1e-6 if exact else 0.02)


@pytest.mark.parametrize("at_once", [(3, None), (4, 7)])
def test_no_logit_is_too_large_for_a_head_in_parts(
    policy: Any, monkeypatch: pytest.MonkeyPatch, at_once: tuple[int, int | None]
) -> None:
    """Of logits in the thousands, the exponentials would be too large or too small to be held."""
    monkeypatch.setattr(heads, "_ON_A_CPU", at_once)
    head, target = deepcopy(policy.lm_head).requires_grad_(False), torch.tensor([3, 1, 4, 1, 5, 9, 2])
    hidden = 3000 * torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    expected = head(hidden).double().log_softmax(1).gather(1, target[:, None]).squeeze(1)
    assert expected.min() < -1000
    torch.testing.assert_close(heads.head_logps(head, hidden, target).double(), expected, rtol=1e-6, atol=1e-3)


@pytest.mark.usefixtures("padded")
def test_a_sliding_window_shorter_than_the_row_keeps_prompts_apart() -> None:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    for window, rows in ((6, len(SHARED)), (64, len(ROWS) + 1)):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(MistralConfig(**shape, **heads, sliding_window=window)).eval()
        assert rows_of(model, SHARED) == rows
        expected = torch.stack([naive_logp(model, *row) for row in SHARED])
        torch.testing.assert_close(response_logps(model, SHARED).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_reads_no_positions_falls_back_and_says_so() -> None:
    """ALiBi counts columns, so an answer behind another one would stand too far from its prompt."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2)).eval()
    with pytest.warns(UserWarning, match="BloomForCausalLM cannot read two answers behind one prompt"):
        found = response_logps(model, SHARED)
    expected = torch.stack([naive_logp(model, *row) for row in SHARED])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64),
        Gemma2Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=5.0,
            attn_logit_softcapping=None,
        ),
        GraniteConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            logits_scaling=4.0,
        ),
    ],
    ids=["gpt2", "gemma2 with soft-capped logits", "granite with scaled logits"],
)
@pytest.mark.usefixtures("padded")
def test_other_architectures(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert rows_of(model, SHARED) == len(ROWS) + 1
    expected = torch.stack([naive_logp(model, *row) for row in SHARED])
    torch.testing.assert_close(response_logps(model, SHARED).double(), expected, rtol=1e-4, atol=1e-4)


def test_score_is_read_at_the_last_token_even_when_it_is_the_pad_token(base_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32).eval()
    pad = model.config.pad_token_id
    rows = [((5, 6), (7, pad)), ((5, 6, 7, 8), (9,)), ((pad, pad), (pad,))]
    expected = []
    for prompt, response in rows:
        hidden = model.model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state
        expected.append(model.score(hidden[0, -1]).squeeze())
    torch.testing.assert_close(scores(model, rows), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("padded")
def test_a_shortcut_that_errs_on_the_first_batch_is_refused(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    original = layout._shared_inputs

    def blind(*arguments: Any) -> dict[str, torch.Tensor]:
        inputs = original(*arguments)
        return inputs | {"attention_mask": torch.zeros_like(inputs["attention_mask"])}

    monkeypatch.setattr(layout, "_shared_inputs", blind)  # every token sees every other
    monkeypatch.setitem(layout._SHARES_PROMPTS, policy, True)
    rows = [((5, 6, 7, 8, 9), (10, 11, 12)), ((5, 6, 7, 8, 9), (13, 14))]
    with pytest.raises(ModelError, match=r"differ from the plain ones by .* nats per token"):
        response_logps(policy, rows)


def test_weights_that_diverged_are_not_taken_for_an_unknown_architecture(base_folder: Path) -> None:
    """As a checkpoint that was saved a step before the loss was seen to be none."""
    policy = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    scorer = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32).eval()
    for model in (policy, scorer):
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(PluginError, match=r"its log-probabilities are not finite .* training diverged"):
        response_logps(policy, ROWS)
    with pytest.raises(PluginError, match=r"its hidden states are not finite .* training diverged"):
        scores(scorer, ROWS)
