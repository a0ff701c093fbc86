"""Bases from folders and GGUF files, precisions, adapters, and heads that must not be missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    FalconMambaConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
)

from align_bench.errors import ModelError
from align_bench.models import load
from align_bench.models.base import Base, base_parameters, find_base
from align_bench.models.load import (
    add_adapter,
    as_scorer,
    draw_head,
    footprint,
    generation_ends,
    load_adapter,
    load_policy,
    load_scorer,
    load_tokenizer,
    save_adapter,
    without_adapter,
)
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.precision import Precision, resolve_precision
from align_bench.suite.models import Lora

FP32 = Precision("fp32", "float32", "cpu")
ROWS = [((5, 6, 7), (8, 9)), ((5,), (6, 7, 8, 9, 10))]
LORA = Lora(r=4, alpha=8)
SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def perturb(model: Any) -> None:
    """Move every trained weight, so that the adapter does something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def test_the_embedded_base_needs_no_network() -> None:
    base = find_base("embedded/tiny")
    assert 1e6 < base_parameters(base) < 4e6
    tokenizer = load_tokenizer(base)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.eos_token_id in generation_ends(load_policy(base, FP32), tokenizer)


def test_a_broken_config_is_one_clear_line(base_folder: Path, tmp_path: Path) -> None:
    for source in base_folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(find_base(str(tmp_path)), FP32)


def test_a_folder_without_a_tokenizer_is_told(base_folder: Path, tmp_path: Path) -> None:
    for source in base_folder.iterdir():
        if not source.name.startswith("tokenizer"):
            (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(ModelError, match=r"holds no tokenizer, expected tokenizer\.json"):
        load_tokenizer(find_base(str(tmp_path)))


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json"])
def test_a_tokenizer_of_another_kind_is_left_to_transformers(base_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_bytes((base_folder / "config.json").read_bytes())
    (tmp_path / name).write_text("no tokenizer")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(Base("other", tmp_path, None, ""))


@pytest.mark.parametrize("storage", ["nf4", "bf16", "fp32"])
def test_every_precision_trains_an_fp32_adapter(base_folder: Path, storage: str) -> None:
    base = find_base(str(base_folder))
    model = add_adapter(load_policy(base, resolve_precision(storage, "cpu")), LORA, seed=0)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert all("lora_" in name for name in trained)
    response_logps(model, ROWS).sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in trained.values())


def test_nf4_is_stored_in_four_bits_and_stays_near_the_original(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_has_room_for_plain_weights", lambda model, precision: False)
    base = find_base(str(base_folder))
    plain, packed = load_policy(base, FP32), load_policy(base, resolve_precision("nf4", "cpu"))
    assert footprint(packed).parameters == footprint(plain).parameters == base_parameters(base)
    assert footprint(packed).bytes < footprint(plain).bytes
    exact, near = response_logps(plain, ROWS), response_logps(packed, ROWS)
    assert not torch.equal(exact, near)
    torch.testing.assert_close(near.float(), exact, rtol=0.3, atol=2)


@pytest.mark.parametrize("adapted", [False, True])
def test_nf4_dequantised_once_gives_the_same_numbers(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch, adapted: bool
) -> None:
    base, precision = find_base(str(base_folder)), Precision("nf4", "float32", "cpu")

    def measured(room: bool) -> tuple[int, list[torch.Tensor]]:
        monkeypatch.setattr(load, "_has_room_for_plain_weights", lambda model, precision: room)
        model = load_policy(base, precision)
        size = footprint(model)
        assert size.trainable == 0
        if not adapted:
            return size.bytes, [response_logps(model, ROWS)]
        model = add_adapter(model, LORA, seed=0)
        perturb(model)
        logps = response_logps(model, ROWS)
        logps.sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return size.bytes, [logps.detach(), *gradients]

    packed_bytes, packed = measured(room=False)
    plain_bytes, plain = measured(room=True)
    assert plain_bytes > packed_bytes
    assert len(plain) == len(packed)
    for one, other in zip(plain, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_policy_adapter_loads_with_plain_peft(base_folder: Path, tmp_path: Path) -> None:
    base = find_base(str(base_folder))
    model = add_adapter(load_policy(base, FP32), LORA, seed=0)
    perturb(model)
    save_adapter(model, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".safetensors"]
    plain = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    expected = response_logps(model.eval(), ROWS)
    torch.testing.assert_close(response_logps(PeftModel.from_pretrained(plain, tmp_path).eval(), ROWS), expected)
    torch.testing.assert_close(response_logps(load_adapter(load_policy(base, FP32), tmp_path), ROWS), expected)


def test_a_scalar_head_is_saved_with_its_adapter(base_folder: Path, tmp_path: Path) -> None:
    base = find_base(str(base_folder))
    model = add_adapter(load_scorer(base, FP32, seed=0), LORA, seed=0)
    perturb(model)
    save_adapter(model, tmp_path)
    expected = scores(model.eval(), ROWS)
    # Another seed draws another head, so agreement means that the saved one was loaded.
    torch.testing.assert_close(scores(load_adapter(load_scorer(base, FP32, seed=9), tmp_path), ROWS), expected)
    plain = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32)
    torch.testing.assert_close(scores(PeftModel.from_pretrained(plain, tmp_path).eval(), ROWS), expected)


@pytest.mark.parametrize("storage", ["fp32", "nf4"])
@pytest.mark.parametrize("loader", [load_policy, load_scorer])
def test_a_base_comes_back_from_under_an_adapter_as_it_was(base_folder: Path, loader: Any, storage: str) -> None:
    """It serves the next cell, whose numbers must not depend on which cells came before it."""
    precision = Precision(storage, "float32", "cpu")
    base = loader(find_base(str(base_folder)), precision)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    kinds = [type(module) for module in base.modules()]
    first = add_adapter(base, LORA, seed=0)
    perturb(first)
    first.train()
    again = without_adapter(first)
    assert again is base
    assert [type(module) for module in again.modules()] == kinds
    assert before.keys() == again.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in again.state_dict().items())
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not any(module.training for module in again.modules())
    measure = scores if loader is load_scorer else response_logps
    other = add_adapter(again, LORA, seed=1)
    fresh = add_adapter(loader(find_base(str(base_folder)), precision), LORA, seed=1)
    assert torch.equal(measure(other.eval(), ROWS), measure(fresh.eval(), ROWS))


@pytest.mark.parametrize("storage", ["nf4", "bf16", "fp32"])
def test_a_scorer_on_a_policys_backbone_is_the_loaded_one(base_folder: Path, tmp_path: Path, storage: str) -> None:
    base, precision = find_base(str(base_folder)), resolve_precision(storage, "cpu")
    trained = add_adapter(load_policy(base, precision), LORA, seed=0)
    perturb(trained)
    found, loaded = as_scorer(without_adapter(trained), seed=3), load_scorer(base, precision, seed=3)
    own, other = found.state_dict(), loaded.state_dict()
    assert list(own) == list(other)
    assert all(tensor.dtype == own[name].dtype and torch.equal(own[name], tensor) for name, tensor in other.items())
    assert [type(module) for module in found.modules()] == [type(module) for module in loaded.modules()]
    assert found.config.to_dict() == loaded.config.to_dict()
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert not any(module.training for module in found.modules())
    for number, model in enumerate((found, loaded)):
        adapted = add_adapter(model, LORA, seed=1)
        perturb(adapted)
        save_adapter(adapted, tmp_path / str(number))
        model.kept = scores(adapted.eval(), ROWS)
    assert torch.equal(found.kept, loaded.kept)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_no_scorer_is_put_on_weights_that_stay_quantised(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_has_room_for_plain_weights", lambda *_: False)
    assert as_scorer(load_policy(find_base(str(base_folder)), resolve_precision("nf4", "cpu"))) is None


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        (LlamaConfig(**SHAPE), True),
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, pad_token_id=0), True),
        (Gemma3TextConfig(**SHAPE, head_dim=8), True),
        (FalconMambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1), False),  # has no classifier
    ],
)
def test_a_backbone_is_shared_where_the_classifier_is_that_and_a_head(config: Any, shared: bool) -> None:
    policy = AutoModelForCausalLM.from_config(config).eval()
    backbone = policy.base_model
    found = as_scorer(policy)
    assert (found is not None) == shared
    if shared:
        assert found.base_model is backbone
        assert scores(found, ROWS).isfinite().all()


def test_an_adapter_without_its_head_is_refused(base_folder: Path, tmp_path: Path) -> None:
    base = find_base(str(base_folder))
    save_adapter(add_adapter(load_scorer(base, FP32), LORA, seed=0), tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    headless = {name: tensor for name, tensor in weights.items() if "score" not in name}
    assert len(headless) < len(weights)
    save_file(headless, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="scalar head"):
        load_adapter(load_scorer(base, FP32), tmp_path)


def test_a_folder_without_an_adapter_is_refused(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        load_adapter(load_policy(find_base(str(base_folder)), FP32), tmp_path)


def test_unknown_target_modules_are_told(base_folder: Path) -> None:
    with pytest.raises(ModelError, match="lora"):
        add_adapter(load_policy(find_base(str(base_folder)), FP32), Lora(target_modules=["no_such"]), seed=0)


def test_the_seed_decides_adapter_and_head(base_folder: Path) -> None:
    base = find_base(str(base_folder))

    def head(seed: int) -> torch.Tensor:
        weight: torch.Tensor = next(load_scorer(base, FP32, seed=seed).score.parameters())
        return weight

    assert torch.equal(head(3), head(3))
    assert not torch.equal(head(3), head(4))


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE, initializer_range=0.2),
        Gemma3TextConfig(**SHAPE, head_dim=8),
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_a_head_is_the_one_that_transformers_draws_and_is_drawn_anew_for_another_seed(
    config: Any, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    torch.manual_seed(3)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).score.weight
    scorer = load_scorer(Base("small", tmp_path, None, ""), FP32, seed=3)
    assert torch.equal(scorer.score.weight, theirs)
    assert not torch.equal(draw_head(scorer, seed=4).score.weight, theirs)
    assert torch.equal(draw_head(scorer, seed=3).score.weight, theirs)


def test_a_head_is_the_same_in_every_precision(base_folder: Path) -> None:
    base = find_base(str(base_folder))
    bf16 = Precision("bf16", "bfloat16", "cpu")
    assert torch.equal(load_scorer(base, bf16, seed=3).score.weight, load_scorer(base, FP32, seed=3).score.weight)


def write_gguf(path: Path, model: Any) -> None:
    """The tiny Llama as a GGUF file, with just the keys that transformers reads; no tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(10000.0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        rotary = next((count for part, count in heads.items() if part in name), None)
        if rotary:  # llama.cpp keeps the halves of each head interleaved
            rows, columns = tensor.shape
            tensor = tensor.view(rotary, 2, rows // rotary // 2, columns).transpose(1, 2).reshape(rows, columns)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("storage", ["fp32", "nf4"])
def test_a_gguf_file_is_a_base(base_folder: Path, tmp_path: Path, storage: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    write_gguf(tmp_path / "tiny.gguf", plain)
    base = find_base(str(tmp_path / "tiny.gguf"))
    assert base.gguf == "tiny.gguf"
    assert base.positions is not None
    assert base.positions.tokens == plain.config.max_position_embeddings
    precision = resolve_precision(storage, "cpu")
    assert torch.isfinite(scores(load_scorer(base, precision), ROWS)).all()
    loaded = load_policy(base, precision)
    from_folder = load_policy(find_base(str(base_folder)), precision)
    torch.testing.assert_close(response_logps(loaded, ROWS), response_logps(from_folder, ROWS), rtol=1e-3, atol=1e-3)


def test_attention_is_fused_where_the_architecture_has_it(base_folder: Path, tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    shutil.copytree(base_folder, tmp_path / "bloom")
    torch.manual_seed(0)
    BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=2)).save_pretrained(
        tmp_path / "bloom"
    )
    assert load_policy(find_base(str(base_folder)), FP32).config._attn_implementation == "sdpa"
    assert load_policy(find_base(str(tmp_path / "bloom")), FP32).config._attn_implementation == "eager"
