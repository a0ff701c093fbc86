"""Models with few positions, and tokenizers that do not fit their embeddings: refused before training, or trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from align_bench.errors import ModelError, SuiteError
from align_bench.models.base import find_base
from align_bench.models.tokenizer import load_tokenizer
from align_bench.planning.inputs import prepare
from align_bench.planning.lengths import plain_tokenizer
from align_bench.plugins.registry import load_registry
from align_bench.records import Update, no_update
from align_bench.report.schema import Report
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite

Write = Callable[..., Path]


class Recorder:
    """Records what a run says, and which stages it goes through."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.logged: list[str] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.stages.append(label)
        yield no_update

    def log(self, text: str) -> None:
        self.logged.append(text)


class Tried:
    """Runs a suite on a base, without a judge, and keeps what it went through."""

    def __init__(self, write: Write, tmp_path: Path) -> None:
        self.write, self.folder = write, tmp_path
        self.progress = Recorder()

    def run(self, base: Path, **changes: Any) -> Report:
        path = self.write(base=str(base), judge=[], methods=["kto"], **changes)
        prepared = prepare(load_suite(str(path)), load_registry())
        folders = Folders(self.folder / "runs", self.folder / "reports")
        return run(prepared, self.progress, folders, command="align-bench run")


@pytest.fixture
def tried(write_suite: Write, tmp_path: Path) -> Tried:
    return Tried(write_suite, tmp_path)


def pairs(file: Path, prompts: list[str]) -> dict[str, Any]:
    rows = [{"prompt": prompt, "chosen": f"It is {place}.", "rejected": "No."} for place, prompt in enumerate(prompts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"train": str(file), "val": str(file)}


@pytest.fixture
def gpt2(tmp_path: Path, tokenizer: Any) -> Path:
    """A GPT-2 with 64 learned positions."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=2, n_head=2, eos_token_id=tokenizer.eos_token_id
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def test_long_prompts_stop_a_run_before_training(tried: Tried, gpt2: Path, tmp_path: Path) -> None:
    data = pairs(tmp_path / "long.jsonl", [f"{place} {'word ' * 20}" for place in range(8)])
    with pytest.raises(SuiteError, match=r"generate\.max_new_tokens: got 32, but 8 of 8 prompts leave less room"):
        tried.run(gpt2, data=data, train={"max_length": 64, "batch_size": 4}, generate={"max_new_tokens": 32})
    assert set(tried.progress.stages) == {"tokens"}
    with pytest.raises(SuiteError, match="8 of 8 prompts"):  # of rows that are stored by now, too
        tried.run(gpt2, data=data, train={"max_length": 64, "batch_size": 4}, generate={"max_new_tokens": 32})
    assert set(tried.progress.stages) == {"tokens"}


def test_one_long_prompt_stops_nothing(tried: Tried, gpt2: Path, tmp_path: Path) -> None:
    prompts = [*(f"{place}?" for place in range(19)), "word " * 20, f"{99 * '1'}"]
    data = pairs(tmp_path / "one.jsonl", prompts)
    report = tried.run(
        gpt2, data=data, train={"max_length": 64, "batch_size": 8}, generate={"max_new_tokens": 32, "prompts": 20}
    )
    assert {result.status for result in report.results} == {"done"}
    assert any("1 of 20 prompts leave less room" in line for line in tried.progress.logged)
    text = (tmp_path / "reports" / "small" / "generations.jsonl").read_text(encoding="utf-8")
    cut = [row for row in map(json.loads, text.splitlines()) if not row["finished"] and row["tokens"] < 32]
    assert {row["cell"] for row in cut} == {"base", "kto"}
    assert len({row["prompt_id"] for row in cut}) == 1


def model_with(folder: Path, tokenizer: Any, vocabulary: int) -> Path:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=vocabulary, eos_token_id=tokenizer.eos_token_id, max_position_embeddings=128, **size
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def renumbered(folder: Path, tokenizer: Any, token: str, number: int) -> Any:
    """The tokenizer with another id for one of its added tokens."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["vocab"][token] = number
    for each in content["added_tokens"]:
        each["id"] = number if each["content"] == token else each["id"]
    file.write_text(json.dumps(content), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


FEW: dict[str, Any] = {"train": {"max_length": 128, "batch_size": 12}, "generate": {"prompts": 2, "max_new_tokens": 4}}


@pytest.mark.parametrize("vocabulary", [500, 512])
def test_ids_with_a_gap_and_spare_embeddings_train(
    vocabulary: int, tried: Tried, tmp_path: Path, tokenizer: Any
) -> None:
    gapped = renumbered(tmp_path / "gapped", tokenizer, "<|end|>", 499)
    assert gapped.eos_token_id == 499 >= len(gapped)
    report = tried.run(model_with(tmp_path / "base", gapped, vocabulary), **FEW)
    assert {result.status for result in report.results} == {"done"}


def test_an_id_beyond_the_embeddings_is_refused(tried: Tried, tmp_path: Path, tokenizer: Any) -> None:
    gapped = renumbered(tmp_path / "gapped", tokenizer, "<|user|>", 499)
    with pytest.raises(
        ModelError, match=r"gives '<\|user\|>' the id 499, but the model has 499 input embeddings \(vocab_size"
    ):
        tried.run(model_with(tmp_path / "base", gapped, 499), **FEW)
    assert set(tried.progress.stages) == {"tokens"}


def edited(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    kept = {key: value for key, value in (content | changes).items() if value is not None}
    (folder / file).write_text(json.dumps(kept), encoding="utf-8")


def test_a_pad_token_beyond_the_embeddings_gives_way(tried: Tried, tmp_path: Path, tokenizer: Any) -> None:
    padded = renumbered(tmp_path / "padded", tokenizer, "<|pad|>", 499)
    base = model_with(tmp_path / "base", padded, 450)
    found = load_tokenizer(find_base(str(base)))
    assert found.pad_token_id == found.eos_token_id
    assert {result.status for result in tried.run(base, **FEW).results} == {"done"}


def test_the_end_token_may_stand_in_the_models_configuration(
    tried: Tried, tmp_path: Path, tokenizer: Any, base_folder: Path
) -> None:
    base = model_with(tmp_path / "base", tokenizer, len(tokenizer))
    edited(base, "tokenizer_config.json", eos_token=None, pad_token=None)
    assert AutoTokenizer.from_pretrained(base).eos_token_id is None
    found = load_tokenizer(find_base(str(base)))
    assert (found.eos_token, found.pad_token) == ("<|end|>", "<|end|>")
    assert plain_tokenizer(find_base(str(base))).eos_token == "<|end|>"  # as a plan reads it
    assert {result.status for result in tried.run(base, **FEW).results} == {"done"}
    edited(base, "config.json", eos_token_id=None)
    with pytest.raises(ModelError, match=r"neither its tokenizer nor its config\.json names an end-of-sequence token"):
        load_tokenizer(find_base(str(base)))
