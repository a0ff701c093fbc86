"""The training loop: micro-batches change nothing, a kill changes nothing, and mistakes are told."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import Loss, OfflineAlgorithm, PairLogps, ReferencedUnpairedLogps, UnpairedLogps, algorithm
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.errors import DataError, PluginError
from align_bench.evaluate.preference import mismatched_logps, table_logps
from align_bench.models.base import find_base
from align_bench.models.flat_weights import flattened
from align_bench.models.load import add_adapter, load_policy, load_scorer
from align_bench.models.logprobs import response_logps
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train import loop, steps
from align_bench.train.feeds import FEEDS
from align_bench.train.job import TrainingJob, silent
from align_bench.train.loop import train
from align_bench.train.steps import Budget, Sums
from tests.checkpointed import checkpointed_layers

FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=6, max_length=128)
METHODS = ["rm", "dpo", "kto", "simpo", "orpo", "odpo", "margin_rm"]


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[TokenRow]:
    found = read(DataSource("embedded/planted", split="train", rows=14))
    preferences = tuple(replace(row, margin=0.3 + row.pair % 5) for row in found.rows)  # for the methods that read it
    return tokenize(tokenizer, replace(found, rows=preferences), max_length=128).rows


@pytest.fixture(scope="module")
def build(base_folder: Path, rows: Sequence[TokenRow]) -> Callable[..., dict[str, Any]]:
    """Trains one method from the same start and returns what came of it."""
    base, registry = find_base(str(base_folder)), load_registry()
    frozen = load_policy(base, FP32)
    reference = table_logps(frozen, rows, max_tokens=512) | mismatched_logps(frozen, rows, max_tokens=512)

    def run(
        name: str, settings: Train = SETTINGS, *, dropout: float = 0.0, precision: Precision = FP32, **more: Any
    ) -> dict[str, Any]:
        method = registry[name].algorithm
        assert isinstance(method, OfflineAlgorithm)
        load = load_scorer if method.kind == "reward" else load_policy
        model = add_adapter(load(base, precision), Lora(r=4, alpha=8, dropout=dropout), seed=0)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=method,
            parameters=method.resolve({}),
            learning_rate=1e-2,
            settings=settings,
            seed=5,
            **more,
        )
        log = train(job, reference if method.reference else None)
        weights = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        return {"log": log, "weights": weights, "model": model}

    return run


@pytest.fixture(scope="module")
def exact(build: Callable[..., dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """A training of each method in fp32, made once for all that is held to it."""
    return cache(build)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], *, rtol: float = 0.0, atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol, msg=f"{name}: {{}}".format)


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_do_not_change_the_training(build: Callable[..., dict[str, Any]], name: str) -> None:
    whole = build(name, SETTINGS.model_copy(update={"micro_batch_tokens": 100_000}))
    parts = build(name, SETTINGS.model_copy(update={"micro_batch_tokens": 128}))
    for one, other in zip(whole["log"].steps, parts["log"].steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_layers_that_compute_again_do_not_change_the_training(
    build: Callable[..., dict[str, Any]],
    exact: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    checkpointed = checkpointed_layers(monkeypatch)
    again = build(name, SETTINGS.model_copy(update={"activation_checkpointing": True}))
    assert checkpointed() > 0
    for one, other in zip(exact(name)["log"].steps, again["log"].steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again["model"].modules())


@pytest.mark.parametrize("fits", [True, False])
def test_layers_compute_again_where_single_examples_are_too_much(
    build: Callable[..., dict[str, Any]],
    exact: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    fits: bool,
) -> None:
    real, asked, said = loop._accumulate, list[tuple[int, bool]](), list[str]()

    def small(accelerator: Any, job: Any, feed: Any, batch: Any, group: Any, tokens: int) -> Sums:
        checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in job.model.modules())
        asked.append((tokens, checkpointed))
        if not (fits and checkpointed and tokens < 768):
            raise torch.OutOfMemoryError("no memory left")
        return real(accelerator, job, feed, batch, group, tokens)

    monkeypatch.setattr(loop, "_accumulate", small)
    tried = [(768, False), (384, False), (192, False), (96, False), (768, True), (384, True)]
    if not fits:
        with pytest.raises(torch.OutOfMemoryError):
            build("dpo", say=said.append)
        assert asked == [*tried, (192, True), (96, True)]
        return
    again = build("dpo", say=said.append)
    assert asked[:7] == [*tried, (384, True)]
    assert len(said) == 1
    assert "train.activation_checkpointing" in said[0]
    plain = exact("dpo")["log"].steps
    assert [step["loss"] for step in again["log"].steps] == pytest.approx([step["loss"] for step in plain], rel=1e-4)


@pytest.mark.parametrize("storage", ["bf16", "nf4"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_where_bf16_computes(
    build: Callable[..., dict[str, Any]], exact: Callable[[str], dict[str, Any]], name: str, storage: str
) -> None:
    near = build(name, precision=Precision(storage, "bfloat16", "cpu"))
    tolerance = 0.05 if storage == "bf16" else 0.5
    assert near["log"].steps[0]["loss"] == pytest.approx(exact(name)["log"].steps[0]["loss"], rel=tolerance)
    assert {weight.dtype for weight in near["weights"].values()} == {torch.float32}
    assert near["log"].steps[-1]["gradient_norm"] > 0


@pytest.mark.parametrize("name", METHODS)
def test_training_lowers_the_loss(build: Callable[..., dict[str, Any]], name: str) -> None:
    steps = build(name, SETTINGS.model_copy(update={"epochs": 6}))["log"].steps
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_the_same_seed_gives_the_same_numbers(build: Callable[..., dict[str, Any]]) -> None:
    one, other = build("dpo", dropout=0.1), build("dpo", dropout=0.1)
    assert [step["loss"] for step in one["log"].steps] == [step["loss"] for step in other["log"].steps]
    assert_same(one["weights"], other["weights"])


@pytest.mark.parametrize(("name", "ahead"), [("dpo", False), ("kto", False), ("rm", False), ("dpo", True)])
def test_a_killed_training_goes_on_to_the_same_numbers(
    build: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ahead: bool
) -> None:
    monkeypatch.setattr(steps, "queues", lambda _: ahead)
    settings = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_minutes": 1e-9})
    straight = build(name, settings, dropout=0.1)
    checkpoint = tmp_path / "deep" / "checkpoint.pt"

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(name, settings, dropout=0.1, checkpoint=checkpoint, update=kill)
    assert checkpoint.is_file()
    resumed_from: list[int] = []
    resumed = build(
        name,
        settings,
        dropout=0.1,
        checkpoint=checkpoint,
        update=lambda done, total, note="": resumed_from.append(done),
    )
    assert resumed_from[0] == 4  # step 4 was done but not saved when the kill came
    assert_same(straight["weights"], resumed["weights"])
    assert [step["loss"] for step in straight["log"].steps] == [step["loss"] for step in resumed["log"].steps]
    assert straight["log"].tokens == resumed["log"].tokens


def test_where_the_host_is_ahead_a_step_is_read_when_the_next_is_queued(
    build: Callable[..., dict[str, Any]], straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "queues", lambda _: True)
    queued = 0
    seen: list[tuple[int, int]] = []
    step = torch.optim.AdamW.step

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal queued
        queued += 1
        return step(*given, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    ahead = build("dpo", CHECKPOINTED, update=lambda done, total, note="": seen.append((done, queued)))
    total = len(straight["log"].steps)
    assert seen == [(done, min(done + 1, total)) for done in range(1, total + 1)]
    assert_same(straight["weights"], ahead["weights"])
    for one, other in zip(straight["log"].steps, ahead["log"].steps, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def emptied(data: bytes) -> bytes:
    return b""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One bit of an exponent of a weight, or of anything else, is another one."""
    place = 2 * len(data) // 3
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


CHECKPOINTED = SETTINGS.model_copy(update={"epochs": 2, "checkpoint_minutes": 1e-9})


@pytest.fixture(scope="module")
def straight(build: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The training that nothing disturbs."""
    return build("dpo", CHECKPOINTED)


@pytest.fixture(scope="module")
def killed(build: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkpoints of the same, killed at its fourth step."""
    folder = tmp_path_factory.mktemp("killed")

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("dpo", CHECKPOINTED, checkpoint=folder / "checkpoint.pt", update=kill)
    return folder


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("damage", [emptied, cut, flipped])
def test_a_damaged_checkpoint_is_said_and_training_goes_on_from_the_one_before(
    build: Callable[..., dict[str, Any]],
    straight: dict[str, Any],
    killed: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    damaged: int,
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoint.pt"
    for file in [checkpoint, tmp_path / "checkpoint.pt.previous"][:damaged]:
        file.write_bytes(damage(file.read_bytes()))
    steps: list[int] = []
    said: list[str] = []
    resumed = build(
        "dpo",
        CHECKPOINTED,
        checkpoint=checkpoint,
        update=lambda done, total, note="": steps.append(done),
        say=said.append,
    )
    assert steps[0] == (3 if damaged == 1 else 1)  # checkpoints of the third and the second step were written
    assert [line.partition(" is damaged: it was renamed to ")[2].partition(",")[0] for line in said] == [
        "checkpoint.pt.damaged",
        "checkpoint.pt.previous.damaged",
    ][:damaged]
    assert_same(straight["weights"], resumed["weights"])
    assert [step["loss"] for step in straight["log"].steps] == [step["loss"] for step in resumed["log"].steps]


def test_memory_of_the_host_that_runs_out_halves_the_micro_batches() -> None:
    asked: list[int] = []

    def attempt(tokens: int) -> dict[str, float]:
        asked.append(tokens)
        if tokens > 256:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return {"loss": 1.0}

    budget = Budget(torch.nn.Linear(1, 1), 1024, silent, checkpointed=False)
    assert budget.run(attempt) == {"loss": 1.0}
    assert asked == [1024, 512, 256]
    with pytest.raises(RuntimeError, match="something else"):
        budget.run(lambda tokens: _raise(RuntimeError("something else")))


def test_an_attempt_that_ran_out_of_memory_leaves_no_gradient() -> None:
    model = torch.nn.Linear(2, 1)
    (flat,) = flattened(model.parameters())

    def attempt(tokens: int) -> None:
        model(torch.ones(1, 2)).sum().backward()
        flat.buffer.sum().backward()  # as a pass that goes as a graph
        if tokens > 512:
            raise torch.OutOfMemoryError("no memory left")

    Budget(model, 1024, silent, checkpointed=False, flat=[flat]).run(attempt)
    flat.gather()
    assert flat.buffer.grad is not None
    assert flat.buffer.grad.tolist() == [2.0, 2.0, 2.0]


def test_an_accelerator_leaves_in_the_hosts_memory_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(torch.nn.Linear):
        """A model that can compute its layers again, on a device that this machine need not have."""

        device = torch.device("cuda")
        gradient_checkpointing = False

        def activation_checkpointing_enable(self, options: Any) -> None:
            self.gradient_checkpointing = True

    offloaded = False

    @contextmanager
    def on_the_host(pin_memory: bool) -> Iterator[None]:
        nonlocal offloaded
        offloaded = True
        yield
        offloaded = False

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", on_the_host)
    model, asked, said = Large(1, 1), list[tuple[int, bool, bool]](), list[str]()

    def attempt(tokens: int) -> str:
        asked.append((tokens, model.gradient_checkpointing, offloaded))
        if len(asked) < 6:
            raise torch.OutOfMemoryError("no memory left")
        return "done"

    with Budget(model, 256, said.append, checkpointed=False) as budget:
        assert budget.run(attempt) == "done"
        assert budget.run(attempt) == "done"
    levels = [(False, False), (True, False), (True, True)]
    assert asked == [(tokens, *level) for level in levels for tokens in (256, 128)] + [(128, True, True)]
    assert ["activation_checkpointing" in line or "host's memory" in line for line in said] == [True, True]


def _raise(error: Exception) -> dict[str, float]:
    raise error


def test_the_first_step_is_the_naive_one(
    build: Callable[..., dict[str, Any]], base_folder: Path, rows: Sequence[TokenRow]
) -> None:
    """One SimPO step against a mean over rows, written out with AdamW from torch."""
    settings = SETTINGS.model_copy(update={"batch_size": len(rows), "warmup": 0.0, "schedule": "constant"})
    ours = build("simpo", settings)
    model = add_adapter(load_policy(find_base(str(base_folder)), FP32), Lora(r=4, alpha=8), seed=0).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []
    for row in rows:
        assert row.chosen is not None
        assert row.rejected is not None
        chosen = response_logps(model, [(row.prompt, row.chosen)])[0] / len(row.chosen)
        rejected = response_logps(model, [(row.prompt, row.rejected)])[0] / len(row.rejected)
        losses.append(-torch.log(torch.sigmoid(2.5 * (chosen - rejected) - 1.25)))
    loss = torch.stack(losses).mean()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0).step()
    assert ours["log"].steps[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    expected = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert_same(ours["weights"], expected, rtol=1e-3, atol=1e-4)


def test_schedule_warms_up_and_decays(build: Callable[..., dict[str, Any]]) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 4, "warmup": 0.25})
    rates = [step["learning_rate"] for step in build("simpo", settings)["log"].steps]
    peak = rates.index(max(rates))
    assert rates[0] < rates[peak] == pytest.approx(1e-2)
    assert rates[-1] < 0.1 * rates[peak]


def declared(function: Callable[..., Loss]) -> OfflineAlgorithm:
    function.__doc__ = "A loss for a test."
    return algorithm(paper="none", learning_rate=1e-3, reward="none")(function)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda logps: Loss(logps.chosen / 0 * math.nan, logps.chosen, logps.chosen), "training diverged"),
        (lambda logps: logps.no_such_field, "raised AttributeError"),
        (lambda logps: Loss(logps.chosen.mean(), logps.chosen, logps.chosen), "one per row"),
    ],
    ids=["nan", "raises", "reduced"],
)
def test_a_broken_loss_is_told(
    base_folder: Path, rows: Sequence[TokenRow], broken: Callable[[PairLogps], Loss], words: str
) -> None:
    def my_loss(logps: PairLogps) -> Loss:
        return broken(logps)

    model = add_adapter(load_policy(find_base(str(base_folder)), FP32), Lora(r=4, alpha=8), seed=0)
    with pytest.raises(PluginError, match=words):
        train(
            TrainingJob(
                model=model,
                rows=rows,
                algorithm=declared(my_loss),
                parameters={},
                learning_rate=1e-3,
                settings=SETTINGS,
                seed=0,
            )
        )


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_step_has_diverged_by_its_loss_or_by_its_gradient(loss: float, norm: float) -> None:
    numbers = steps._Numbers(7, Sums({"loss": torch.tensor(loss)}, {}), 2, torch.tensor(norm), {})
    with pytest.raises(PluginError, match="at step 7: training diverged"):
        numbers.entry()


@pytest.mark.parametrize("data", ["pairs", "scores"])
def test_unpaired_rows_are_refused_where_pairs_are_needed(data: str) -> None:
    with pytest.raises(DataError, match="one answer"):
        FEEDS[data]([TokenRow(7, (1,), (2,), None)], None)


def test_unpaired_feed_takes_rows_with_one_answer(base_folder: Path) -> None:
    rows = [TokenRow(0, (5, 6), (7, 8), None), TokenRow(1, (9,), None, (10,)), TokenRow(2, (5, 7), (3,), (4, 4))]
    model = load_policy(find_base(str(base_folder)), FP32)
    columns = {
        f"{prefix}{side}": place + torch.arange(3.0)
        for place, (prefix, side) in enumerate(itertools.product(("", "mismatched_"), ("chosen", "rejected")))
    }
    feed = FEEDS["unpaired"](rows, columns)
    assert list(feed.tokens) == [4, 2, 3, 4]
    feed.begin(model, [0, 1, 2, 3], 64)
    record = feed.record(model, [1, 2])
    assert isinstance(record, ReferencedUnpairedLogps)
    assert record.desirable.tolist() == [False, True]
    assert record.tokens.tolist() == [1, 1]
    # Each prompt meets the next row's answer of the same side, or the one that it has.
    expected = [((5, 6), (10,)), ((9,), (4, 4)), ((5, 7), (7, 8)), ((5, 7), (7, 8))]
    torch.testing.assert_close(record.mismatched, response_logps(model, expected).detach())
    assert record.ref_logps.tolist() == [1.0 + 1, 2.0]
    assert record.ref_mismatched.tolist() == [2.0, 3.0 + 1, 2.0 + 2, 3.0 + 2]
    plain = FEEDS["unpaired"](rows, None)
    plain.begin(model, [0, 1, 2, 3], 64)
    assert type(plain.record(model, [1, 2])) is UnpairedLogps


def test_memory_that_runs_out_halves_the_micro_batch(
    build: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build("simpo")
    real, calls = loop._accumulate, []

    def exhausted(*arguments: Any) -> Sums:
        calls.append(arguments[-1])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no memory left")
        return real(*arguments)

    monkeypatch.setattr(loop, "_accumulate", exhausted)
    said: list[str] = []
    halved = build("simpo", say=said.append)
    assert calls[:2] == [768, 384]
    assert not said
    assert halved["log"].steps[-1]["loss"] == pytest.approx(plain["log"].steps[-1]["loss"], rel=1e-4)
