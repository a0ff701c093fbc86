"""Processes that train together: the weights of one process, whatever a loss reads, and nothing that waits for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import OfflineAlgorithm
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, prefix_logps, table_logps
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer
from align_bench.models.micro_batches import shares
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train import loop
from align_bench.train.group import ALONE, WAITS, Group, LostProcessError, met
from align_bench.train.job import TrainingJob, silent
from align_bench.train.steps import Budget, Sums

FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=5, max_length=128, weight_decay=0.1)  # of 11 pairs: the third step has one

# What each reads: a reference; mismatched answers; the whole batch, and what it remembers, of answers and of pairs; a
# reference that moves; a companion; prefixes; scores of the whole batch under two heads.
REGISTRY = load_registry()
METHODS = ("dpo", "kto", "bco", "beta_dpo", "tr_dpo", "poe_rm", "ld_dpo", "odin_rm")


@dataclass(frozen=True)
class Start:
    """What every process begins with."""

    base: Path
    rows: Sequence[TokenRow]
    reference: Mapping[str, Tensor]
    folder: Path


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    steps: Sequence[Mapping[str, float]]
    tokens: int
    weights: Mapping[str, Tensor]


def trained(start: Start, name: str, group: Group = ALONE, settings: Train = SETTINGS, **more: Any) -> Trained:
    """A method's training, from the same start each time."""
    method = REGISTRY[name].algorithm
    assert isinstance(method, OfflineAlgorithm)
    load = load_scorer if method.kind == "reward" else load_policy
    dropout = more.pop("dropout", 0.0)
    model = add_adapter(load(find_base(str(start.base)), FP32), Lora(r=4, alpha=8, dropout=dropout), seed=0)
    given: Mapping[str, Mapping[str, float]] = {"tr_dpo": {"sync_steps": 2}, "poe_rm": {"noise": 0.0}}
    job = TrainingJob(
        model=model,
        rows=start.rows,
        algorithm=method,
        parameters=method.resolve(given.get(name, {})),
        learning_rate=1e-3,
        settings=settings,
        seed=5,
        **more,
    )
    log = loop.train(job, start.reference if method.reference else None, group)
    return Trained(log.steps, log.tokens, dict(weights(model)))


def weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    for name, value in model.named_parameters():
        if value.requires_grad:
            yield name, value.detach().clone()


def second(start: Start, meeting: Path, part: Callable[[Start, Group], Any]) -> Any:
    """The part of the second process."""
    torch.set_num_threads(1)
    with met(1, 2, meeting) as group:
        return part(start, group)


def every_method(start: Start, group: Group) -> dict[str, Trained]:
    return {name: trained(start, name, group) for name in METHODS}


@pytest.fixture(scope="module")
def start(base_folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Start:
    rows = tokenize(tokenizer, read(DataSource("embedded/planted", split="train", rows=11)), max_length=128).rows
    frozen = load_policy(find_base(str(base_folder)), FP32)
    reference: dict[str, Tensor] = {}
    for measure in (table_logps, prefix_logps, mismatched_logps):
        reference |= measure(frozen, rows, max_tokens=512)
    return Start(base_folder, [replace(row) for row in rows], reference, tmp_path_factory.mktemp("group"))


def imported() -> None:
    """Nothing; that this file can be imported."""


@pytest.fixture(scope="module")
def other(copies: ForkServerContext) -> Iterator[ProcessPoolExecutor]:
    """A second process that finds this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
        with ProcessPoolExecutor(1, mp_context=copies) as pool:
            pool.submit(imported).result(60)  # what fails here would be waited for by `met`
            yield pool


@pytest.fixture
def together(start: Start, other: ProcessPoolExecutor, tmp_path: Path) -> Callable[..., tuple[Any, Future[Any]]]:
    """Does both parts, the first one here; returns what came of it, and what will of the other one."""

    def run(part: Callable[[Start, Group], Any], its: Callable[[Start, Group], Any] | None = None) -> Any:
        future = other.submit(second, start, tmp_path / "meeting", its or part)
        with met(0, 2, tmp_path / "meeting") as group:
            mine = part(start, group)
        return mine, future

    return run


def test_two_processes_train_to_the_weights_of_one(
    start: Start, together: Callable[..., tuple[Any, Future[Any]]]
) -> None:
    found, future = together(every_method)
    other = future.result(60)
    for name in METHODS:
        alone = trained(start, name)
        assert found[name].tokens == alone.tokens
        for mine, expected in zip(found[name].steps, alone.steps, strict=True):
            assert mine.keys() == expected.keys()
            for key in expected.keys() - {"seconds"}:
                assert mine[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-5), f"{name}: {key}"
        for key, weight in alone.weights.items():
            assert torch.equal(other[name].weights[key], found[name].weights[key]), f"{name}: {key} of two processes"
            if key != "companion.head.bias":  # no pair's margin has it: its gradient is what rounding leaves
                torch.testing.assert_close(found[name].weights[key], weight, rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")


def with_dropout(start: Start, group: Group) -> tuple[Trained, Trained, int]:
    """A training, and the same one killed and resumed, with the step that it went on from."""
    settings = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_minutes": 1e-9})
    straight = trained(start, "bco", group, settings, dropout=0.1)
    steps: list[int] = []

    def kill(done: int, total: int, note: str = "") -> None:
        steps.append(done)
        if done == 4 and len(steps) == 4:
            raise InterruptedError

    checkpoint = start.folder / "checkpoint.pt"
    with pytest.raises(InterruptedError):
        trained(start, "bco", group, settings, dropout=0.1, checkpoint=checkpoint, update=kill)
    group.gathered(None)  # the first process has written its last checkpoint
    return straight, trained(start, "bco", group, settings, dropout=0.1, checkpoint=checkpoint, update=kill), steps[4]


def test_a_training_of_two_processes_goes_on_to_the_same_numbers(
    start: Start, together: Callable[..., tuple[Any, Future[Any]]]
) -> None:
    (straight, resumed, step), future = together(with_dropout)
    assert step == 4  # it was done and not saved when the kill came
    assert [one["loss"] for one in resumed.steps] == [one["loss"] for one in straight.steps]
    other, _, _ = future.result(60)
    for key, weight in straight.weights.items():
        assert torch.equal(resumed.weights[key], weight), key
        assert torch.equal(other.weights[key], weight), key
    assert straight.steps[1]["loss"] != trained(start, "bco", dropout=0.1).steps[1]["loss"], "dropout is each one's own"


def out_of_memory_once(start: Start, group: Group) -> tuple[list[int], Trained]:
    """Memory runs out in the second process, in the second pass of the second step; what each was allowed."""
    real, asked = loop._accumulate, list[int]()

    def exhausted(*arguments: Any) -> Sums:
        asked.append(arguments[-1])
        return real(*arguments)

    loss, calls = loop._loss, list[int]()

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if group.rank == 1 and len(asked) == 2:
            raise torch.OutOfMemoryError("no memory left")
        return loss(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_accumulate", exhausted)
        patch.setattr(loop, "_loss", failing)
        return asked, trained(start, "simpo", group)


def test_memory_that_runs_out_unknown_to_the_others_is_no_reason_to_try_again_alone() -> None:
    asked = list[int]()

    def attempt(tokens: int) -> None:
        asked.append(tokens)
        raise torch.OutOfMemoryError("no memory left")

    with pytest.raises(torch.OutOfMemoryError):
        Budget(torch.nn.Linear(1, 1), 1024, silent, checkpointed=False).run(attempt, Group(0, 2))
    assert asked == [1024]


def test_memory_that_runs_out_in_one_process_halves_the_passes_of_both(
    start: Start, together: Callable[..., tuple[Any, Future[Any]]]
) -> None:
    (asked, found), future = together(out_of_memory_once)
    assert asked == [768, 768, 384, 384]
    its, other = future.result(60)
    assert its == asked
    for key, weight in trained(start, "simpo").weights.items():
        torch.testing.assert_close(found.weights[key], weight, rtol=1e-4, atol=2e-6, msg=key)
        assert torch.equal(other.weights[key], found.weights[key])


def leaves(start: Start, group: Group) -> None:
    group.gathered("a last word")
    raise ValueError("on purpose")


def waits(start: Start, group: Group) -> list[str]:
    group.gathered("")
    return group.gathered("nobody hears this")


def test_a_process_that_leaves_is_missed(start: Start, together: Callable[..., tuple[Any, Future[Any]]]) -> None:
    with pytest.raises(LostProcessError, match="has stopped answering"):
        together(waits, leaves)


def test_one_that_does_not_come_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with (
        pytest.raises(LostProcessError, match="could not meet"),
        met(0, 2, tmp_path / "meeting", timedelta(seconds=1)),
    ):
        raise AssertionError("nobody came")


def test_one_that_came_is_waited_for_longer(tmp_path: Path) -> None:
    with met(0, 1, tmp_path / "meeting", timedelta(seconds=9)):
        world = torch.distributed.group.WORLD
        assert world is not None
        assert world._get_backend(torch.device("cpu")).options._timeout == WAITS


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_even_and_whole(processes: int) -> None:
    lengths = [900, 20, 310, 305, 290, 15, 600, 44]
    found = shares([6, 0, 2, 3, 4], lengths, processes)
    assert len(found) == processes
    assert sorted(row for share in found for row in share) == [0, 2, 3, 4, 6]
    tokens = [sum(lengths[row] for row in share) for share in found]
    assert max(tokens) - min(tokens) <= 900
    if processes == 2:
        assert sorted(tokens) == [1200, 1205]
