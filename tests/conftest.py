"""Fixtures: a chat model of a few thousand parameters made on the spot, and a suite small enough to run in seconds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from faults import LOADED_BY_RUNS

from align_bench.plugins import registry
from align_bench.plugins.modules import PluginFiles
from align_bench.plugins.registry import Plugin
from tests import commands
from tests.commands import Command, StartCommand

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# A model this small only loses by sharing its work: on a busy machine, threads that wait for each other take minutes.
torch.set_num_threads(1)

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# Folders with the files that take longest.
LONG = ("benchmarks", "runner", "cli", "tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that at the end no process is left alone with one of them."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def _collections_are_short() -> None:
    """A run collects garbage when it lets go of a model; it need not look through pytest and all imported libraries.

    They are a million objects, and looking through them took more than half of the time of tests that run suites.
    """
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """What every run does, and no test looks at, is done quickly.

    Nothing waits for the disk (what was written outlives a killed process all the same); built-in methods, which no
    test edits, are read once, for lists of parameters too; and the machine's speed is measured on small matrices, bf16
    being slow on many CPUs.
    """
    original = registry._methods

    @cache
    def built_in(path: Path) -> tuple[Plugin, ...]:
        return original(path, "built-in", PluginFiles())

    def methods(path: Path, origin: str, files: PluginFiles, package: str | None = None) -> tuple[Plugin, ...]:
        return built_in(path) if origin == "built-in" else original(path, origin, files, package)

    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(registry, "_methods", methods)
    patch.setattr("align_bench.models.peak._SIDE", 256)


@pytest.fixture(scope="module")
def few_figures() -> Iterator[None]:
    """Drawing takes a third of a small run; where nobody looks at them, only the figures of sweeps are drawn."""
    from align_bench.report.figures import training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_bench.report.figures.DRAWN", (training.sweeps, training.trials))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE tokenizer with a chat template, trained on planted texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from align_bench.data.planted import planted

    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([f"{pair.prompt} {pair.chosen}" for pair in planted("train", rows=100)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A random Llama of about 40 thousand parameters, saved with its tokenizer."""
    import peft  # noqa: F401 - what tests import in any case
    from transformers import LlamaConfig, LlamaForCausalLM

    gc.freeze()

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_suite(base_folder: Path) -> dict[str, Any]:
    """A suite that runs in seconds, as its YAML would be read.

    It audits no reward model, which takes a sixth of a small run; tests that look at audits add `audit`.
    """
    return {
        "name": "small",
        "base": str(base_folder),
        "precision": "fp32",
        "lora": {"r": 4, "alpha": 8},
        "data": {
            "train": {"path": "embedded/planted", "rows": 24},
            "val": {"path": "embedded/planted", "rows": 20},
        },
        "judge": {"method": "rm", "data": {"path": "embedded/planted", "rows": 24}},
        "train": {"batch_size": 8, "max_length": 128},
        "generate": {"prompts": 8, "max_new_tokens": 6},
        "audit": {"pairs": 0},
        "methods": ["rm", "dpo"],
    }


@pytest.fixture
def write_suite(tmp_path: Path, small_suite: dict[str, Any]) -> Callable[..., Path]:
    """Writes the small suite into its own folder; keyword arguments replace its keys."""

    def write(**changes: Any) -> Path:
        folder = tmp_path / "suite"
        folder.mkdir(exist_ok=True)
        path = folder / "small.yaml"
        path.write_text(yaml.safe_dump({**small_suite, **changes}), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def copies() -> ForkServerContext:
    """Starts processes as copies of one that has imported what runs need, and done nothing but what is in warm.py.

    Importing takes a new process longer than all the work that tests give it. What is imported is what tests import:
    the installed package, and not what lies in the working folder.
    """
    multiprocessing.set_forkserver_preload([*LOADED_BY_RUNS, "tests.warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]))
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@pytest.fixture
def start_command(copies: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartCommand]:
    """Starts `align-bench` in a copy; see `commands.start`. None outlives its test."""
    started: list[Command] = []

    def start(*arguments: str, **options: Any) -> Command:
        started.append(commands.start(copies, tmp_path_factory.mktemp("command"), arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.join()


KILLED = """
import os, signal
from tests.commands import short_work
short_work()
from contextlib import contextmanager
from pathlib import Path
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.run import Folders, run
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

now = None

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Killer:
    @contextmanager
    def stage(self, cell, label):
        global now
        now = f"{cell}: {label}"
        def update(done, total, note=""):
            if now == fatal and done >= min(2, total):
                die()
        yield update
        now = None
    def log(self, text):
        pass

put = Store.put
Store.put = lambda *args: die() if now == fatal else put(*args)
folders = Folders(root / "runs", root / "reports")
run(prepare(load_suite(str(suite)), load_registry()), Killer(), folders, command="x")
"""


@pytest.fixture(scope="session")
def killed_at(copies: ForkServerContext) -> Callable[[Path, Path, str], None]:
    """Runs a suite in a process that kills itself at a stage, `CELL: LABEL`.

    It dies at the stage's second update, or at its only one; without any, with the work done and nothing stored.
    """

    def killed(suite: Path, root: Path, stage: str) -> None:
        process = copies.Process(target=exec, args=(KILLED, {"suite": suite, "root": root, "fatal": stage}))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"there is no stage {stage!r}"

    return killed


@pytest.fixture(scope="session")
def make_judge(tokenizer: Any) -> Callable[..., Path]:
    """Writes a random sequence-classification model: `llama` with a chat template, or `bert` for pairs of texts."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
    )

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}

    def make(folder: Path, kind: str, labels: int = 1) -> Path:
        torch.manual_seed(1)
        more = {"num_labels": labels, "initializer_range": 0.3, **size}
        if kind == "llama":
            ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            LlamaForSequenceClassification(LlamaConfig(max_position_embeddings=256, **ids, **more)).save_pretrained(
                folder
            )
            tokenizer.save_pretrained(folder)
            return folder
        pairs = _pair_tokenizer(tokenizer)
        config = BertConfig(vocab_size=len(pairs), max_position_embeddings=96, **more)
        BertForSequenceClassification(config).save_pretrained(folder)
        pairs.save_pretrained(folder)
        return folder

    return make


def _pair_tokenizer(tokenizer: Any) -> Any:
    """The same byte-level tokens, in BERT's form of a pair."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    start, end = (inner.token_to_id(token) for token in ("<|system|>", "<|end|>"))
    inner.post_processor = processors.TemplateProcessing(
        single="<|system|> $A <|end|>",
        pair="<|system|> $A <|end|> $B:1 <|end|>:1",
        special_tokens=[("<|system|>", start), ("<|end|>", end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",
        cls_token="<|system|>",
        sep_token="<|end|>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
