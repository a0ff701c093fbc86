"""A reference that moves with the policy, through the training loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import OfflineAlgorithm, summed
from align_bench.data.batches import effective_batches
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, prefix_logps, table_logps
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy
from align_bench.models.logprobs import response_logps
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train import feeds
from align_bench.train.job import TrainingJob, TrainLog
from align_bench.train.loop import train

REGISTRY = load_registry()
FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=6, max_length=128, epochs=2)  # of 14 rows: steps of 6, 6 and 2 rows, twice
Run = Callable[..., tuple[TrainLog, Mapping[str, Tensor]]]


def method(name: str) -> OfflineAlgorithm:
    """A built-in method; of the others than tr_dpo, what it would be if its reference moved after every two steps."""
    found = REGISTRY[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found if name in ("dpo", "tr_dpo") else replace(found, moving_reference=lambda: 2)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[TokenRow]:
    return tokenize(tokenizer, read(DataSource("embedded/planted", split="train", rows=14)), max_length=128).rows


@pytest.fixture(scope="module")
def policy(base_folder: Path) -> Callable[[float], Any]:
    """The base under a fresh adapter of that dropout, the same each time."""
    base = find_base(str(base_folder))
    return lambda dropout: add_adapter(load_policy(base, FP32), Lora(r=4, alpha=8, dropout=dropout), seed=0)


@pytest.fixture(scope="module")
def run(base_folder: Path, policy: Callable[[float], Any], rows: Sequence[TokenRow]) -> Run:
    """Trains a method from the same start; returns its log and its weights."""
    frozen = load_policy(find_base(str(base_folder)), FP32)
    reference: dict[str, Tensor] = {}
    for measure in (table_logps, prefix_logps, mismatched_logps):
        reference |= measure(frozen, rows, max_tokens=512)

    def train_it(
        algorithm: OfflineAlgorithm, settings: Train = SETTINGS, dropout: float = 0.0, **more: Any
    ) -> tuple[TrainLog, Mapping[str, Tensor]]:
        model = policy(dropout)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=algorithm,
            parameters=algorithm.resolve(more.pop("parameters", {})),
            learning_rate=5e-3,
            settings=settings,
            seed=5,
            **more,
        )
        log = train(job, reference)
        return log, weights(model)

    return train_it


def weights(model: Any) -> Mapping[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def plain(model: Any, row: TokenRow) -> Tensor:
    """`s` of the chosen and the rejected answer, from all logits of one row at a time, shape [2]."""
    found = []
    for answer in (row.chosen, row.rejected):
        assert answer is not None
        ids = torch.tensor([[*row.prompt, *answer]])
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        found.append(logps.gather(1, ids[0, 1:, None])[len(row.prompt) - 1 :].sum())
    return torch.stack(found)


def test_it_trains_as_two_whole_models_of_which_one_is_copied(
    run: Run, policy: Callable[[float], Any], rows: Sequence[TokenRow]
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3, "schedule": "constant", "warmup": 0.0, "max_grad_norm": 1e9})
    log, found = run(method("tr_dpo"), settings, parameters={"beta": 0.3, "sync_steps": 2})
    model = policy(0.0)
    reference = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(
        [value for value in model.parameters() if value.requires_grad], lr=5e-3, weight_decay=settings.weight_decay
    )
    for step, batch in enumerate(effective_batches(len(rows), 6, epochs=3, seed=5), start=1):
        own = torch.stack([plain(model, rows[index]) for index in batch])
        with torch.no_grad():
            held_to = torch.stack([plain(reference, rows[index]) for index in batch])
        ratios = own - held_to
        loss = -logsigmoid(0.3 * (ratios[:, 0] - ratios[:, 1])).mean()
        loss.backward()
        entry = log.steps[step - 1]
        assert entry["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        slopes = [value.grad.norm() for value in model.parameters() if value.grad is not None]
        assert entry["gradient_norm"] == pytest.approx(float(torch.stack(slopes).norm()), rel=1e-3)
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0:
            reference = copy.deepcopy(model).eval()
    assert step == 9
    for name, value in weights(model).items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-4)


def test_a_reference_that_never_moves_is_dpos_bit_for_bit(run: Run) -> None:
    fixed, plain_weights = run(method("dpo"))
    for steps in (6, 512):  # the last of the six steps is followed by no other
        log, found = run(method("tr_dpo"), parameters={"sync_steps": steps})
        assert [step["loss"] for step in log.steps] == [step["loss"] for step in fixed.steps]
        assert all(torch.equal(found[name], plain_weights[name]) for name in plain_weights)
    moved, _ = run(method("tr_dpo"), parameters={"sync_steps": 5})
    assert moved.steps[4]["loss"] == fixed.steps[4]["loss"]
    assert moved.steps[5]["loss"] != fixed.steps[5]["loss"]


def test_after_each_move_the_policy_is_the_reference_to_the_last_bit(run: Run) -> None:
    log, _ = run(method("tr_dpo"), SETTINGS.model_copy(update={"warmup": 0.0}), parameters={"sync_steps": 2})
    assert [step["step"] for step in log.steps if step["margin"] == 0] == [3, 5], "stored ones were packed otherwise"
    assert log.steps[2]["loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_the_reference_has_no_dropout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[tuple[bool, bool]] = []

    def watched(model: Any, sequences: Any) -> Tensor:
        modes.append((model.training, torch.is_grad_enabled()))
        return response_logps(model, sequences)

    monkeypatch.setattr(feeds, "response_logps", watched)
    run(method("tr_dpo"), dropout=0.2, parameters={"sync_steps": 3})
    passes = len(modes) // 3  # three steps with one pass, three with two
    assert modes.count((True, True)) == 2 * passes
    assert modes.count((False, False)) == passes
    assert modes[-1] == (True, True)


@pytest.mark.parametrize("name", ["tr_dpo", "kto", "bco", "beta_dpo", "ld_dpo"])
def test_micro_batches_do_not_change_the_training(run: Run, name: str) -> None:
    algorithm = method(name)
    given = {"sync_steps": 2} if name == "tr_dpo" else {}
    whole, _ = run(algorithm, SETTINGS.model_copy(update={"micro_batch_tokens": 100_000}), parameters=given)
    parts, _ = run(algorithm, SETTINGS.model_copy(update={"micro_batch_tokens": 128}), parameters=given)
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
    fixed, _ = run(replace(algorithm, moving_reference=None), parameters=given)
    assert fixed.steps[1]["loss"] == pytest.approx(whole.steps[1]["loss"], rel=1e-4)
    assert fixed.steps[3]["loss"] != pytest.approx(whole.steps[3]["loss"], rel=1e-4)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
def test_a_killed_training_goes_on_with_its_reference(run: Run, tmp_path: Path, killed_after: int) -> None:
    settings = SETTINGS.model_copy(update={"checkpoint_minutes": 1e-9})
    given: dict[str, Any] = {"dropout": 0.1, "parameters": {"sync_steps": 2}}
    straight, expected = run(method("tr_dpo"), settings, **copy.deepcopy(given))

    def kill(done: int, total: int, note: str = "") -> None:
        if done == killed_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(method("tr_dpo"), settings, checkpoint=tmp_path / "checkpoint.pt", update=kill, **copy.deepcopy(given))
    resumed: list[int] = []
    log, found = run(
        method("tr_dpo"),
        settings,
        checkpoint=tmp_path / "checkpoint.pt",
        update=lambda done, total, note="": resumed.append(done),
        **given,
    )
    assert resumed[0] == killed_after + 1
    assert [step["loss"] for step in log.steps] == [step["loss"] for step in straight.steps]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_memory_that_runs_out_on_the_reference_gives_the_policy_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, expected = run(method("tr_dpo"), parameters={"sync_steps": 2})
    refused: list[int] = []

    def short_of_memory(model: Any, sequences: Any) -> Tensor:
        if not torch.is_grad_enabled() and not refused:
            refused.append(len(sequences))
            raise torch.OutOfMemoryError
        return response_logps(model, sequences)

    monkeypatch.setattr(feeds, "response_logps", short_of_memory)
    log, found = run(method("tr_dpo"), parameters={"sync_steps": 2})
    assert refused
    assert log.steps[-1]["loss"] == pytest.approx(whole.steps[-1]["loss"], rel=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-4)


def test_a_sum_moves_with_the_term_that_does(run: Run) -> None:
    terms = {name: REGISTRY[name].algorithm for name in ("tr_dpo", "sft")}
    added = summed("added", terms)
    log, _ = run(added, parameters={"tr_dpo.sync_steps": 2, "sft.weight": 1e-12})
    alone, _ = run(method("tr_dpo"), parameters={"sync_steps": 2})
    for one, other in zip(alone.steps, log.steps, strict=True):
        assert other["tr_dpo.loss"] == pytest.approx(one["loss"], rel=1e-4)
