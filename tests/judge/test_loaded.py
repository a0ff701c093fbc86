"""Loaded judges: whole or refused, and scores that depend on neither batch nor padding."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from align_bench.errors import DataError, ModelError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import LoadedModel, load_judge
from align_bench.models.precision import Precision
from align_bench.models.weights import weights_digest
from align_bench.records import Conversation, Message
from align_bench.suite.models import LoadedJudge

Make = Callable[..., Path]
FP32 = Precision("fp32", "float32", "cpu")
RNG = random.Random(0)
TEXTS = [
    Conversation(
        (Message("user", " ".join(RNG.choices(["what", "is", "the", "capital", "of", "France"], k=1 + number % 7))),),
        " ".join(RNG.choices(["Paris", "Rome", "it", "is", "surely", "."], k=1 + 5 * number % 23)),
    )
    for number in range(12)
]


def edit(folder: Path, change: Any) -> Path:
    """The folder with other weights."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def load(folder: Path, template: Any = None) -> LoadedModel:
    found = load_judge(find_judge(LoadedJudge(model=str(folder))), FP32, template)
    assert isinstance(found, LoadedModel)
    return found


def alone(model: LoadedModel) -> list[float]:
    return [model([text], max_tokens=1)[0][0] for text in TEXTS]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_scores_depend_on_neither_batch_nor_padding(kind: str, tmp_path: Path, make_judge: Make) -> None:
    model = load(make_judge(tmp_path, kind))
    expected = alone(model)
    assert max(expected) - min(expected) > 0.1
    for limit in (1, 40, 100_000):
        for order in (TEXTS, TEXTS[::-1]):
            found, truncated = model(order, max_tokens=limit)
            assert truncated == 0
            assert found == pytest.approx(expected if order is TEXTS else expected[::-1], abs=1e-5)


def test_a_decoder_reads_its_own_chat_template_to_the_end(tmp_path: Path, tokenizer: Any, make_judge: Make) -> None:
    model = load(make_judge(tmp_path, "llama"))
    assert (model.template, model.labels, model.pooled) == ("chat", 1, True)
    text = TEXTS[3]
    rendered = f"<|user|>{text.prompt[0].content}<|end|><|assistant|>{text.answer}<|end|>"
    ids = torch.tensor([tokenizer(rendered, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        expected = model.model.score(model.model.model(ids).last_hidden_state)[0, -1, 0]
    assert model([text], max_tokens=100)[0] == pytest.approx([float(expected)], abs=1e-5)


def test_a_conversation_that_the_template_refuses_has_no_score(tmp_path: Path, make_judge: Make) -> None:
    model = load(make_judge(tmp_path, "llama"))
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    model.tokenizer.chat_template = refusal + model.tokenizer.chat_template
    other = Conversation((Message("system", "Be curt."), Message("user", "hi")), "Hello.")
    texts = [*TEXTS, *(replace(text, answer=text.answer + " yes") for text in TEXTS)]
    expected, _ = model(texts, max_tokens=100)
    found, _ = model([texts[0], other, *texts[1:]], max_tokens=100)
    assert math.isnan(found.pop(1))
    assert found == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match=r"refuses 1 of 13 conversations.*system, user, assistant.*no system turn"):
        model([*TEXTS, other], max_tokens=100)


def test_an_encoder_reads_prompt_and_answer_as_a_pair(tmp_path: Path, make_judge: Make) -> None:
    model = load(make_judge(tmp_path, "bert"))
    assert (model.template, model.pooled) == ("pair", False)
    text = TEXTS[5]
    encoded = model.tokenizer(text.prompt[0].content, text.answer, return_tensors="pt")
    assert set(encoded["token_type_ids"][0].tolist()) == {0, 1}
    with torch.no_grad():
        expected = model.model(**encoded).logits[0, 0]
    assert model([text], max_tokens=100)[0] == pytest.approx([float(expected)], abs=1e-5)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_two_labels_give_the_log_odds_of_the_second(
    kind: str, tmp_path: Path, tokenizer: Any, make_judge: Make
) -> None:
    model = load(make_judge(tmp_path, kind, labels=2))
    text = TEXTS[4]
    if kind == "llama":
        rendered = f"<|user|>{text.prompt[0].content}<|end|><|assistant|>{text.answer}<|end|>"
        inputs = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
        inputs = {"input_ids": inputs["input_ids"]}
    else:
        inputs = model.tokenizer(text.prompt[0].content, text.answer, return_tensors="pt")
    with torch.no_grad():
        model.model.config.pad_token_id = None
        zero, one = torch.log_softmax(model.model(**inputs).logits[0], 0).tolist()
    assert model([text], max_tokens=100)[0] == pytest.approx([one - zero], abs=1e-5)


def test_three_labels_are_refused(tmp_path: Path, make_judge: Make) -> None:
    with pytest.raises(ModelError, match="has 3 labels; expected 1"):
        load(make_judge(tmp_path, "llama", labels=3))


@pytest.mark.parametrize(("kind", "head"), [("llama", "score"), ("bert", "classifier")])
def test_a_head_that_is_missing_is_refused(kind: str, head: str, tmp_path: Path, make_judge: Make) -> None:
    folder = make_judge(tmp_path, kind)
    edit(folder, lambda weights: {name: one for name, one in weights.items() if not name.startswith(head)})
    with pytest.raises(ModelError, match=rf"its weights lack {head}\.(bias|weight).*scores at random"):
        load(folder)


def test_a_chat_model_without_a_head_is_refused(base_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"its weights lack score\.weight"):
        load(base_folder)


def test_an_align_anything_checkpoint_is_mapped(tmp_path: Path, make_judge: Make) -> None:
    plain = load(make_judge(tmp_path / "plain", "llama"))
    folder = make_judge(tmp_path / "anything", "llama")

    def renamed(weights: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("score.", "score_head."): one for name, one in weights.items()}

    edit(folder, renamed)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("id2label", "label2id", "num_labels"):  # its configuration knows nothing of the head
        config.pop(key, None)
    config["architectures"] = ["LlamaForScore"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = load(folder)
    assert model.labels == 1
    assert alone(model) == pytest.approx(alone(plain), abs=1e-6)


def test_what_is_too_long_is_cut_and_counted(tmp_path: Path, make_judge: Make) -> None:
    long = Conversation((Message("user", "what is"),), "Paris " * 300)
    for model in (load(make_judge(tmp_path / "a", "llama")), load(make_judge(tmp_path / "b", "bert"))):
        scores, truncated = model([long, TEXTS[0]], max_tokens=1000)
        assert truncated == 1
        assert all(map(torch.isfinite, torch.tensor(scores)))


def test_chat_needs_a_template(tmp_path: Path, make_judge: Make) -> None:
    with pytest.raises(ModelError, match="its tokenizer has no chat template") as caught:
        load(make_judge(tmp_path, "bert"), "chat")
    assert caught.value.fix == "write template: pair"


def test_pickles_are_refused(tmp_path: Path, make_judge: Make) -> None:
    folder = make_judge(tmp_path, "llama")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no \.safetensors weights"):
        load(folder)


def test_the_checksum_is_that_of_the_weights(tmp_path: Path, make_judge: Make) -> None:
    base = find_judge(LoadedJudge(model=str(make_judge(tmp_path, "llama"))))
    own = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert weights_digest(base.folder) == hashlib.sha256(f"model.safetensors:{own}\n".encode()).hexdigest()


def test_a_folder_has_no_revision(tmp_path: Path, make_judge: Make) -> None:
    folder = make_judge(tmp_path, "llama")
    with pytest.raises(ModelError, match="it is a local folder"):
        find_judge(LoadedJudge(model=str(folder), revision="main"))


DECODER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODERS: dict[str, Any] = {
    "llama": lambda **more: LlamaConfig(**DECODER, num_key_value_heads=2, **more),
    "mistral": lambda **more: MistralConfig(**DECODER, num_key_value_heads=2, sliding_window=None, **more),
    "mistral that slides": lambda **more: MistralConfig(**DECODER, num_key_value_heads=2, sliding_window=8, **more),
    "qwen2": lambda **more: Qwen2Config(**DECODER, num_key_value_heads=2, **more),
    "qwen3": lambda **more: Qwen3Config(**DECODER, num_key_value_heads=2, head_dim=16, **more),
    "gemma2": lambda **more: Gemma2Config(**DECODER, num_key_value_heads=2, head_dim=8, **more),
    "gpt2": lambda **more: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **more),
    "gpt_neox": lambda **more: GPTNeoXConfig(**DECODER, **more),
}


@pytest.mark.parametrize("pad", ["pad token", "no pad token"])
@pytest.mark.parametrize("kind", DECODERS)
def test_every_decoder_scores_in_bf16_as_in_fp32(kind: str, pad: str, tmp_path: Path, tokenizer: Any) -> None:
    torch.manual_seed(3)
    known = tokenizer.pad_token_id if pad == "pad token" else None
    config = DECODERS[kind](vocab_size=len(tokenizer), num_labels=1, initializer_range=0.2, pad_token_id=known)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    exact = load(tmp_path)
    rounded = load_judge(find_judge(LoadedJudge(model=str(tmp_path))), Precision("bf16", "bfloat16", "cpu"))
    assert isinstance(rounded, LoadedModel)
    assert next(rounded.model.parameters()).dtype == torch.bfloat16
    assert rounded.model.score.weight.dtype == torch.float32
    assert (exact.pooled, rounded.pooled) == (True, True)
    expected = alone(exact)
    spread = max(expected) - min(expected)
    assert spread > 0.3
    for limit in (1, 100_000):
        found, _ = rounded(TEXTS, max_tokens=limit)
        assert found == pytest.approx(expected, abs=0.04 * spread)
    ids = torch.tensor([rounded._encoded([(TEXTS[2].prompt, TEXTS[2].answer)])[0][0]])
    with torch.no_grad():  # the model's own forward pass agrees with its head in fp32, too
        own = float(rounded.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
    assert own == pytest.approx(rounded([TEXTS[2]], max_tokens=1)[0][0], abs=0.02 * spread)


def test_a_decoder_that_pools_by_itself_needs_no_pad_token(tmp_path: Path, make_judge: Make) -> None:
    model = load(make_judge(tmp_path, "llama"))
    model.model.config.pad_token_id = None
    itself = replace(model, pooled=False)
    assert itself(TEXTS, max_tokens=100_000)[0] == pytest.approx(alone(model), abs=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_what_is_too_long_is_cut_at_the_last_position(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    # RoBERTa's 40 positions begin behind its padding token, whose id is 1.
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "num_labels": 1, "pad_token_id": 1}
    config = (
        RobertaConfig(**DECODER, **size, max_position_embeddings=40)
        if kind == "roberta"
        else GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=38, **size)
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load(tmp_path, "chat")
    assert model.max_length == 38
    found, truncated = model([Conversation((Message("user", "word " * 50),), "yes"), TEXTS[0]], max_tokens=1000)
    assert truncated == 1
    assert all(math.isfinite(score) for score in found)
