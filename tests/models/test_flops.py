"""Operations counted from a model's shape against torch's own counter, which sees every matrix product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
)

from align_bench.models.flops import Work, _work, counted, passes, uncounted
from align_bench.models.generate import generate
from align_bench.models.load import add_adapter
from align_bench.models.logprobs import attacked_scores, response_logps, scores
from align_bench.suite.models import Generate, Lora

# torch counts no fused attention on a CPU, so that attention is the plain one here. What it counts and we do not: the
# product that makes rotary angles. What we count and it does not: gradients of the first layer's input.
TOLERANCE = 0.02
SHAPE: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "heads wider than the model": LlamaConfig(**SHAPE, head_dim=32),
    "gpt2": GPT2Config(vocab_size=500, n_embd=64, n_layer=6, n_head=4, n_positions=128),
}
ROW = (tuple(range(1, 31)), tuple(range(40, 61)))
TOKENS = len(ROW[0]) + len(ROW[1]) - 1  # the last one predicts nothing


def model_of(config: Any, *, scalar: bool = False) -> Any:
    loader = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    torch.manual_seed(0)
    frozen = loader.from_config(config, attn_implementation="eager").requires_grad_(False).eval()
    return add_adapter(frozen, Lora(r=4, alpha=8), seed=0)


def _added_product(added: Any, left: Any, right: Any, **_: Any) -> int:
    """Operations of `addmm_` from its operands' shapes."""
    return int(2 * left[0] * left[1] * right[1])


def by_torch(work: Any) -> int:
    in_place = {torch.ops.aten.addmm_: _added_product}  # torch leaves it out
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        work()
    return int(counter.get_total_flops())


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    found = model_of(CONFIGS[request.param])
    response_logps(found, [ROW])  # the looks at a new model come first
    return found


def hidden_half(model: Any) -> float:
    """Operations of attention that torch counts: every position sees all, not those before it."""
    work = _work(model.get_base_model(), [(ROW[0], ROW[1][:-1])], 0)
    assert work is not None
    return work.attention * (TOKENS**2 / (TOKENS * (TOKENS + 1) / 2) - 1)


def test_forward(model: Any) -> None:
    with torch.no_grad(), counted() as tally:
        theirs = by_torch(lambda: response_logps(model, [ROW]))
    assert tally.flops is not None
    assert theirs - hidden_half(model) == pytest.approx(tally.flops, rel=TOLERANCE)


def test_forward_and_backward(model: Any) -> None:
    with counted() as tally:
        theirs = by_torch(lambda: response_logps(model, [ROW]).sum().backward())
    assert tally.flops is not None
    assert theirs - 3 * hidden_half(model) == pytest.approx(tally.flops, rel=TOLERANCE)


def test_scores() -> None:
    scorer = model_of(LlamaConfig(**SHAPE, num_labels=1), scalar=True)
    rows = [(ROW[0], ROW[1][:-1])]
    scores(scorer, rows)  # the look at a new model comes first
    with counted() as tally:
        theirs = by_torch(lambda: scores(scorer, rows).sum().backward())
    assert tally.flops is not None
    assert theirs - 3 * hidden_half(scorer) == pytest.approx(tally.flops, rel=TOLERANCE)


def test_by_hand() -> None:
    """One layer of width 4 with one head: 16 weights a square matrix, 12 for each of three of the perceptron."""
    config = LlamaConfig(vocab_size=10, hidden_size=4, intermediate_size=3, num_hidden_layers=1, num_attention_heads=1)
    frozen = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    weights = 4 * 16 + 3 * 12
    # Two answers behind one prompt of three tokens: five tokens; 6 + (3 + 1) + (3 + 1) positions are seen.
    found = _work(frozen, [((1, 2, 3), (4,)), ((1, 2, 3), (5,))], 7)
    assert found == Work(matrices=2 * 5 * weights, trained=0, attention=4 * 14 * 4, head=2 * 7 * 4 * 10)
    assert found is not None
    assert found.forward == 1000 + 224 + 560
    assert found.backward == 1000 + 448 + 560


def test_a_shared_start_counts_once_and_padding_never() -> None:
    model = model_of(CONFIGS["llama"])
    other = (ROW[0][1:6], ROW[1])

    def needed(*rows: Any) -> float:
        with torch.no_grad(), counted() as tally:
            response_logps(model, rows)
        assert tally.flops is not None
        return tally.flops

    assert needed(ROW, other) == needed(ROW) + needed(other)
    pair = needed(ROW, (ROW[0], (7, 8, 9)))
    assert needed(ROW) < pair < needed(ROW) + needed((ROW[0], (7, 8, 9)))
    system = needed((ROW[0][:5], ROW[1]), (ROW[0], ROW[1]))
    assert needed(ROW) < system < needed(ROW) + needed((ROW[0][:5], ROW[1]))


def test_generated_tokens_need_what_reading_them_does(base_folder: Any, tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder).requires_grad_(False).eval()
    settings = Generate(max_new_tokens=5)
    generate(model, tokenizer, [ROW[0]], settings, seed=0)
    with counted() as tally:
        ((answer,),) = generate(model, tokenizer, [ROW[0]], settings, seed=0)
    with torch.no_grad(), counted() as reading:
        response_logps(model, [(ROW[0], answer.ids)])
    assert tally.flops == reading.flops is not None


def test_an_attack_is_two_passes_and_one_back() -> None:
    scorer = model_of(LlamaConfig(**SHAPE, num_labels=1), scalar=True)
    work = _work(scorer.get_base_model(), [ROW], 0)
    assert work is not None
    with torch.no_grad(), counted() as tally:
        attacked_scores(scorer, [ROW], [1.0], epsilon=0.1)
    assert tally.flops == 2 * work.forward + work.backward


def test_what_cannot_be_counted_is_unknown_and_not_zero() -> None:
    experts = MixtralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    mixture = AutoModelForCausalLM.from_config(experts)
    with counted() as nothing:
        pass
    with counted() as unknown:
        passes(mixture, [ROW])
    with counted() as foreign:
        passes(model_of(CONFIGS["llama"]).get_base_model(), [ROW])
        uncounted()
    assert nothing.flops == 0
    assert unknown.flops is foreign.flops is None


def test_counts_nest() -> None:
    inner = model_of(CONFIGS["llama"]).get_base_model()
    with counted() as outer:
        passes(inner, [ROW])
        with counted() as own:
            passes(inner, [ROW])
        passes(inner, [ROW])
    assert outer.flops is not None
    assert own.flops is not None
    assert outer.flops == 3 * own.flops
