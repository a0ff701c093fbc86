"""How long what is missing will take: sizes of tables, tokens of stages, and rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.data import preferences
from align_bench.data.preferences import DataSource
from align_bench.models.base import Base
from align_bench.models.precision import Precision
from align_bench.planning import estimate as estimate_module
from align_bench.planning.estimate import Estimate, utilisation
from align_bench.planning.known import NothingKnown
from align_bench.plugins.registry import Plugin, load_registry
from align_bench.records import PreferenceSet, TokenTable
from align_bench.stages import rows as rows_module
from align_bench.stages.holdout import HoldoutSplit
from align_bench.stages.models import Frozen
from align_bench.stages.overlap import Overlap
from align_bench.stages.reference import Reference
from align_bench.stages.rows import Rows
from align_bench.stages.stage import Size, Stage
from align_bench.stages.tokens import Tokens
from align_bench.stages.train import Train, Trained
from align_bench.stages.train_online import TrainOnline
from align_bench.suite.models import Lora
from align_bench.suite.models import Train as Settings

REGISTRY = load_registry()
FROZEN = Frozen(Base("some/base", Path("base"), None, "weights"), Precision("fp32", "float32", "cpu"))
SIZE = Size(rows=10, tokens=1000, prompt_tokens=400, prompts=5)
PARAMETERS = 7


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Three rows of the embedded set, which nobody has read yet."""
    monkeypatch.setattr(estimate_module, "_SIZES", {})
    rows_module._read.cache_clear()
    return Rows(DataSource("embedded/planted", split="train", rows=3), "three rows")


@pytest.fixture
def table(rows: Rows) -> Tokens:
    """Their table."""
    return Tokens(owner="train", rows=rows, frozen=FROZEN, max_length=128)


class Tokenised(NothingKnown):
    """A `Known` where every table is tokenised."""

    def facts(self, stage: Stage[object]) -> Mapping[str, Any] | None:
        return {"size": asdict(SIZE)}


def no_rate() -> float:
    raise AssertionError("the device's rate is asked for where no rate is known, and else never")


def trained(kind: type[Trained], method: str, table: Stage[TokenTable], **more: Any) -> Trained:
    """What trains a method for two epochs."""
    plugin: Plugin = REGISTRY[method]
    shared: dict[str, Any] = {"owner": method, "parameters": {}, "learning_rate": 1e-4, "seed": 0, "lora": Lora()}
    return kind(**shared, plugin=plugin, frozen=FROZEN, settings=Settings(epochs=2), table=table, **more)


def test_size_of_a_table_is_guessed_from_its_texts(rows: Rows, table: Tokens) -> None:
    prompts = tokens = 0
    for row in preferences.read(rows.source).rows:
        assert row.chosen is not None
        assert row.rejected is not None
        prompt = "".join(message.content for message in row.prompt)
        prompts += len(prompt)
        tokens += len(prompt + row.chosen) + len(prompt + row.rejected)
    assert prompts > 0
    assert Estimate(NothingKnown(), PARAMETERS, {}, no_rate).size(table) == Size(3, tokens // 4, prompts // 4, 3)


def test_texts_are_read_once(rows: Rows, table: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    read = preferences.read
    times: list[DataSource] = []

    def counting(source: DataSource) -> PreferenceSet:
        times.append(source)
        return read(source)

    monkeypatch.setattr(preferences, "read", counting)
    for _ in range(2):
        Estimate(NothingKnown(), PARAMETERS, {}, no_rate).size(replace(table, owner="another"))
    rows.read()  # as a run does afterwards
    assert times == [rows.source]


def test_size_of_a_tokenised_table_is_known(table: Tokens) -> None:
    assert Estimate(Tokenised(), PARAMETERS, {}, no_rate).size(table) == SIZE


def test_held_out_rows_are_a_share_of_the_table(table: Tokens) -> None:
    estimate = Estimate(Tokenised(), PARAMETERS, {}, no_rate)
    cut: dict[str, Any] = {"owner": "cut", "train": table, "val": table, "share": 0.25, "seed": 0}
    assert estimate.size(HoldoutSplit(part="val", **cut)) == Size(2, 250, 100, 1)
    assert estimate.size(HoldoutSplit(part="train", **cut)) == Size(7, 750, 300, 3)


def test_operations_are_those_of_the_passes(table: Tokens) -> None:
    """2 a token and weight forward, 4 with the backward pass; methods that write their own answers pass four times."""
    estimate = Estimate(Tokenised(), PARAMETERS, {}, no_rate)
    epochs = 2
    assert estimate.flops(Reference(owner="base", table=table, frozen=FROZEN, max_tokens=1)) == 1000 * 2 * PARAMETERS
    assert estimate.flops(trained(Train, "dpo", table)) == epochs * 1000 * 4 * PARAMETERS
    assert estimate.flops(trained(Train, "kto", table)) == epochs * 1500 * 4 * PARAMETERS
    assert estimate.flops(trained(Train, "tr_dpo", table)) == epochs * 1500 * 4 * PARAMETERS
    assert estimate.flops(trained(Train, "sft", table)) == epochs * 500 * 4 * PARAMETERS
    online = trained(TrainOnline, "ppo", table, reward=None, texts=table.rows)
    assert estimate.flops(online) == epochs * 4000 * 4 * PARAMETERS
    again = Settings(epochs=2, activation_checkpointing=True)
    for stage in (trained(Train, "dpo", table), online):
        assert estimate.flops(replace(stage, settings=again)) == 1.5 * estimate.flops(stage)


def test_seconds_follow_the_rates_of_their_kind_else_the_device(table: Tokens) -> None:
    reference = Reference(owner="base", table=table, frozen=FROZEN, max_tokens=1)
    estimate = Estimate(Tokenised(), PARAMETERS, {"adapter": 50.0}, lambda: 100.0)
    assert estimate.seconds(trained(Train, "dpo", table)) == 2000 / 50
    assert estimate.seconds(reference) == pytest.approx(1000 * 2 * PARAMETERS / (100 * utilisation("cpu", PARAMETERS)))
    known = Estimate(Tokenised(), PARAMETERS, {"adapter": 50.0, "reference": 8.0}, no_rate)
    assert known.seconds(reference) == 125
    dpo = trained(Train, "dpo", table)
    assert (
        known.basis([dpo, reference, table]) == "times: measured here, in this suite's own work, for adapter, reference"
    )
    assert "work, for adapter; not measured yet for reference: by the speed of a matrix product" in estimate.basis(
        [dpo, reference]
    )
    assert "times: not measured yet for adapter: " in Estimate(NothingKnown(), PARAMETERS, {}, no_rate).basis([dpo])
    assert known.basis([table]) == "times: no work is left"


def test_a_small_model_does_not_fill_a_gpu() -> None:
    assert utilisation("cuda", 135_000_000) == pytest.approx(0.016, rel=0.05)  # as seen on an H200
    assert utilisation("cuda", 7_000_000_000) == utilisation("cuda", 70_000_000_000) == 0.3


def test_a_sample_tells_the_size_until_rows_are_tokenised(table: Tokens) -> None:
    found = Size(4, 40, 20, 3)
    assert Estimate(NothingKnown(), PARAMETERS, {}, no_rate, sizes={table: found}).size(table) == found
    assert Estimate(Tokenised(), PARAMETERS, {}, no_rate, sizes={table: found}).size(table) == SIZE


def test_what_brings_nothing_through_a_model_takes_no_time(table: Tokens) -> None:
    estimate = Estimate(NothingKnown(), PARAMETERS, {}, no_rate)
    assert estimate.seconds(table) == 0
    assert estimate.seconds(Overlap(owner="judge", judge=table, train=table, name="rm")) == 0
