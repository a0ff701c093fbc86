"""One side of a comparison with TRL, in a process of its own: works when it is told to, and says what it took.

`vs_trl.py` starts it with the part's settings as JSON and tells it `go`; each `go` is answered by one line of JSON.
Both sides read the same rows, load the same base, draw the same adapter and run the same optimizer.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import math
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from peft.tuners.lora import Linear

from align_bench.api import Pair, PairJob
from align_bench.data.batches import effective_batches
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, table_logps
from align_bench.judge.audit import audit
from align_bench.judge.reward_model import RewardModel
from align_bench.models.base import Base, find_base
from align_bench.models.compute import compute_dtype
from align_bench.models.generate import Answer, generate
from align_bench.models.load import (
    add_adapter,
    draw_head,
    generation_ends,
    load_policy,
    load_scorer,
    load_tokenizer,
    save_adapter,
)
from align_bench.models.lora import FusedLinear
from align_bench.models.micro_batches import scoring_tokens
from align_bench.models.precision import Precision, resolve_precision
from align_bench.plugins.registry import load_registry
from align_bench.records import Conversation, TokenRow, Update, no_update
from align_bench.runner.allocator import keep_freed
from align_bench.runner.costs import Meter
from align_bench.runner.progress import NoProgress
from align_bench.suite.load import load_suite
from align_bench.suite.models import Audit, Generate, Lora, Suite, Train
from align_bench.train.feeds import FEEDS, UnpairedFeed, mismatched_sequence
from align_bench.train.job import TrainingJob, TrainLog
from align_bench.train.loop import train
from align_bench.train.online import train_online
from align_bench.train.recipe import train_by_recipe

SEED = 0
LORA = Lora()
TRL_BATCH = 8  # rows that TRL, and a script written by hand, evaluate at once
CHECKED_STEPS = 2  # losses of these are compared; the first of DPO and KTO is a constant
METHODS = ("rm", "dpo", "kto", "simpo", "orpo")
STAGES = (
    "loading",
    "reference",
    "training",
    "validation",
    "generation",
    "drift",
    "judging",
    "audits",
    "report",
    "other",
)
KINDS = {  # of a run's stages, by what is shown while they run
    "reference log-probs": "reference",
    "mismatched log-probs": "reference",
    "train": "training",
    "validation pairs": "validation",
    "generate": "generation",
    "drift": "drift",
    "judge": "judging",
    "audit": "audits",
}


class Turns:
    """Waits for `go` and answers with a line of JSON; what libraries print goes to stderr."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._began = resource.getrusage(resource.RUSAGE_SELF)
        os.dup2(2, 1)

    def wait(self) -> None:
        """Return when it is this side's turn; end the process when there is none any more."""
        held = _give_memory()
        if sys.stdin.readline() != "go\n":
            sys.exit(0)
        _take_memory(held)
        self._began = resource.getrusage(resource.RUSAGE_SELF)

    def say(self, **facts: Any) -> None:
        """End the turn; of memory that had to be mapped in meanwhile it says `faults` and `system_seconds`."""
        now, began = resource.getrusage(resource.RUSAGE_SELF), self._began
        facts |= {"faults": now.ru_minflt - began.ru_minflt, "system_seconds": now.ru_stime - began.ru_stime}
        print(json.dumps(facts), file=self._answers, flush=True)


def _give_memory() -> int:
    """Leave the GPU's memory that torch keeps, and does not use, to the other sides; returns what it has held in all.

    Three sides that each keep what a step needs do not fit on one GPU.
    """
    held = torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    return held


def _take_memory(held: int) -> None:
    """Hold as many bytes as before, so that no step is timed while it asks the driver for them."""
    missing = held - torch.cuda.memory_reserved()
    if missing > 0:
        with suppress(torch.OutOfMemoryError):  # the step may need less, or says so itself
            torch.empty(missing, dtype=torch.uint8, device="cuda")
        torch.cuda.reset_peak_memory_stats()


class Clock:
    """Seconds since the last start, all work of the device done."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        _synchronise()
        self._started = time.perf_counter()

    def seconds(self) -> float:
        _synchronise()
        return time.perf_counter() - self._started


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Stages:
    """Seconds of each kind of work; what is done within other work counts as its own kind alone."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._kind = "other"
        self._clock = Clock()

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Work of this kind while the context lasts."""
        outer = self._begin(kind)
        try:
            yield
        finally:
            self._begin(outer)

    def within(self, owner: Any, name: str, kind: str) -> AbstractContextManager[Any]:
        """While the context lasts, each call of this function of a class or a module is work of that kind."""
        plain = getattr(owner, name)

        def timed(*given: Any, **options: Any) -> Any:
            with self.of(kind):
                return plain(*given, **options)

        return patch.object(owner, name, timed)

    def seconds(self) -> dict[str, float]:
        """Seconds of every kind so far."""
        self._begin(self._kind)
        return dict(self._seconds)

    def _begin(self, kind: str) -> str:
        self._seconds[self._kind] += self._clock.seconds()
        self._clock.start()
        outer, self._kind = self._kind, kind
        return outer


class StageTimes(NoProgress):
    """A run's progress, by which stages are timed."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """A stage's work, until it is stored."""
        with self._stages.of(KINDS.get(label, "other")):
            yield no_update


class Memory:
    """Peak memory from here on; what is free goes back to the system first, as far as the allocator gives it."""

    def __init__(self) -> None:
        gc.collect()
        self._meter = Meter()
        self.resting_bytes = self._meter.cost(0).peak_bytes

    def facts(self) -> dict[str, int]:
        """`peak_bytes` since the start, and `resting_bytes` at the start."""
        return {"peak_bytes": self._meter.cost(0).peak_bytes, "resting_bytes": self.resting_bytes}


class Bench:
    """What both sides of every part share: the base, the rows, the settings.

    Attributes:
        settings: as `vs_trl.py` sends them.
        ours: whether this is align-bench's side.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.ours = settings["side"].startswith("ours")
        self.base: Base = find_base(settings["base"])
        self.precision: Precision = resolve_precision(settings["precision"], settings["device"])
        self.tokenizer = load_tokenizer(self.base)
        self.stages = Stages()

    def rows(self, split: str, count: int) -> list[TokenRow]:
        """The first pairs of `train` or `val` that fit, with distinct prompts, as token ids."""
        # Some do not fit, and some share a prompt.
        read_rows = replace(self.source(split), rows=64 + 8 * count)
        known: dict[tuple[int, ...], TokenRow] = {}
        for row in self._tokenised(read_rows):
            if row.chosen is not None and row.rejected is not None:
                known.setdefault(row.prompt, row)
        if len(known) < count:
            raise SystemExit(f"{split}: {len(known)} pairs with distinct prompts fit, expected {count}; give more rows")
        return list(known.values())[:count]

    def first_rows(self, split: str, count: int, *, skip: int = 0) -> list[TokenRow]:
        """The first rows of a split, or those behind them, as a suite reads them."""
        return self._tokenised(replace(self.source(split), rows=count, skip=skip))

    def _tokenised(self, source: DataSource) -> list[TokenRow]:
        return list(tokenize(self.tokenizer, read(source), max_length=self.max_length, too_long="drop").rows)

    def source(self, split: str) -> DataSource:
        """Where the pairs of `train` or `val` come from."""
        path = self.settings[split]
        return DataSource(path, split=split if path.startswith("embedded/") else None)

    @property
    def max_length(self) -> int:
        return int(self.settings["max_length"])

    def train_settings(self, examples: int) -> Train:
        """TRL's step is one micro-batch wherever it fits, for its mean over micro-batches is one of means."""
        tokens = max(8192, 2 * self.settings["pairs_per_step"] * self.max_length)
        return Train(
            batch_size=examples,
            max_length=self.max_length,
            warmup=0.0,
            schedule="constant",
            micro_batch_tokens=None if self.ours else tokens,
            cuda_graphs=self.ours and bool(self.settings.get("graphs")),
        )

    @property
    def scoring_tokens(self) -> int:
        """Of our passes that train nothing: what a suite gets that says nothing of it."""
        return scoring_tokens(None, self.precision.device)

    def model(self, *, scalar: bool = False) -> Any:
        """The frozen base, as this side loads it."""
        with self.stages.of("loading"):
            if not self.ours:
                return plain_base(self.base, self.precision, scalar=scalar)
            if scalar:
                return load_scorer(self.base, self.precision, seed=SEED)
            return load_policy(self.base, self.precision)

    def adapted(self, frozen: Any) -> Any:
        """The frozen base under a fresh adapter, the same one for both sides, each with its own layers."""
        model = add_adapter(frozen, LORA, seed=SEED)
        return model if self.ours else as_peft_wrote_it(model)


def plain_base(base: Base, precision: Precision, *, scalar: bool = False) -> Any:
    """The base as a script for TRL loads it: transformers and bitsandbytes, nothing of ours."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": torch.bfloat16 if precision.storage == "bf16" else compute_dtype(precision)}
    if precision.storage == "nf4":
        options["device_map"] = {"": precision.device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(precision),
            llm_int8_skip_modules=["lm_head", "score"],
        )
    loader = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    model = loader.from_pretrained(base.folder, **options, **({"num_labels": 1} if scalar else {}))
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # it would round to bf16 where fp32 computes
            module.support_avx512bf16_for_cpu = compute_dtype(precision) == torch.bfloat16
    model.requires_grad_(False)
    model.config.use_cache = False
    if precision.storage != "nf4":
        model.to(precision.device)
    if scalar:
        model.score.float()
        draw_head(model, seed=SEED)  # the same one for both sides
    return model.eval()


def as_peft_wrote_it(model: Any) -> Any:
    """The adapted model with peft's own linear layers, which `add_adapter` replaces by faster ones."""
    for module in model.modules():
        if type(module) is FusedLinear:
            module.__class__ = Linear
    return model


def moved(model: Any) -> Any:
    """The model, its adapter moved off the start by a draw from the parameters' names; a fresh one changes nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B.default." in name:  # and not in TRL's copy of it, the reference
                draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                parameter.copy_(0.01 * torch.randn(parameter.shape, generator=draw))
    return model


def trl_modules(name: str) -> tuple[ModuleType, ModuleType]:
    """One of TRL's methods as a module of its own, and the `algorithms/_trl.py` that it works with."""
    file = load_registry()[name].file
    assert file is not None
    module = file.module()
    return module, importlib.import_module("._trl", module.__package__)


def digest_of(rows: Sequence[TokenRow]) -> str:
    """A hash of the rows' token ids, so that both sides can be seen to have the same."""
    return hashlib.sha256(repr([(row.prompt, row.chosen, row.rejected) for row in rows]).encode()).hexdigest()[:16]


# Training.


class Training:
    """One method's training by one side."""

    def __init__(self, bench: Bench, method: str, *, examples: int | None = None) -> None:
        self.bench = bench
        self.method = method
        self.algorithm = load_registry()[method].algorithm
        self.recipe: Any = None
        if not bench.ours:
            module, shared = trl_modules(f"trl_{method}")
            self.recipe = getattr(module, f"trl_{method}")
            if bench.settings["side"] == "trl, checkpointing":
                _with_checkpointing(shared)
            if bench.settings["side"] == BEST:
                _at_its_best(shared, bench.precision)
        # Of an unpaired method a pair makes two examples.
        answers = 2 if self.algorithm.data == "unpaired" else 1
        self.examples = examples or bench.settings["pairs_per_step"] * answers
        grid = {entry.name: entry.grid for entry in load_suite("parity").methods}[method]
        self.parameters = {name: values[0] for name, values in grid.items()}
        self.learning_rate = self.parameters.pop("learning_rate")

    def run(self, rows: Sequence[TokenRow], update: Callable[[Any], Update] | None = None) -> TrainLog:
        """Train a fresh adapter on the rows; `update` makes the progress callback from the model."""
        bench, scalar = self.bench, self.algorithm.data == "scores"
        frozen = bench.model(scalar=scalar)
        reference = self._reference(frozen, rows) if bench.ours else None
        model = bench.adapted(frozen)
        method: Any = self.recipe or self.algorithm
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=method,
            parameters=method.resolve(self.parameters),
            learning_rate=self.learning_rate,
            settings=bench.train_settings(self.examples),
            seed=SEED,
            update=no_update if update is None else update(model),
        )
        if self.recipe is None:
            with _read_at_once():
                return train(job, reference)
        with tempfile.TemporaryDirectory() as scratch:
            return train_by_recipe(job, load_tokenizer(bench.base), bench.precision, Path(scratch))

    def _reference(self, frozen: Any, rows: Sequence[TokenRow]) -> Any:
        if not self.algorithm.reference:
            return None
        columns = table_logps(frozen, rows, max_tokens=self.bench.scoring_tokens)
        if self.algorithm.data == "unpaired":
            columns |= mismatched_logps(frozen, rows, max_tokens=self.bench.scoring_tokens)
        return columns

    def batches(self, rows: Sequence[TokenRow]) -> tuple[Any, list[list[int]]]:
        """The method's feed of these rows, and the examples of every step."""
        feed = FEEDS[self.algorithm.data](rows, None)
        return feed, effective_batches(len(feed.lengths), self.examples, epochs=1, seed=SEED)


def _read_at_once() -> AbstractContextManager[Any]:
    """Within it a step's numbers are read when it is done, not when the next one is queued, as on a GPU otherwise.

    A turn is then one step, and its seconds are its own, as they are where TRL logs each step.
    """
    return patch("align_bench.train.steps.queues", lambda device: False)


def _with_checkpointing(shared: Any) -> None:
    plain = shared.arguments

    def arguments(*given: Any) -> dict[str, Any]:
        more = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
        return {**plain(*given), **more}

    shared.arguments = arguments


BEST = "trl, best"


def best_options(precision: Precision) -> dict[str, Any]:
    """What makes TRL's trainers faster or smaller and is to be had here; a trainer that does not know one goes without.

    Padding-free batches need flash attention, and Liger kernels their package and a GPU.
    """
    gpu = precision.device == "cuda"
    return {
        "bf16": precision.compute == "bfloat16",
        "optim": "adamw_torch_fused",
        "precompute_ref_log_probs": True,
        "padding_free": gpu and find_spec("flash_attn") is not None,
        "use_liger_kernel": gpu and find_spec("liger_kernel") is not None,
    }


def _at_its_best(shared: Any, precision: Precision) -> None:
    plain, options = shared.built, best_options(precision)

    def built(job: Any, trainer: Any, config_class: Any, config: Mapping[str, Any], *rest: Any, **more: Any) -> Any:
        if options["padding_free"]:
            job.model.set_attn_implementation("flash_attention_2")
        known = {field.name for field in fields(config_class)}
        better = {name: value for name, value in options.items() if name in known}
        return plain(job, trainer, config_class, {**config, **better}, *rest, **more)

    shared.built = built


def training(bench: Bench, turns: Turns) -> None:
    """First turn: losses to compare. Second: a fresh training begins; its first step warms up. Then a step a turn."""
    job = Training(bench, bench.settings["part"])
    pairs, repeats = bench.settings["pairs_per_step"], bench.settings["repeats"]
    checked = pairs * CHECKED_STEPS
    rows = bench.rows("train", checked + pairs * (1 + repeats))
    turns.wait()
    log = job.run(rows[:checked])
    shown = ("loss", "gradient_norm", "log_odds_ratio")
    turns.say(rows=digest_of(rows), **{name: [step.get(name) for step in log.steps] for name in shown})
    rows = rows[checked:]
    feed, batches = job.batches(rows)
    turns.wait()
    clock = Clock()
    memory: Memory | None = None

    def measured(model: Any, done: int, total: int, note: str = "") -> None:
        nonlocal memory
        facts: dict[str, Any] = {"seconds": clock.seconds()}
        batch = batches[done - 1]
        facts["tokens"] = sum(feed.tokens[example] for example in batch)
        if memory is None:
            memory = Memory()
        facts |= memory.facts()
        if bench.ours and job.algorithm.reference:
            facts |= _reference_passes(model, feed, batch)
        turns.say(**facts)
        if done < total:
            turns.wait()
            clock.start()

    job.run(rows, lambda model: partial(measured, model))


def _reference_passes(model: Any, feed: Any, batch: Sequence[int]) -> dict[str, float]:
    """Seconds of the base's log-probabilities of one step's answers, which a suite computes once and keeps.

    Returns:
        `reference_seconds` of the answers themselves, which methods share; `mismatched_seconds` of single answers'
        prompts with the answers of other rows, 0 for pairs.
    """
    if not isinstance(feed, UnpairedFeed):
        pairs = [(row.prompt, row.chosen, row.rejected) for row in (feed.rows[place] for place in batch)]
        return {"reference_seconds": _pass(model, pairs), "mismatched_seconds": 0.0}
    given = [feed.examples[example] for example in batch]
    own = [(feed.rows[index].prompt, getattr(feed.rows[index], side), None) for index, side in given]
    swapped = [(*mismatched_sequence(feed.rows, feed.partner, index, side), None) for index, side in given]
    return {"reference_seconds": _pass(model, own), "mismatched_seconds": _pass(model, swapped)}


def _pass(model: Any, rows: Sequence[tuple[Any, Any, Any]]) -> float:
    tokens = scoring_tokens(None, model.device.type)
    clock = Clock()
    with model.disable_adapter():
        table_logps(model, [TokenRow(0, tuple(p), tuple(c), r and tuple(r)) for p, c, r in rows], max_tokens=tokens)
    return clock.seconds()


# Training on the policy's own answers. TRL has no PPO any more; its RLOO stands beside ours and beside PPO.

ONLINE = {  # the method of each side
    "online": {"ours": "rloo", "ours, ppo": "ppo", "trl": "trl_rloo"},
    "grpo": {"ours": "grpo", "trl": "trl_grpo"},
}
ANSWERS = 4  # to a prompt


def online(bench: Bench, turns: Turns) -> None:
    """First turn: steps on given answers, to compare. Then a step a turn, one update each; the first warms up.

    A step has as many prompts as others have pairs. The reward is the share of an answer's tokens whose id is even,
    which costs nothing and differs from answer to answer. What is drawn differs from side to side, so that a step's
    seconds mean something a token only.
    """
    pairs, repeats = bench.settings["pairs_per_step"], bench.settings["repeats"]
    checked = pairs * CHECKED_STEPS
    rows = bench.rows("train", checked + pairs * (1 + repeats))
    turns.wait()
    with given_answers(bench, rows[:checked]):
        log = _run_online(bench, rows[:checked], no_update, [])
    turns.say(
        rows=digest_of(rows), **{name: [step[name] for step in log.steps] for name in ("reward", "gradient_norm")}
    )
    clock = Clock()
    memory: Memory | None = None
    seen: list[int] = []  # tokens of the answers that were judged, each with its prompt

    def measured(done: int, total: int, note: str = "") -> None:
        nonlocal memory
        facts: dict[str, Any] = {"seconds": clock.seconds(), "tokens": sum(seen)}
        memory = memory or Memory()
        seen.clear()
        turns.say(**facts, **memory.facts())
        if done < total:
            turns.wait()
            clock.start()

    turns.wait()
    clock.start()
    _run_online(bench, rows[checked:], measured, seen)


def _method(bench: Bench) -> str:
    return ONLINE[bench.settings["part"]][bench.settings["side"]]


def _run_online(bench: Bench, rows: Sequence[TokenRow], update: Update, seen: list[int]) -> TrainLog:
    """Train a fresh adapter by this side's method; `seen` takes the tokens of what is judged."""

    def reward(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        seen.extend(len(row.prompt) + len(answer) for row, answer in zip(rows, answers, strict=True))
        return [sum(token % 2 == 0 for token in answer) / len(answer) for answer in answers]

    name, pairs = _method(bench), bench.settings["pairs_per_step"]
    asked: dict[str, Any] = {"max_new_tokens": bench.settings["new_tokens"], "temperature": 1.0}
    asked |= {"samples": ANSWERS, "updates": 1} if bench.ours else {"generations": ANSWERS}
    method: Any = load_registry()[name].algorithm if bench.ours else getattr(trl_modules(name)[0], name)
    job = TrainingJob(
        model=bench.adapted(bench.model()),
        rows=rows,
        algorithm=method,
        parameters=method.resolve(asked),
        learning_rate=1e-5,
        settings=bench.train_settings(pairs * ANSWERS if bench.ours else pairs),
        seed=SEED,
        update=update,
    )
    if bench.ours:
        with _read_at_once():
            return train_online(job, bench.tokenizer, reward)
    with tempfile.TemporaryDirectory() as scratch:
        return train_by_recipe(job, load_tokenizer(bench.base), bench.precision, Path(scratch), reward)


@contextmanager
def given_answers(bench: Bench, rows: Sequence[TokenRow]) -> Iterator[None]:
    """Within it a policy answers with the rows' own answers, whole and cut in half: the same on both sides."""
    longest = bench.settings["new_tokens"]
    known = {
        tuple(row.prompt): [
            answer[:length] for length in (longest, longest // 2) for answer in (row.chosen, row.rejected)
        ]
        for row in rows
        if row.chosen and row.rejected
    }

    def answered(
        model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *_: Any, **__: Any
    ) -> list[list[Answer]]:
        return [[Answer(ids, finished=True) for ids in known[tuple(prompt)]] for prompt in prompts]

    if bench.ours:
        with patch("align_bench.train.online.generate", answered):
            yield
        return
    import trl

    name = _method(bench).removeprefix("trl_").upper()

    def single_turn(trainer: Any, prompts: Sequence[Sequence[int]], *_: Any) -> Any:
        ids = [list(known[tuple(prompt)][place % ANSWERS]) for place, prompt in enumerate(prompts)]
        return (ids, None) if name == "GRPO" else ids  # GRPO's has log-probabilities beside them, of vLLM

    with patch.object(getattr(trl, f"{name}Trainer"), "_generate_single_turn", single_turn):
        yield


# What is repeated whole: scoring, generation, the suite.


def repeated(bench: Bench, turns: Turns, work: Callable[[int], dict[str, Any]], warm: int, whole: int) -> None:
    """`work(n)` on the first n rows a turn: a warm-up on `warm` of them, then all of them, timed."""
    for number in range(1 + bench.settings["repeats"]):
        turns.wait()
        if number == 0:
            turns.say(**work(warm))
            memory = Memory()
            continue
        clock = Clock()
        facts = work(whole)
        turns.say(**{"seconds": clock.seconds(), **facts}, **memory.facts())


def scoring(bench: Bench, turns: Turns) -> None:
    """Log-probabilities of both answers of validation pairs under an adapted policy, and of the base where asked."""
    rows = bench.rows("val", bench.settings["scored_pairs"])
    side = bench.settings["side"]
    if side == "trl":
        _trl_evaluation(bench, turns, rows)
        return
    model = moved(bench.adapted(bench.model())).eval()
    measure = (
        partial(table_logps, max_tokens=bench.scoring_tokens) if bench.ours else partial(naive_logps, by_length=True)
    )

    def work(count: int) -> dict[str, Any]:
        clock = Clock()
        policy = measure(model, rows[:count])
        seconds = clock.seconds()
        with model.disable_adapter():
            reference = measure(model, rows[:count])
        both = clock.seconds()
        sums = {side: [float(value) for value in policy[side]] for side in policy}
        margin = (policy["chosen"] - policy["rejected"]) - (reference["chosen"] - reference["rejected"])
        loss = float(-torch.nn.functional.logsigmoid(0.1 * margin).mean())
        return {"policy_seconds": seconds, "both_seconds": both, "tokens": _tokens(rows[:count]), "loss": loss, **sums}

    repeated(bench, turns, work, min(TRL_BATCH, len(rows)), len(rows))


def _tokens(rows: Sequence[TokenRow]) -> int:
    return sum(2 * len(row.prompt) + len(row.chosen or ()) + len(row.rejected or ()) for row in rows)


def _trl_evaluation(bench: Bench, turns: Turns, rows: Sequence[TokenRow]) -> None:
    """`DPOTrainer.evaluate`, which measures the policy and the reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    module, shared = trl_modules("trl_dpo")
    model = bench.adapted(bench.model())
    pairs = [Pair(row.prompt, row.chosen or (), row.rejected or ()) for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        job = PairJob(
            model=model,
            tokenizer=load_tokenizer(bench.base),
            examples=pairs,
            lengths=[bench.max_length],
            micro_batch_tokens=TRL_BATCH * bench.max_length,
            batches=[[0]],
            learning_rate=1e-4,
            settings=bench.train_settings(TRL_BATCH),
            seed=SEED,
            device=bench.precision.device,
            bf16=bench.precision.compute == "bfloat16",
            scratch=Path(scratch),
            log=lambda numbers: None,
        )
        config = shared.arguments(job, TRL_BATCH, TRL_BATCH) | {
            "max_length": 2 * bench.max_length,
            "beta": 0.1,
            "per_device_eval_batch_size": TRL_BATCH,
        }
        prepared = [module._paired(pair) for pair in pairs]
        with shared.built(job, DPOTrainer, DPOConfig, config, prepared, list) as trainer:
            moved(model)

            def work(count: int) -> dict[str, Any]:
                found = trainer.evaluate(Dataset.from_list(prepared[:count]))
                return {"tokens": _tokens(rows[:count]), "loss": found["eval_loss"]}

            repeated(bench, turns, work, min(TRL_BATCH, len(rows)), len(rows))


def naive_logps(model: Any, rows: Sequence[TokenRow], *, by_length: bool) -> dict[str, torch.Tensor]:
    """The plain loop: padded batches of eight sequences, full logits, log-softmax, gather; sorted by length or not."""
    found = naive_answer_logps(model, _both_answers(rows), by_length=by_length)
    return {"chosen": found[0::2], "rejected": found[1::2]}


def _both_answers(rows: Sequence[TokenRow]) -> list[tuple[Sequence[int], Sequence[int]]]:
    return [(row.prompt, answer or ()) for row in rows for answer in (row.chosen, row.rejected)]


def naive_answer_logps(
    model: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], *, by_length: bool = False
) -> torch.Tensor:
    """The same of (prompt ids, answer ids) pairs, shape [answers]."""
    order = list(range(len(sequences)))
    if by_length:
        order.sort(key=lambda index: len(sequences[index][0]) + len(sequences[index][1]))
    found = torch.zeros(len(sequences))
    with torch.no_grad():
        for start in range(0, len(order), TRL_BATCH):
            chosen = order[start : start + TRL_BATCH]
            ids, mask = _padded([(*sequences[index][0], *sequences[index][1]) for index in chosen])
            answers = torch.zeros_like(mask)
            for place, index in enumerate(chosen):
                answers[place, len(sequences[index][0]) : int(mask[place].sum())] = 1
            ids, mask, answers = (value.to(model.device) for value in (ids, mask, answers))
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            logps = torch.log_softmax(logits.float(), -1).gather(2, ids[:, 1:, None]).squeeze(2)
            found[chosen] = (logps * answers[:, 1:]).sum(1).cpu()
    return found


def naive_scores(model: Any, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
    """A reward model's scores in padded batches of eight sequences, in the order given."""
    found = naive_answer_scores(model, _both_answers(rows))
    return {"chosen": found[0::2], "rejected": found[1::2]}


def naive_answer_scores(model: Any, answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> torch.Tensor:
    """The same of (prompt ids, answer ids) pairs, shape [answers]."""
    sequences = [(*prompt, *answer) for prompt, answer in answers]
    last = {sequence[-1] for sequence in sequences}
    # transformers finds the last token by the pad token's id, so that the pad must end no answer.
    pad = next(token for token in range(model.config.vocab_size) if token not in last)
    model.get_base_model().config.pad_token_id = pad
    found = torch.zeros(len(sequences))
    with torch.no_grad():
        for start in range(0, len(sequences), TRL_BATCH):
            ids, mask = _padded(sequences[start : start + TRL_BATCH], pad)
            output = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
            found[start : start + TRL_BATCH] = output.logits.squeeze(1).float().cpu()
    return found


def _padded(sequences: Sequence[Sequence[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, sequences))
    ids = torch.tensor([[*sequence, *[pad] * (longest - len(sequence))] for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences])
    return ids, mask


def generation(bench: Bench, turns: Turns) -> None:
    """Greedy answers of an adapted policy to validation prompts."""
    prompts = [row.prompt for row in bench.rows("val", bench.settings["prompts"])]
    model = bench.adapted(bench.model()).eval()
    longest = bench.settings["new_tokens"]
    graphs = bool(bench.settings.get("graphs"))
    settings = Generate(prompts=len(prompts), max_new_tokens=longest, cuda_graphs=graphs)

    def work(count: int) -> dict[str, Any]:
        if bench.ours:
            found = generate(model, bench.tokenizer, prompts[:count], settings, seed=SEED)
            answers = [list(samples[0].ids) for samples in found]
        else:
            answers = plain_answers(model, bench.tokenizer, prompts[:count], longest)
        return {"tokens": sum(map(len, answers)), "answers": answers}

    repeated(bench, turns, work, min(TRL_BATCH, len(prompts)), len(prompts))


def plain_answers(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """`generate` of transformers, greedy, eight prompts at a time in the order given; answers through their end."""
    ends = sorted(generation_ends(model, tokenizer))
    answers: list[list[int]] = []
    for start in range(0, len(prompts), TRL_BATCH):
        reversed_prompts = [prompt[::-1] for prompt in prompts[start : start + TRL_BATCH]]
        ids, mask = (value.flip(1).to(model.device) for value in _padded(reversed_prompts, tokenizer.pad_token_id))
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends,
                use_cache=True,
            )
        for new in output[:, ids.shape[1] :].tolist():
            stop = next((place for place, token in enumerate(new) if token in ends), len(new))
            answers.append(new[: stop + 1])
    return answers


def suite(bench: Bench, turns: Turns) -> None:
    """A judge and five methods trained; the pairs, the answers and their scores of each; every turn from nothing."""
    pairs = bench.settings["suite_pairs"]
    plain = _our_suite if bench.ours else _their_scripts

    def work(count: int) -> dict[str, Any]:
        bench.stages = Stages()
        facts = plain(bench, count)
        return {**facts, "stages": bench.stages.seconds()}

    repeated(bench, turns, work, bench.settings["pairs_per_step"], pairs)


def _our_suite(bench: Bench, pairs: int) -> dict[str, Any]:
    from align_bench.planning.inputs import prepare
    from align_bench.runner import report as reports
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.run import Folders, run

    settings = bench.settings
    grids = {entry.name: entry.grid for entry in load_suite("parity").methods}
    given = {name: {key: values[0] for key, values in grids[name].items()} for name in METHODS}
    entry: dict[str, dict[str, Any]] = {
        split: {"path": settings[split], "rows": pairs, "too_long": "drop"} for split in ("train", "val")
    }
    judge = {**entry["train"], "skip": pairs}
    if settings["train"].startswith("embedded/"):
        entry["train"]["split"], entry["val"]["split"], judge["split"] = "train", "val", "train"
    suite = Suite.model_validate(
        {
            "name": "versus",
            "base": settings["base"],
            "precision": settings["precision"],
            "data": entry,
            "judge": {"method": "rm", "data": judge, "parameters": given["rm"]},
            "train": bench.train_settings(settings["pairs_per_step"]).model_dump(),
            "generate": {"prompts": settings["prompts"], "max_new_tokens": settings["new_tokens"]},
            "methods": [{name: given[name]} for name in METHODS],
        }
    )
    stages = bench.stages
    with (
        tempfile.TemporaryDirectory() as folder,
        stages.within(LocalDesk, "model", "loading"),
        stages.within(LocalDesk, "untrained", "loading"),
        stages.within(reports, "write", "report"),
    ):
        report = run(
            prepare(suite, load_registry()),
            StageTimes(stages),
            Folders(Path(folder) / "runs", Path(folder) / "reports"),
            command="vs_trl",
        )
    failed = [f"{result.name}: {result.reason}" for result in report.results if result.status != "done"]
    if failed:
        raise SystemExit(f"the suite failed: {'; '.join(failed)}")
    accuracies = {result.name: result.metrics.accuracy_logp_mean.value for result in report.results}
    tokens = sum(result.cost.tokens for result in report.results if result.cost is not None)
    return {"tokens": tokens, "accuracies": accuracies}


def _their_scripts(bench: Bench, pairs: int) -> dict[str, Any]:
    """What scripts for a judge and five methods do, one after another: load, train by TRL, save, measure plainly.

    They measure what our run does: the validation pairs under each model, the answers of each policy, these under the
    policy and under the base, the judge's scores of them, and how the judge and the reward model take edited answers.
    """
    settings, stages = bench.settings, bench.stages
    rows, val = bench.first_rows("train", pairs), bench.first_rows("val", pairs)
    prompts = [row.prompt for row in {row.prompt: row for row in val}.values()][: settings["prompts"]]
    base = bench.model()
    accuracies = {"base": _measured(bench, base, val)}
    answers = {"base": _answered(bench, base, prompts)}
    del base
    for method in METHODS:
        model = _trained(bench, method, rows)
        if method == "rm":
            with stages.of("validation"):
                naive_scores(model, val)
            _audited(bench, model, val)
        else:
            accuracies[method] = _measured(bench, model, val)
            answers[method] = _answered(bench, model, prompts)
            with stages.of("drift"):
                naive_answer_logps(model, answers[method])
                with model.disable_adapter():
                    naive_answer_logps(model, answers[method])
        del model
    judge = _trained(bench, "rm", bench.first_rows("train", pairs, skip=pairs))
    with stages.of("validation"):
        naive_scores(judge, val)
    _audited(bench, judge, val)
    with stages.of("judging"):
        for found in answers.values():
            naive_answer_scores(judge, found)
    return {"tokens": 0, "accuracies": accuracies}


def _trained(bench: Bench, method: str, rows: Sequence[TokenRow]) -> Any:
    """A model as TRL trains it, its adapter saved; what came before it is let go of first."""
    gc.collect()
    held: list[Any] = []

    def keep(model: Any) -> Update:
        held.append(model)
        return lambda done, total, note="": None

    with bench.stages.of("training"):
        Training(bench, method, examples=bench.settings["pairs_per_step"]).run(rows, keep)
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(held[0], Path(folder))
    return held[0]


def _answered(bench: Bench, model: Any, prompts: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Prompts with a model's answers."""
    with bench.stages.of("generation"):
        found = plain_answers(model, bench.tokenizer, prompts, bench.settings["new_tokens"])
    return list(zip(prompts, found, strict=True))


def _audited(bench: Bench, model: Any, rows: Sequence[TokenRow]) -> None:
    """Scores of edited answers to these rows, of the texts that our audit makes, in the order given."""
    kept = {row.pair for row in rows[: Audit().pairs]}
    preferences = read(replace(bench.source("val"), rows=bench.settings["suite_pairs"])).rows
    texts = RewardModel(model, bench.tokenizer, bench.max_length)

    def scorer(
        conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
    ) -> tuple[list[float], int]:
        places, answers, truncated = texts.tokenized(conversations)
        found = [math.nan] * len(conversations)
        for place, value in zip(places, naive_answer_scores(model, answers).tolist(), strict=True):
            found[place] = value
        return found, truncated

    with bench.stages.of("audits"):
        audit(scorer, [row for row in preferences if row.pair in kept], seed=SEED, max_tokens=bench.max_length)


def _measured(bench: Bench, model: Any, rows: Sequence[TokenRow]) -> float:
    with bench.stages.of("validation"):
        found = naive_logps(model, rows, by_length=False)
    means = {side: found[side] / torch.tensor([len(getattr(row, side)) for row in rows]) for side in found}
    margin = means["chosen"] - means["rejected"]
    return float(((margin > 0).double() + 0.5 * (margin == 0).double()).mean())


PARTS: Mapping[str, Callable[[Bench, Turns], None]] = {
    **dict.fromkeys(METHODS, training),
    "scoring": scoring,
    "generation": generation,
    "suite": suite,
    **dict.fromkeys(ONLINE, online),
}


def main() -> None:
    """Play one side of one part."""
    turns = Turns()
    settings = json.loads(sys.argv[1])
    if settings.get("keeps_freed"):
        keep_freed()
    bench = Bench(settings)
    turns.say(compute=bench.precision.compute, device=bench.precision.device)
    PARTS[settings["part"]](bench, turns)
    turns.wait()


if __name__ == "__main__":
    main()
