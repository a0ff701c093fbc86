"""No training step waits for the device before its end: on a stand-in for an accelerator, every read is written down.

torch's `meta` device computes shapes alone, so that whatever asks for a number there would fail on it, and takes the
way of an accelerator everywhere. Here such reads are answered by ones, and each is counted with the place it came from.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from align_bench.api import OfflineAlgorithm, OnlineAlgorithm
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, prefix_logps, table_logps
from align_bench.models import cuda_graphs, layout, logprobs
from align_bench.models.base import Base, find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer, load_tokenizer
from align_bench.models.precision import Precision
from align_bench.models.transfer import on_device
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train import auxiliary, loop, online, steps
from align_bench.train.feeds import Reference
from align_bench.train.job import TrainingJob

FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=4, max_length=128, micro_batch_tokens=256)
STEPS = 1  # of a pair method on all rows
REGISTRY = load_registry()
OFFLINE = [name for name, plugin in REGISTRY.plugins.items() if isinstance(plugin.algorithm, OfflineAlgorithm)]
# What these remember of a batch are Python's numbers, by the plugin's contract.
REMEMBERING = {"bco", "beta_dpo"}
D = TypeVar("D")

END_OF_STEP = "entry in steps.py"
DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}


class Waits(TorchDispatchMode):
    """Writes down, for each operator that a host would wait in for the device, who called it.

    Attributes:
        places: the innermost function of this package, or of a method, and its file.
        operators: how many were called.
        at: how many had been, at each of the places.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.places: list[str] = []
        self.operators = 0
        self.at: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.operators += 1
        if not self._waits(func, args, kwargs):
            return func(*args, **kwargs)
        self.places.append(_place())
        self.at.append(self.operators)
        return self._answer(func, args, kwargs)

    def _waits(self, func: Any, args: Any, kwargs: Any) -> bool:
        name = func._opname
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "_to_copy":
            wanted = kwargs.get("device")
            return wanted is not None and self._crosses(args[0].device, wanted) and not kwargs.get("non_blocking")
        if name == "copy_":
            return self._crosses(args[1].device, args[0].device) and not (len(args) > 2 and args[2])
        if first is None or first.device.type != self.device:
            return False
        if name in BY_INDEX:
            index = [one for one in args[1] if one is not None]
            return any(
                one.dtype in {torch.bool, torch.uint8} or self._crosses(one.device, first.device) for one in index
            )
        return bool(DEPENDENT & set(func.tags))

    def _crosses(self, one: torch.device, other: torch.device) -> bool:
        return one.type != other.type

    def _answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.device != "meta":
            return func(*args, **kwargs)
        if func._opname == "_local_scalar_dense":
            return 1.0
        if func._opname == "_to_copy" and args[0].device.type == "meta":
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


class Lists(TorchFunctionMode):
    """The same for lists as indices, which torch copies to the device before any operator sees them."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {Tensor.__getitem__, Tensor.__setitem__} and args[0].device.type == self.waits.device:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(one, (list, range)) for one in index):
                self.waits.places.append(_place())
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(device: str) -> Iterator[Waits]:
    """Both."""
    with Waits(device) as waits, Lists(waits):
        yield waits


def _place() -> str:
    """The innermost function of the package, and its file."""
    ours = [one for one in traceback.extract_stack() if "/align_bench/" in one.filename]
    return f"{ours[-1].name} in {Path(ours[-1].filename).name}" if ours else "elsewhere"


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return find_base(str(base_folder))


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[TokenRow]:
    found = read(DataSource("embedded/planted", split="train", rows=4))
    preferences = tuple(replace(row, margin=0.3 + row.pair % 5) for row in found.rows)  # for the methods that read it
    return tokenize(tokenizer, replace(found, rows=preferences), max_length=128).rows


@pytest.fixture(scope="module")
def reference(base: Base, rows: Sequence[TokenRow]) -> Reference:
    frozen = load_policy(base, FP32)
    measures = (table_logps, mismatched_logps, prefix_logps)
    return {name: values for measure in measures for name, values in measure(frozen, rows, max_tokens=512).items()}


@pytest.fixture(autouse=True)
def _no_autocast_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses to say whether autocast is on for a device that cannot have it."""
    asked = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind != "meta" and asked(kind))


def job_of(base: Base, rows: Sequence[TokenRow], name: str, **parameters: Any) -> TrainingJob[Any]:
    method = REGISTRY[name].algorithm
    load = load_scorer if method.kind == "reward" else load_policy
    return TrainingJob(
        model=add_adapter(load(base, FP32), Lora(r=4, alpha=8), seed=0),
        rows=rows,
        algorithm=method,
        parameters=method.resolve(parameters),
        learning_rate=1e-3,
        settings=SETTINGS,
        seed=0,
    )


def onto_meta(model: Any) -> None:
    """Move it there, and pass over what is looked at once, before a first step."""
    model.to("meta")
    inner = layout.inner_of(model)
    logprobs._CHECKED[model] = logprobs._PLAIN_HEADS[inner] = layout._SHARES_PROMPTS[inner] = True


@pytest.fixture
def train(
    base: Base, rows: Sequence[TokenRow], reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    def run(name: str) -> list[str]:
        """The places where steps of a method wait for the stand-in."""
        job = job_of(base, rows, name)
        if (declared := job.algorithm.beside(job.parameters)) is not None:
            auxiliary.attach(job.model, declared, seed=0)
        monkeypatch.setattr(loop, "attach", lambda *_, **__: None)  # it is; that is no part of a step
        onto_meta(job.model)
        with watched("meta") as waits:
            log = loop.train(job, reference if job.algorithm.reference else None)
        assert waits.operators > 100
        assert len(log.steps) == STEPS * (2 if job.algorithm.data == "unpaired" else 1)
        return waits.places

    return run


@pytest.mark.parametrize("name", OFFLINE)
def test_a_step_reads_the_device_once_at_its_end(train: Callable[..., list[str]], name: str) -> None:
    steps_taken = STEPS * (2 if REGISTRY[name].algorithm.data == "unpaired" else 1)
    places = train(name)
    assert places.count(END_OF_STEP) == steps_taken
    others = [place for place in places if place != END_OF_STEP]
    assert len(others) == (steps_taken if name in REMEMBERING else 0), others


def test_a_step_is_read_when_all_of_the_next_one_is_queued(base: Base, rows: Sequence[TokenRow]) -> None:
    job = replace(job_of(base, rows, "simpo"), settings=SETTINGS.model_copy(update={"epochs": 4}))
    onto_meta(job.model)
    queued: list[int] = []
    advance = steps.State.advance

    def noted(*given: Any) -> None:
        queued.append(waits.operators)  # of this step's forward and backward passes, but for clipping and the update
        advance(*given)

    with pytest.MonkeyPatch.context() as patch, watched("meta") as waits:
        patch.setattr(steps.State, "advance", noted)
        loop.train(job)
    assert waits.places == [END_OF_STEP] * 4
    first, *others = queued
    assert all(read > next_one for read, next_one in zip(waits.at, others, strict=False))
    assert all(next_one - before > 0.9 * first for before, next_one in pairwise(queued))


@pytest.mark.parametrize("name", ["simpo", "dpo", "rm"])
def test_padded_rows_of_graphs_wait_for_nothing_either(
    train: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Passes that are not captured; on the stand-in, a capture would be compared with the plain pass."""
    padded: list[Any] = []
    states = cuda_graphs.Graphs.states

    def noted(graphs: Any, *given: Any) -> Tensor:
        padded.append(given)
        return states(graphs, *given)

    monkeypatch.setattr(cuda_graphs.Graphs, "states", noted)
    monkeypatch.setattr(steps, "can_capture", lambda _: True)
    monkeypatch.setattr(sys.modules[__name__], "SETTINGS", SETTINGS.model_copy(update={"cuda_graphs": True}))
    assert train(name) == [END_OF_STEP] * STEPS
    assert padded


def test_every_kind_of_feed_is_among_them() -> None:
    kinds = {(REGISTRY[name].algorithm.data, REGISTRY[name].algorithm.reference) for name in OFFLINE}
    assert {("pairs", False), ("pairs", True), ("unpaired", True), ("scores", False), ("chosen", False)} <= kinds


@pytest.mark.parametrize("name", ["ppo", "rloo", "grpo"])
def test_an_update_of_online_training_reads_it_once_too(
    base: Base, rows: Sequence[TokenRow], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Answers are sampled on the host's word, token by token; the updates on them are not."""
    job, tokenizer = job_of(base, rows[:2], name, max_new_tokens=6), load_tokenizer(base)
    assert isinstance(job.algorithm, OnlineAlgorithm)
    if job.algorithm.critic:
        job.model.value_head = online._value_head(job.model)

    def lengths(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        return [float(len(answer)) for answer in answers]

    batch = online._gather(job, tokenizer, lengths, job.rows, seed=0)
    there = replace(batch, experience=_moved(batch.experience), made=_moved(batch.made))
    onto_meta(job.model)
    monkeypatch.setattr(online, "_gather", lambda *_, **__: there)
    monkeypatch.setattr(online, "_value_head", lambda model: model.value_head)
    with watched("meta") as waits:
        log = online.train_online(job, tokenizer, lengths)
    assert log.steps
    assert waits.places == [END_OF_STEP] * len(log.steps)


def _moved(record: D) -> D:
    values = {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]
    moved = {name: value.to("meta") for name, value in values.items() if isinstance(value, Tensor)}
    return replace(record, **moved)  # type: ignore[type-var]


READS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda values: float(values.sum()),
    "a truth": lambda values: bool(values.isfinite().all()),
    "a boolean mask": lambda values: values[values > 0],
    "nonzero": lambda values: values.nonzero(),
    "masked_select": lambda values: values.masked_select(values > 0),
    "unique": lambda values: values.unique(),
    "equality": lambda values: torch.equal(values, values),
    "to the host": lambda values: values.cpu(),
    "from the host": lambda values: torch.tensor([1.0, 2.0]).to(values.device),
    "a list as index": lambda values: values[[0, 1]],
}


@pytest.mark.parametrize("what", READS)
def test_the_stand_in_sees_a_read(what: str) -> None:
    values = torch.ones(2, device="meta")
    with watched("meta") as waits:
        try:
            READS[what](values)
        except (RuntimeError, NotImplementedError):  # shapes that depend on numbers are more than it can answer
            assert waits.places
    assert len(waits.places) == 1


def test_what_is_queued_is_no_wait() -> None:
    with watched("meta") as waits:
        moved = on_device([[1, 2], [3, 4]], torch.device("meta"))
        moved[on_device([0, 1], moved.device)].float().sum()
    assert not waits.places
    assert moved.dtype == torch.long


def test_a_step_on_a_cpu_reads_no_number_before_its_end(
    base: Base, rows: Sequence[TokenRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows without padding, which accelerators do not read."""
    inside: list[str] = []
    accumulate = loop._accumulate

    def accumulated(*given: Any) -> steps.Sums:
        with watched("cpu") as waits:
            sums = accumulate(*given)
        inside.append(" ".join(waits.places))
        return sums

    monkeypatch.setattr(loop, "_accumulate", accumulated)
    loop.train(job_of(base, [*rows, *rows], "simpo"))
    first, *later = inside
    assert "_check" in first  # the shortcuts are held to the plain computation once
    assert later == [""]


def test_on_device_takes_tensors_and_types() -> None:
    host = torch.tensor([1.5, 2.5], dtype=torch.float64)
    found = on_device(host, torch.device("cpu"), torch.float32)
    assert found.dtype == torch.float32
    assert found.tolist() == [1.5, 2.5]
    assert on_device(host, torch.device("cpu")) is host


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (2, 7)])
def test_the_correlation_is_torchs(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    both = torch.randn(shape)
    both[1] += 0.5 * both[0]
    found = steps._correlation(both)
    if shape[1] == 1:
        assert not found.isfinite()  # torch warns of it
    else:
        assert torch.equal(found, both.corrcoef()[0, 1])
    flat = torch.ones(2, 4)
    assert not steps._correlation(flat).isfinite()
