"""Adapter folders as a base and as a judge: peft's own, TRL's, a cell's of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from align_bench.data.answers import read_answers
from align_bench.errors import ModelError
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import ExportedModel, LoadedModel, load_judge
from align_bench.models.base import base_parameters, find_base, template_inputs
from align_bench.models.exported import NOTE
from align_bench.models.load import load_policy, load_tokenizer
from align_bench.models.precision import Precision
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Conversation, Message
from align_bench.runner.run import Folders, run
from align_bench.runner.score_file import JudgeChoice, score_file
from align_bench.store.remembered import CACHE_VARIABLE
from align_bench.suite.load import load_suite
from align_bench.suite.models import LoadedJudge
from tests.runner.test_model_limits import Recorder

pytestmark = pytest.mark.usefixtures("few_figures")

FP32 = Precision("fp32", "float32", "cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9, 30, 31]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def shaken(model: Any) -> Any:
    """With an adapter, and a head, that matter."""
    torch.manual_seed(4)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * (0.3 if "score" in name else 0.1)
    return model.eval()


@pytest.fixture
def policy_adapter(base_folder: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    shaken(get_peft_model(model, config)).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def reward_adapter(base_folder: Path, tmp_path: Path, tokenizer: Any) -> Path:
    """As TRL's RewardTrainer leaves it: with a score head among the saved modules, and the tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1)
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear", modules_to_save=["score"])
    shaken(get_peft_model(model, config)).save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def test_an_adapter_as_base_is_added_to_its_own_base(policy_adapter: Path, base_folder: Path, cache: Path) -> None:
    base = find_base(str(policy_adapter))
    with torch.no_grad():
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), policy_adapter)
        logits = expected(IDS).logits
        plain = AutoModelForCausalLM.from_pretrained(base_folder)(IDS).logits
        found = load_policy(base, FP32)(IDS).logits
    assert torch.allclose(found, logits, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-1)
    assert base_parameters(base) == base_parameters(find_base(str(base_folder)))
    assert (
        load_tokenizer(base)("What is")["input_ids"] == AutoTokenizer.from_pretrained(base_folder)("What is").input_ids
    )
    assert base.place == str(base.folder)
    assert find_base(base.place).digest == base.digest
    assert base.folder.parent.parent == cache


def test_an_adapter_is_added_once(policy_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_base(str(policy_adapter))
    monkeypatch.setattr("align_bench.models.merge.write_whole", lambda *args: pytest.fail("it is there already"))
    assert find_base(str(policy_adapter)) == first
    weights = load_file(policy_adapter / "adapter_model.safetensors")
    save_file({name: one + 1 for name, one in weights.items()}, policy_adapter / "adapter_model.safetensors")
    with pytest.raises(pytest.fail.Exception):  # another adapter, another model
        find_base(str(policy_adapter))


def test_tokens_that_an_adapter_added_are_kept(base_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|extra|>"]})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    shaken(get_peft_model(model, config)).save_pretrained(tmp_path / "more", save_embedding_layers=True)
    tokenizer.save_pretrained(tmp_path / "more")
    base = find_base(str(tmp_path / "more"))
    assert base.vocabulary == len(tokenizer) == (find_base(str(base_folder)).vocabulary or 0) + 1
    assert "<|extra|>" in load_tokenizer(base).get_vocab()
    with torch.no_grad():
        assert torch.equal(load_policy(base, FP32).get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_base_that_is_missing_is_told(policy_adapter: Path, reward_adapter: Path) -> None:
    for folder in (policy_adapter, reward_adapter):
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"base '.*policy' is an adapter on './gone', which cannot be had") as found:
        find_base(str(policy_adapter))
    assert "adapter_config.json, as base_model_name_or_path" in str(found.value.fix)
    with pytest.raises(ModelError, match=r"judge '.*reward' is an adapter on './gone', which cannot be had"):
        find_judge(LoadedJudge(model=str(reward_adapter)))


def test_what_an_adapter_cannot_be_is_told(
    policy_adapter: Path, reward_adapter: Path, base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelError, match=r"is the adapter of a reward model \(score\.weight\), which writes no answers"
    ):
        find_base(str(reward_adapter))
    with pytest.raises(ModelError, match=r"brings no weights of a head .* scores at random"):
        load_judge(find_judge(LoadedJudge(model=str(policy_adapter))), FP32)
    prompts = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_folder),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    )
    prompts.save_pretrained(tmp_path / "prompts")
    with pytest.raises(ModelError, match="an adapter of type PromptTuningConfig cannot be added"):
        find_base(str(tmp_path / "prompts"))


@pytest.mark.parametrize("own_tokenizer", [True, False])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_reward_adapter_as_judge(
    compute: Any, own_tokenizer: bool, reward_adapter: Path, base_folder: Path, tokenizer: Any
) -> None:
    if not own_tokenizer:
        for file in reward_adapter.glob("*token*"):
            file.unlink()
        (reward_adapter / "chat_template.jinja").unlink(missing_ok=True)
    model = load_judge(find_judge(LoadedJudge(model=str(reward_adapter))), Precision("fp32", compute, "cpu"))
    assert isinstance(model, LoadedModel)
    assert (model.template, model.labels, model.pooled) == ("chat", 1, True)
    text = Conversation((Message("user", "What is the capital?"),), "It is Paris.")
    rendered = f"<|user|>{text.prompt[0].content}<|end|><|assistant|>{text.answer}<|end|>"
    ids = torch.tensor([tokenizer(rendered, add_special_tokens=False)["input_ids"]])
    plain = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(plain, reward_adapter).eval()(ids).logits.item()
    exact = compute == "float32"
    assert model([text], max_tokens=100)[0] == pytest.approx([expected], abs=1e-4 if exact else 0.2)
    head = load_file(reward_adapter / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert torch.equal(model.model.score.weight, head)


def test_a_cells_folder_is_a_base_and_a_judge(
    write_suite: Callable[..., Path], tmp_path: Path, base_folder: Path
) -> None:
    path = write_suite(judge={"method": "rm", "data": {"path": "embedded/planted", "rows": 24}})
    prepared = prepare(load_suite(str(path)), load_registry())
    run(prepared, Recorder(), Folders(tmp_path / "runs", tmp_path / "reports"), command="align-bench run")
    (dpo,) = (tmp_path / "runs" / "adapter").glob("dpo-0-*")
    reward = next((tmp_path / "runs" / "adapter").glob("rm-0-*"))
    base = find_base(str(dpo))
    with torch.no_grad():
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), dpo)(IDS).logits
        assert torch.allclose(load_policy(base, FP32)(IDS).logits, expected, atol=1e-4)
    with pytest.raises(ModelError, match="is an exported policy, which has no score"):
        find_judge(LoadedJudge(model=str(dpo)))
    model = load_judge(find_judge(LoadedJudge(model=str(reward))), FP32)
    assert isinstance(model, ExportedModel)
    assert model.max_length == 128
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "What is 2 plus 2?", "chosen": "It is 4.", "rejected": "No idea."}\n', encoding="utf-8")
    found = []
    for number, judge in enumerate((str(reward), "small:rm")):
        choice = JudgeChoice(judge, precision="fp32")
        out = tmp_path / f"scored{number}.jsonl"
        scored = score_file(
            read_answers(rows, {}), choice, runs=tmp_path / "runs", out=out, name="score", update=lambda *_: None
        )
        found.append(scored.scores)
    assert found[0] == found[1]


def test_the_note_of_a_cells_folder_holds_its_base(policy_adapter: Path, base_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base_folder, tmp_path / "other")
    note = {"kind": "policy", "form": "adapter", "base": str(other), "base_digest": find_base(str(other)).digest}
    more = {"storage": "fp32", "dtype": "float32", "max_length": 64, "version": 1}
    (policy_adapter / NOTE).write_text(json.dumps(note | more), encoding="utf-8")
    assert find_base(str(policy_adapter)).vocabulary == find_base(str(other)).vocabulary
    (other / "config.json").write_text((other / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match="has changed since the adapter was trained on it"):
        find_base(str(policy_adapter))


def test_the_date_is_asked_of_the_template_that_writes(reward_adapter: Path, tmp_path: Path) -> None:
    judge = find_judge(LoadedJudge(model=str(reward_adapter)))
    assert template_inputs(judge).date is None
    (reward_adapter / "chat_template.jinja").write_text("{{ strftime_now('%d') }}", encoding="utf-8")
    assert template_inputs(judge).date is not None


def test_another_base_makes_another_judge(reward_adapter: Path, base_folder: Path, tmp_path: Path) -> None:
    before = find_judge(LoadedJudge(model=str(reward_adapter))).digest
    other = shutil.copytree(base_folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: one + 1 for name, one in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    file = reward_adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"base_model_name_or_path": str(other)}), encoding="utf-8")
    named = find_judge(LoadedJudge(model=str(reward_adapter))).digest
    save_file({name: one + 2 for name, one in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    assert len({before, named, find_judge(LoadedJudge(model=str(reward_adapter))).digest}) == 3
