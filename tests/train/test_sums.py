"""Sums of losses, and losses that read the whole batch or remember it, through the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import BatchPairLogps, BatchUnpairedLogps, OfflineAlgorithm, summed
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
from align_bench.train.feeds import feed_of
from align_bench.train.job import TrainingJob, TrainLog
from align_bench.train.loop import train

REGISTRY = load_registry()
SETTINGS = Train(batch_size=6, max_length=128, epochs=2)
MPO = {"dpo.weight": 0.8, "bco.weight": 0.2, "bco.beta": 0.3, "sft.weight": 1.0}
Run = Callable[..., tuple[TrainLog, Mapping[str, Tensor]]]


def method(name: str) -> OfflineAlgorithm:
    """A method, or the sum of those with + between them."""
    if "+" in name:
        return summed(name, {term: REGISTRY[term].algorithm for term in name.split("+")})
    found = REGISTRY[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[TokenRow]:
    return tokenize(tokenizer, read(DataSource("embedded/planted", split="train", rows=14)), max_length=128).rows


@pytest.fixture(scope="module")
def run(base_folder: Path, rows: Sequence[TokenRow]) -> Run:
    """Trains a method from the same start; returns its log and its weights."""
    base, precision = find_base(str(base_folder)), Precision("fp32", "float32", "cpu")
    frozen = load_policy(base, precision)
    reference: dict[str, Tensor] = {}
    for measure in (table_logps, prefix_logps, mismatched_logps):
        reference |= measure(frozen, rows, max_tokens=512)

    def train_it(name: str, settings: Train = SETTINGS, **more: Any) -> tuple[TrainLog, Mapping[str, Tensor]]:
        algorithm = method(name)
        given = more.pop("parameters", {})
        model = add_adapter(load_policy(base, precision), Lora(r=4, alpha=8), seed=0)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=algorithm,
            parameters=algorithm.resolve(given),
            learning_rate=5e-3,
            settings=settings,
            seed=5,
            **more,
        )
        log = train(job, reference if algorithm.reference else None)
        return log, {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}

    return train_it


def test_terms_are_logged_apart_and_add_up(run: Run) -> None:
    log, _ = run("sft+dpo+bco", parameters=MPO)
    for step in log.steps:
        added = 0.8 * step["dpo.loss"] + 0.2 * step["bco.loss"] + step["sft.loss"]
        assert step["loss"] == pytest.approx(added, rel=1e-5)
    first = log.steps[0]
    assert first["dpo.loss"] == pytest.approx(0.6931472, rel=1e-5), "ln 2 at the reference"
    assert first["bco.loss"] == pytest.approx(2 * 0.6931472, rel=1e-5), "of both answers of a pair"
    assert log.steps[-1]["bco.shift"] != 0


def test_the_order_of_terms_changes_no_bit(run: Run) -> None:
    one, other = (run(name, parameters=MPO) for name in ("sft+dpo+bco", "bco+sft+dpo"))
    assert [step["loss"] for step in one[0].steps] == [step["loss"] for step in other[0].steps]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_all_terms_share_one_forward_pass(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def counted(model: Any, sequences: Any) -> Tensor:
        passes.append(len(sequences))
        return response_logps(model, sequences)

    monkeypatch.setattr(feeds, "response_logps", counted)
    counts = []
    for name in ("dpo", "dpo+sft", "cpo+simpo+sft"):
        passes.clear()
        run(name)
        counts.append(sum(passes))
    assert counts == [2 * 14 * SETTINGS.epochs] * 3


def test_a_term_of_weight_1_beside_one_of_next_to_none_trains_as_it_does_alone(run: Run) -> None:
    alone, _ = run("dpo")
    beside, _ = run("dpo+sft", parameters={"sft.weight": 1e-12})
    for one, other in zip(alone.steps, beside.steps, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["margin"] == pytest.approx(one["margin"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["bco", "aot", "aot_unpaired", "beta_dpo", "ld_dpo", "wpo", "sft+dpo+bco", "dpo+kto"])
def test_micro_batches_do_not_change_the_training(run: Run, name: str) -> None:
    whole, _ = run(name, SETTINGS.model_copy(update={"micro_batch_tokens": 100_000}))
    parts, _ = run(name, SETTINGS.model_copy(update={"micro_batch_tokens": 128}))
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["beta_dpo", "sft+dpo+bco"])
def test_a_killed_training_remembers_what_it_did(run: Run, tmp_path: Path, name: str) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_minutes": 1e-9})
    _, straight = run(name, settings)

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(name, settings, checkpoint=tmp_path / "checkpoint.pt", update=kill)
    log, resumed = run(name, settings, checkpoint=tmp_path / "checkpoint.pt")
    assert len(log.steps) == 9
    assert all(torch.equal(straight[weight], resumed[weight]) for weight in straight)


def test_what_is_remembered_is_of_all_batches_and_of_each_once(base_folder: Path, rows: Sequence[TokenRow]) -> None:
    model = load_policy(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    reference = {side: values - 1.5 for side, values in table_logps(model, rows, max_tokens=512).items()}
    feed = feed_of(method("bco"), rows, reference, {"beta": 0.2})
    assert isinstance(feed, feeds.BatchFeed)
    for _ in range(2):  # begun again after memory ran out
        feed.begin(model, range(8), max_tokens=128)
    assert feed.running == pytest.approx({"mean": 0.2 * 1.5, "answers": 8.0}, rel=1e-4)
    record = feed.record(model, [7, 2])
    assert isinstance(record, BatchUnpairedLogps)
    assert record.place.tolist() == [7, 2]
    torch.testing.assert_close(record.batch.logps[record.place], record.logps.detach(), rtol=1e-4, atol=1e-4)
    assert not record.batch.logps.requires_grad
    feed.before = feed.running
    feed.begin(model, range(8, 12), max_tokens=128)
    assert feed.running["answers"] == 12


def test_kto_of_pairs_is_kto_of_their_answers(base_folder: Path, rows: Sequence[TokenRow]) -> None:
    model = load_policy(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    kto, added = method("kto"), method("dpo+kto")
    reference = table_logps(model, rows, max_tokens=512) | mismatched_logps(model, rows, max_tokens=512)
    for number, values in enumerate(reference.values()):
        values += torch.linspace(-3, 2, len(values)).roll(number)
    batch = [9, 3, 12, 0, 5]
    answers = [2 * row + side for row in batch for side in (0, 1)]
    apart, together = feed_of(kto, rows, reference), feed_of(added, rows, reference)
    apart.begin(model, answers, max_tokens=128)
    together.begin(model, batch, max_tokens=128)
    alone = kto(apart.record(model, answers), beta=0.3)
    found = added(together.record(model, batch), **added.resolve({"kto.beta": 0.3}))
    assert float(alone.metrics["drift"][0]) > 0
    torch.testing.assert_close(found.metrics["kto.loss"], alone.values.reshape(-1, 2).sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.metrics["kto.drift"][:1], alone.metrics["drift"][:1], rtol=1e-4, atol=1e-5)
    part = added(together.record(model, batch[:2]), **added.resolve({"kto.beta": 0.3}))
    torch.testing.assert_close(part.values, found.values[:2], rtol=1e-4, atol=1e-5)


def test_the_whole_batch_is_in_the_order_of_its_rows(base_folder: Path, rows: Sequence[TokenRow]) -> None:
    model = load_policy(find_base(str(base_folder)), Precision("fp32", "float32", "cpu"))
    reference = table_logps(model, rows, max_tokens=512)
    feed = feed_of(method("aot"), rows, reference)
    batch = [9, 3, 12, 0, 5]
    feed.begin(model, batch, max_tokens=128)
    record = feed.record(model, [12, 9])
    assert isinstance(record, BatchPairLogps)
    assert record.place.tolist() == [2, 0]
    torch.testing.assert_close(record.batch.chosen, reference["chosen"][batch], rtol=1e-4, atol=1e-4)
    assert record.batch.ref_rejected.tolist() == reference["rejected"][batch].tolist()
