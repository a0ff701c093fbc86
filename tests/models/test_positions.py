"""How far a model's positions reach, by its configuration, and answers that end there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, GPT2Config, GPT2LMHeadModel, GPTNeoConfig, LlamaConfig, Qwen2Config

from align_bench.models.base import find_base
from align_bench.models.generate import Decoding, generate
from align_bench.models.positions import position_limit, positions_of, within
from align_bench.records import TokenRow
from align_bench.train.feeds import mismatched_sequence

LLAMA = LlamaConfig(max_position_embeddings=100).to_dict()


def scaled(**rope: Any) -> dict[str, Any]:
    return {"max_position_embeddings": 100, "rope_scaling": rope}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (GPT2Config(n_positions=64).to_dict(), 64),
        (GPTNeoConfig(max_position_embeddings=48).to_dict(), 48),
        (LLAMA, 100),
        (Qwen2Config(max_position_embeddings=77).to_dict(), 77),
        ({"text_config": {"max_position_embeddings": 90}}, 90),
        (BloomConfig().to_dict(), None),
        ({"max_position_embeddings": 100, "alibi": True}, None),
        ({"max_position_embeddings": -1}, None),
        ({}, None),
        (scaled(type="linear", factor=2.0), 200),
        (scaled(rope_type="dynamic", factor=4.0), 400),
        (scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=100), 400),
        # What is counted in the limit already is not counted again.
        (scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=25), 100),
        (scaled(rope_type="llama3", factor=8.0, original_max_position_embeddings=12), 100),
        (scaled(rope_type="longrope", factor=8.0), 100),
        ({"max_position_embeddings": 100, "rope_parameters": {"rope_type": "linear", "factor": 3.0}}, 300),
        ({"max_position_embeddings": 100, "rope_parameters": {"full_attention": {"rope_type": "linear"}}}, 100),
    ],
)
def test_the_limit_is_what_the_configuration_gives(config: dict[str, Any], tokens: int | None) -> None:
    found = position_limit(config)
    assert (found and found.tokens) == tokens


def test_the_limit_says_where_it_stands() -> None:
    learned, stretched = position_limit({"n_positions": 64}), position_limit(scaled(rope_type="linear", factor=2.0))
    assert learned is not None
    assert stretched is not None
    assert learned.source == "n_positions: 64"
    assert stretched.source == "max_position_embeddings: 100, linear by 2"


def test_a_base_knows_its_limit(base_folder: Path, tmp_path: Path) -> None:
    limit = find_base(str(base_folder)).positions
    assert limit is not None
    assert limit.tokens == json.loads((base_folder / "config.json").read_text())["max_position_embeddings"]


@pytest.fixture(scope="module")
def short_model() -> Any:
    """A GPT-2 with 24 positions."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=24, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4)
    return GPT2LMHeadModel(config).eval()


class Ids:
    """A tokenizer that never ends an answer."""

    pad_token_id = 0
    eos_token_id = 1000


PROMPTS = [[2, 3, 4], [5] * 20, [6, 7] * 5, [8] * 22, [9] * 22, [3] * 24]
ROOM = [12, 4, 12, 2, 2, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("own", ["our decoding", "transformers' generation"])
def test_answers_end_at_the_last_position(
    own: str, temperature: float, short_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own != "our decoding":
        monkeypatch.setattr("align_bench.models.generate._continues", lambda model, pad: False)
    settings = Decoding(max_new_tokens=12, temperature=temperature, batch_size=2)
    found = generate(short_model, Ids(), PROMPTS, settings, seed=1)
    assert [len(answers[0].ids) for answers in found] == ROOM
    assert not any(answers[0].finished for answers in found)
    with torch.no_grad():  # what was written can be read
        for prompt, answers in zip(PROMPTS, found, strict=True):
            short_model(torch.tensor([[*prompt, *answers[0].ids]]))


def test_long_prompts_do_not_change_the_answers_to_others(short_model: Any) -> None:
    settings = Decoding(max_new_tokens=12, temperature=0.7, samples=3)
    short = [prompt for prompt, room in zip(PROMPTS, ROOM, strict=True) if room == 12]
    among = generate(short_model, Ids(), [*short, [8] * 22], settings, seed=1)
    assert among[:2] == generate(short_model, Ids(), short, settings, seed=1)
    assert [len(answer.ids) for answer in among[2]] == [2, 2, 2]


def test_another_rows_answer_is_cut_at_the_last_position(short_model: Any) -> None:
    rows = [TokenRow(0, (2,) * 10, (3,) * 12, (4,)), TokenRow(1, (5,) * 18, (6,), (7,))]
    assert positions_of(short_model) == 24
    prompt, answer = mismatched_sequence(rows, [1, 0], 1, "chosen", limit=positions_of(short_model))
    assert (len(prompt), answer) == (18, (3,) * 6)
    assert mismatched_sequence(rows, [1, 0], 1, "chosen", limit=None)[1] == (3,) * 12
    assert within(24, (1,) * 4, (2,) * 5) == (2,) * 5
