"""The suite for the course's own model and files: planned and run on files of their shape and a random small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from align_bench.cli.plan_view import plan_tables
from align_bench.data.planted import planted
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.report.tables import report_sections
from align_bench.runner.progress import NoProgress
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite
from align_bench.suite.models import TrainedJudge

pytestmark = pytest.mark.usefixtures("few_figures")

PROMPTS = 30
METHODS = ["rm", "poe_rm", "robust_rm", "dpo", "kto", "simpo", "orpo", "ppo"]
# What makes it small enough for a test, and nothing else.
SMALL = (
    "generate.max_new_tokens=6",
    "train.micro_batch_tokens=512",
    "tune.methods={rm: {learning_rate: [2e-5, 1e-4], batch_size: [32]}}",
    "methods=[rm, poe_rm, robust_rm, dpo, kto, simpo, orpo, {ppo: {reward: rm, max_new_tokens: 6}}]",
)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of the course's columns: each question several times, the choice as a text in one, an equal pair."""
    folder = tmp_path_factory.mktemp("course")
    pairs = planted("train", rows=PROMPTS)
    rows = [
        {
            "question": pair.prompt,
            "response_1": pair.chosen if number % 2 else pair.rejected,
            "response_2": pair.rejected if number % 2 else pair.chosen,
            "overall_response": 1 if number % 2 else 2,
        }
        for number, pair in enumerate([*pairs, *pairs, *pairs])
    ]
    equal = {**rows[0], "response_2": rows[0]["response_1"]}
    pq.write_table(pa.Table.from_pylist([*rows, equal]), folder / "train_30k.parquet")
    val = [
        {"question": pair.prompt, "response_1": pair.chosen, "response_2": pair.rejected, "overall_response": "1"}
        for pair in planted("val", rows=10)
    ]
    pq.write_table(pa.Table.from_pylist(val), folder / "val_1k.parquet")
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A random model of Qwen2.5-0.5B-Instruct's configuration, but for its size, with a tokenizer to that."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=56,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        max_window_layers=21,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        sliding_window=None,
        tie_word_embeddings=True,
        use_sliding_window=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prepared(*overrides: str) -> Prepared:
    return prepare(load_suite("assignment-qwen", overrides), load_registry())


@pytest.fixture
def given(course: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DATA", str(course))
    monkeypatch.setenv("QWEN", str(qwen))


def test_it_asks_for_the_courses_model_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COURSE_DATA", "QWEN"):
        monkeypatch.delenv(name, raising=False)
    suite = load_suite("assignment-qwen")
    assert suite.base == "Qwen/Qwen2.5-0.5B-Instruct"
    assert suite.data.train.path == "data/train_30k.parquet"
    assert suite.data.val.path == "data/val_1k.parquet"
    assert [method.name for method in suite.methods] == METHODS
    assert [method.name for method in load_suite("assignment").methods] == METHODS
    assert (suite.precision, suite.train.max_length, suite.generate.max_new_tokens) == ("nf4", 1024, 256)
    assert not any("learning_rate" in method.grid for method in suite.methods), "each method's default is made for it"


@pytest.mark.usefixtures("given")
def test_judge_and_test_pairs_are_cut_from_train_by_prompt(course: Path) -> None:
    rows = prepared().inputs.rows
    prompts = {split: {row.prompt for row in rows[split].read().rows} for split in ("train", "judge", "test")}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values())) == PROMPTS
    assert min(map(len, prompts.values())) > 0
    assert len(prompts["train"]) > len(prompts["judge"]) > len(prompts["test"])
    kept = sum(len(rows[split].read().rows) for split in prompts)
    assert kept == 3 * PROMPTS, "every row is in one of them, but for the pair of equal answers"
    (judge,) = load_suite("assignment-qwen").judge
    assert isinstance(judge, TrainedJudge)
    assert judge.data.path == str(course / "train_30k.parquet")


@pytest.mark.usefixtures("given")
def test_it_is_planned(tmp_path: Path) -> None:
    titles = [str(getattr(table, "title", "")) for table in plan_tables(prepared(), tmp_path / "runs")]
    (title,) = [title for title in titles if title.startswith("assignment-qwen: 8 cells on")]
    assert "nf4" in title


@pytest.mark.usefixtures("given")
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    report = run(prepared(*SMALL), NoProgress(), folders, command="align-bench run assignment-qwen")
    ended = {result.name: (result.status, result.reason) for result in report.results}
    assert ended == dict.fromkeys(["judge", "base", *METHODS], ("done", None))
    assert report.judges[0].overlap is not None
    assert report.judges[0].overlap.same_prompts == 0
    assert [found.cell.name for found in report.tested] == ["base", *METHODS[3:]]
    assert report.tuning is not None
    assert [len(method.trials) for method in report.tuning.methods] == [2]
    titles = [section.title for section in report_sections(report)]
    assert "Beside the course's report" in titles
    assert "Base and policies on the test split" in titles
