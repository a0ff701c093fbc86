"""The shared path on the common decoders: log-probabilities, scores and gradients equal the plain computation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from align_bench.models.decoder import fuse_layers
from align_bench.models.layout import lay_out
from align_bench.models.load import add_adapter
from align_bench.models.logprobs import response_logps, scores, token_logps
from align_bench.models.unfused import unfused
from align_bench.suite.models import Lora

# Three prompts: one with two answers (a pair), one with four, one with one; lengths differ everywhere.
PAIRS = [
    ((5, 6, 7), (8, 9)),
    ((5, 6, 7), (10, 3, 8, 2, 30, 31, 7)),
    ((11, 12, 13, 14, 15, 16, 17), (15,)),
    ((11, 12, 13, 14, 15, 16, 17), (2, 40, 41)),
    ((11, 12, 13, 14, 15, 16, 17), (9, 9)),
    ((11, 12, 13, 14, 15, 16, 17), (1, 4, 1)),
    ((20, 21), (1, 1, 1)),
]
SHARED_ROWS = 4  # at most three answers behind a prompt
ALONE_ROWS = len(PAIRS)

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
# Name → configuration, and the padded rows that PAIRS take up: fewer than sequences where prompts are shared.
ARCHITECTURES = {
    "llama": (LlamaConfig(**SHAPE), SHARED_ROWS),
    "llama, tied head": (LlamaConfig(**SHAPE, tie_word_embeddings=True), SHARED_ROWS),
    "llama, scaled positions": (
        LlamaConfig(
            **SHAPE,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        SHARED_ROWS,
    ),
    "qwen2": (Qwen2Config(**SHAPE), SHARED_ROWS),
    "qwen2, some layers slide": (
        Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        ALONE_ROWS,
    ),
    "qwen3": (Qwen3Config(**SHAPE, head_dim=16), SHARED_ROWS),
    "mistral": (MistralConfig(**SHAPE, sliding_window=None), SHARED_ROWS),
    "mistral, wide window": (MistralConfig(**SHAPE, sliding_window=64), SHARED_ROWS),
    "mistral, narrow window": (MistralConfig(**SHAPE, sliding_window=5), ALONE_ROWS),
    "gemma3, wide window": (Gemma3TextConfig(**SHAPE, **GEMMA, sliding_window=64), SHARED_ROWS),
    "gemma3, narrow window": (Gemma3TextConfig(**SHAPE, **GEMMA, sliding_window=5), ALONE_ROWS),
    "gemma3, soft-capped": (
        Gemma3TextConfig(**SHAPE, **GEMMA, sliding_window=64, final_logit_softcapping=5.0),
        SHARED_ROWS,
    ),
    "gpt2": (
        GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, pad_token_id=0
        ),
        SHARED_ROWS,
    ),
    "bloom": (
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, pad_token_id=0),
        ALONE_ROWS,
    ),
}


def adapted(config: Any, *, scalar: bool = False) -> Any:
    """A random model under an adapter that changes it, frozen but for that, in fp32."""
    torch.manual_seed(0)
    loader = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    if scalar:
        config = type(config).from_dict({**config.to_dict(), "num_labels": 1})
    frozen = loader.from_config(config).requires_grad_(False).eval()
    model = add_adapter(fuse_layers(frozen), Lora(r=4, alpha=8), seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> tuple[Any, int]:
    return ARCHITECTURES[request.param]


def test_a_reward_model_has_factors_where_a_policy_has(architecture: tuple[Any, int]) -> None:
    """So that it can begin with those of a policy, which are copied by their names."""
    config, _ = architecture
    policy, scorer = (
        {name: parameter.shape for name, parameter in model.named_parameters() if ".lora_" in name}
        for model in (adapted(config), adapted(config, scalar=True))
    )
    assert policy == scorer
    assert policy


def plain_token_logps(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """One row alone: the model's own logits, a log-softmax, and the answer's tokens picked."""
    ids = torch.tensor([[*prompt, *answer]])
    with unfused():
        logps: Tensor = model(input_ids=ids).logits[0].log_softmax(-1)
    return logps[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).squeeze(1)


def gradient(value: Tensor, model: Any) -> Tensor:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = torch.autograd.grad(value, trained, allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.fixture
def quiet() -> Any:
    """Falling back is said; here it is expected and looked at by a test of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cannot read two answers behind one prompt.*")
        yield


@pytest.mark.usefixtures("quiet")
def test_log_probabilities_and_their_gradient(architecture: tuple[Any, int], packs: bool) -> None:
    config, rows = architecture
    model = adapted(config)
    can_pack = rows == SHARED_ROWS  # what shares prompts packs as well
    assert len(lay_out(model.get_base_model(), PAIRS).inputs["input_ids"]) == (1 if packs and can_pack else rows)
    weights = torch.linspace(-2, 3, len(PAIRS))
    ours = response_logps(model, PAIRS)
    plain = torch.stack([plain_token_logps(model, *pair).sum() for pair in PAIRS])
    assert plain.std() > 1
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    found, expected = gradient((weights * ours).sum(), model), gradient((weights * plain).sum(), model)
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.usefixtures("quiet", "packs")
def test_each_tokens_log_probability(architecture: tuple[Any, int]) -> None:
    model = adapted(architecture[0])
    with torch.no_grad():
        found, _ = token_logps(model, PAIRS)
        for row, (prompt, answer) in zip(found, PAIRS, strict=True):
            expected = plain_token_logps(model, prompt, answer)
            torch.testing.assert_close(row[: len(answer)], expected, rtol=1e-4, atol=1e-4)
            assert not row[len(answer) :].any()


@pytest.mark.usefixtures("quiet", "packs")
def test_scores_and_their_gradient(architecture: tuple[Any, int]) -> None:
    model = adapted(architecture[0], scalar=True)
    weights = torch.linspace(-2, 3, len(PAIRS))
    ours = scores(model, PAIRS)
    with unfused():
        alone = [model(input_ids=torch.tensor([[*prompt, *answer]])).logits.squeeze() for prompt, answer in PAIRS]
    plain = torch.stack(alone)
    assert plain.std() > 0
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    found, expected = gradient((weights * ours).sum(), model), gradient((weights * plain).sum(), model)
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_what_cannot_share_a_prompt_says_so() -> None:
    config, _ = ARCHITECTURES["bloom"]
    with pytest.warns(UserWarning, match="BloomForCausalLM cannot read two answers behind one prompt"):
        response_logps(adapted(config), PAIRS)
