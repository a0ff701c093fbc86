"""Fused decoder layers: the numbers and gradients of transformers' own, with fewer activations kept."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from align_bench.errors import ModelError
from align_bench.models import decoder
from align_bench.models.decoder import fuse_layers
from align_bench.models.kv_cache import growing_cache
from align_bench.models.load import add_adapter
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.unfused import unfused
from align_bench.suite.models import Lora

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE),
    "llama with biases": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
}
ROWS = [((5, 6, 7), (8, 9)), ((5, 6, 7), (10, 3, 8)), ((11, 12), (13, 14, 15))]


def model_of(config: Any, dtype: torch.dtype = torch.float32, targets: Any = "all-linear") -> Any:
    """A random model with biases and gains that matter, and an adapter that does something (None: without one)."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw).to(dtype))
        model = fuse_layers(model.requires_grad_(False))
        if targets is None:
            return model
        model = add_adapter(model, Lora(r=4, alpha=12, target_modules=targets), seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def fused(model: Any) -> int:
    return sum(isinstance(module, decoder._FusedLayer) for module in model.modules())


def values_and_gradients(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    values = response_logps(model, ROWS)
    (values * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return values.detach(), found


def states(model: Any, embeddings: Tensor) -> Tensor:
    result: Tensor = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return result


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj", "down_proj"), ("up_proj",)])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_every_gradient_equal_transformers_and_pefts(family: str, targets: Any) -> None:
    model = model_of(FAMILIES[family], targets=targets)
    assert fused(model) == 2
    values, gradients = values_and_gradients(model)
    with unfused():
        expected, slopes = values_and_gradients(model)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert slope.norm() > 0
        assert (gradients[name] - slope).norm() < 1e-4 * slope.norm(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_stays_as_close_to_fp32_as_transformers_own(family: str) -> None:
    exact, coarse = model_of(FAMILIES[family]), model_of(FAMILIES[family], torch.bfloat16)
    with torch.no_grad():
        for mine, other in zip(exact.parameters(), coarse.parameters(), strict=True):
            mine.copy_(other)  # the same weights, rounded
    truth, slopes = values_and_gradients(exact)
    values, gradients = values_and_gradients(coarse)
    with unfused():
        plain, plain_gradients = values_and_gradients(coarse)
    assert (values - truth).norm() < 2 * (plain - truth).norm() + 0.01 * truth.norm()

    def apart(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - slope).norm() / slope.norm()) for name, slope in slopes.items()) / len(slopes)

    assert apart(gradients) < 1.2 * apart(plain_gradients) < 0.2
    assert all(value.dtype == torch.float32 for value in gradients.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_without_adapter_and_the_gradient_of_its_embeddings(family: str) -> None:
    model = model_of(FAMILIES[family], targets=None)
    embeddings = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(3))
    found = states(model, embeddings)
    with unfused():
        expected = states(model, embeddings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad((weights * found).sum(), embeddings, retain_graph=True)
    (again,) = torch.autograd.grad((weights * found).sum(), embeddings)
    (exact,) = torch.autograd.grad((weights * expected).sum(), embeddings)
    assert (slope - exact).norm() < 1e-4 * exact.norm()
    assert torch.equal(slope, again)  # a backward pass leaves what it kept as it was


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_is_read_and_filled_as_by_transformers(family: str) -> None:
    inner = model_of(FAMILIES[family]).get_base_model()
    name = "cache" if "cache" in inspect.signature(type(inner).forward).parameters else "past_key_values"

    def read() -> Tensor:
        cache = growing_cache(inner)
        first = inner(input_ids=torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]]), use_cache=True, **{name: cache}).logits
        then = inner(input_ids=torch.tensor([[13], [14]]), use_cache=True, **{name: cache}).logits
        assert cache.get_seq_length() == 5
        return torch.cat([first, then], dim=1)

    with torch.no_grad():
        found = read()
        with unfused():
            torch.testing.assert_close(found, read(), rtol=1e-5, atol=1e-5)


def kept_bytes(model: Any) -> int:
    """What the backward pass of two longer rows keeps, parameters apart."""
    parameters = {value.untyped_storage().data_ptr() for value in model.parameters()}
    sizes: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    long = [((*range(1, 30),), (*range(30, 60),)), ((*range(1, 30),), (*range(20, 50),))]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        values = response_logps(model, long)
    values.sum().backward()
    return sum(sizes.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backward_pass_keeps_less_than_seven_tenths(family: str) -> None:
    given = {**FAMILIES[family].to_dict(), "layer_types": None}
    wide = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4}
    model = model_of(type(FAMILIES[family]).from_dict({**given, **wide}))
    kept_bytes(model)  # the first pass looks at the model as well
    ours = kept_bytes(model)
    with unfused():
        assert ours < 0.7 * kept_bytes(model)


def test_a_layer_that_is_more_runs_as_transformers_wrote_it() -> None:
    def fuses(model: Any) -> bool:
        return model.base_model.model.model.layers[0]._layers(torch.zeros(1, 1, 32)) is not None

    assert fuses(model_of(FAMILIES["llama"]).train())
    assert not fuses(model_of(LlamaConfig(**SHAPE, hidden_act="gelu")))
    drops = model_of(LlamaConfig(**SHAPE, attention_dropout=0.5))
    assert fuses(drops.eval())
    assert not fuses(drops.train())
    eager = model_of(FAMILIES["qwen3"])
    eager.set_attn_implementation("eager")
    assert not fuses(eager)
    learns = model_of(FAMILIES["llama"])
    learns.base_model.model.model.layers[0].input_layernorm.weight.requires_grad_()
    assert not fuses(learns)
    with unfused():
        assert not fuses(model_of(FAMILIES["mistral"]))
    gelu = model_of(LlamaConfig(**SHAPE, hidden_act="gelu"))
    with unfused():
        expected, _ = values_and_gradients(gelu)
    torch.testing.assert_close(values_and_gradients(gelu)[0], expected)


def test_hooks_and_replaced_forwards_are_heeded() -> None:
    seen: list[str] = []
    model = model_of(FAMILIES["llama"])
    layer = model.base_model.model.model.layers[0]
    with torch.no_grad():
        expected = response_logps(model, ROWS)
        for module in (
            layer.mlp,
            layer.input_layernorm,
            layer.self_attn.q_proj,
            layer.self_attn.v_proj.lora_A["default"],
        ):
            handle = module.register_forward_hook(lambda *_: seen.append("called"))
            torch.testing.assert_close(response_logps(model, ROWS), expected)
            handle.remove()
            assert seen
            seen.clear()
        layer.mlp.forward = lambda states: torch.zeros_like(states)
        assert not torch.allclose(response_logps(model, ROWS), expected)


def test_each_row_may_name_its_adapter() -> None:
    model = model_of(FAMILIES["llama"]).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
        found = model(input_ids=ids.repeat(2, 1), adapter_names=["__base__", "default"]).logits
    torch.testing.assert_close(found, torch.cat([base, adapted]))
    assert not torch.allclose(base, adapted)


def test_attention_that_is_not_causal_stays_so() -> None:
    config = LlamaConfig(**SHAPE)
    config.is_causal = False
    model = model_of(config)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found = model(input_ids=ids).logits
        assert not torch.allclose(found, model_of(LlamaConfig(**SHAPE))(input_ids=ids).logits, atol=1e-2)
        with unfused():
            torch.testing.assert_close(found, model(input_ids=ids).logits)


@pytest.mark.parametrize("targets", ["all-linear", ("o_proj",)])
def test_autocast_to_another_type_computes_as_transformers_and_peft_do(targets: Any) -> None:
    model = model_of(FAMILIES["llama"], targets=targets)

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = model(input_ids=torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss
        result.backward()
        return result.detach()

    found = loss()
    with unfused():
        assert torch.equal(found, loss())


def test_biases_may_be_trained() -> None:
    model = model_of(FAMILIES["qwen2"])
    model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.bias.requires_grad_()
    _, gradients = values_and_gradients(model)
    with unfused():
        _, expected = values_and_gradients(model)
    (name,) = [name for name in expected if "q_proj.base_layer.bias" in name]
    assert expected[name].norm() > 0
    torch.testing.assert_close(gradients[name], expected[name], rtol=1e-4, atol=1e-5)


def test_an_adapter_in_bf16_has_gradients_in_bf16() -> None:
    model = model_of(FAMILIES["llama"], torch.bfloat16)
    for value in model.parameters():
        value.data = value.data.bfloat16()
    _, gradients = values_and_gradients(model)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")  # transformers renames it
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradient(reentrant: bool) -> None:
    model = model_of(FAMILIES["llama"]).train()
    values, gradients = values_and_gradients(model)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    found, again = values_and_gradients(model)
    torch.testing.assert_close(found, values)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)


def test_a_fused_model_can_be_copied_and_pickled() -> None:
    model = model_of(FAMILIES["qwen3"])
    with torch.no_grad():
        expected = response_logps(model, ROWS)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert fused(again) == 2
            assert torch.equal(response_logps(again, ROWS), expected)


def test_other_families_are_left_alone() -> None:
    gemma = Gemma3TextConfig(**SHAPE, head_dim=8)
    gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
    for config in (gemma, gpt2):
        assert fused(fuse_layers(AutoModelForCausalLM.from_config(config))) == 0


def test_a_wrong_fused_layer_is_noticed_on_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = decoder._rotate
    monkeypatch.setattr(
        decoder, "_rotate", lambda heads, cosine, first, second, sign: rotate(heads, cosine, first, second, -sign)
    )
    with pytest.raises(ModelError, match=r"log-probabilities .* differ from the plain ones by .* nats per token"):
        response_logps(model_of(FAMILIES["llama"]), ROWS)
    scorer = AutoModelForSequenceClassification.from_config(LlamaConfig(**SHAPE, num_labels=1)).requires_grad_(False)
    with pytest.raises(ModelError, match=r"hidden states .* differ from the plain ones by .* of their norm"):
        scores(fuse_layers(scorer), ROWS)
