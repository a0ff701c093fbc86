"""The data's margin, from a file to the loss; rows without one are refused before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from align_bench.api import MarginPairScores, OfflineAlgorithm, ReferencedMarginPairLogps
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.data.token_rows import load_table, save_table
from align_bench.errors import DataError
from align_bench.evaluate.preference import table_logps
from align_bench.models.base import find_base
from align_bench.models.load import load_policy, load_scorer
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.train.feeds import feed_of, margins_of

FP32 = Precision("fp32", "float32", "cpu")
PAIRS = [("Name a prime.", "Seven.", "Nine, or eight."), ("1 + 1?", "2", "3"), ("Why?", "Because.", "No idea at all.")]
BY_MARGIN: list[Mapping[str, object]] = [{"margin": 0.5}, {"margin": "2"}, {"margin": 4.0}]
BY_SCORES: list[Mapping[str, object]] = [
    {"score_chosen": 4.5, "score_rejected": 4},
    {"score_chosen": 1, "score_rejected": -1},
    {"score_chosen": 5, "score_rejected": 1},
]


def method(name: str) -> OfflineAlgorithm:
    found = load_registry()[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


def token_rows(folder: Path, tokenizer: Any, said: Sequence[Mapping[str, object]]) -> Sequence[TokenRow]:
    """The pairs as a file says them, read, tokenised, stored and loaded."""
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}
        for (prompt, chosen, rejected), more in zip(PAIRS, said, strict=True)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    save_table(folder / "tokens.parquet", tokenize(tokenizer, read(DataSource(str(path))), max_length=128))
    return load_table(folder / "tokens.parquet").rows


@pytest.mark.parametrize("said", [BY_MARGIN, BY_SCORES], ids=["margin", "scores"])
def test_from_a_file_to_the_loss(
    tmp_path: Path, base_folder: Path, tokenizer: Any, said: Sequence[Mapping[str, object]]
) -> None:
    rows = token_rows(tmp_path, tokenizer, said)
    model = load_policy(find_base(str(base_folder)), FP32)
    reference = {side: values - 1.5 * (side == "chosen") for side, values in logps(model, rows).items()}
    feed = feed_of(method("odpo"), rows, reference)
    feed.begin(model, range(3), max_tokens=64)
    record = feed.record(model, [2, 0])
    assert isinstance(record, ReferencedMarginPairLogps)
    assert record.margin.tolist() == [4.0, 0.5]
    assert not record.margin.requires_grad
    # ρ is 1.5 of chosen answers and 0 of rejected ones.
    loss = method("odpo")(record, beta=0.2, alpha=0.5)
    expected = [math.log1p(math.exp(0.5 * math.log(margin) - 0.2 * 1.5)) for margin in (4.0, 0.5)]
    assert loss.values.tolist() == pytest.approx(expected, rel=1e-4)
    assert loss.rewards_in("chosen_rewards").tolist() == pytest.approx([0.3, 0.3], rel=1e-4)


def logps(model: Any, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
    return table_logps(model, rows, max_tokens=256)


def test_scores_come_with_the_margin(tmp_path: Path, base_folder: Path, tokenizer: Any) -> None:
    rows = token_rows(tmp_path, tokenizer, BY_MARGIN)
    model = load_scorer(find_base(str(base_folder)), FP32, seed=0)
    feed = feed_of(method("margin_rm"), rows, None)
    feed.begin(model, range(3), max_tokens=64)
    whole = feed.record(model, range(3))
    assert isinstance(whole, MarginPairScores)
    assert whole.margin.tolist() == [0.5, 2.0, 4.0]
    found = method("margin_rm")(whole, scale=2.0, centering=0.0).values
    expected = [
        math.log1p(math.exp(2 * margin - won + lost))
        for margin, won, lost in zip((0.5, 2.0, 4.0), whole.chosen.tolist(), whole.rejected.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    alone = torch.cat(
        [method("margin_rm")(feed.record(model, [row]), scale=2.0, centering=0.0).values for row in (0, 1, 2)]
    )
    torch.testing.assert_close(alone, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["odpo", "margin_rm"])
def test_rows_without_a_margin_are_refused(tmp_path: Path, tokenizer: Any, name: str) -> None:
    rows = token_rows(tmp_path, tokenizer, [{"margin": 1.0}, {}, {"margin": None}])
    assert [row.margin for row in rows] == [1.0, None, None]
    said = rf"{name} reads .*, and 2 of 3 rows of judge do not say it \(the first is row 1\)"
    with pytest.raises(DataError, match=said) as caught:
        margins_of(rows, name, "judge")
    assert "`score_chosen`" in (caught.value.fix or "")
    reference = {"chosen": torch.zeros(3), "rejected": torch.zeros(3)}
    with pytest.raises(DataError, match="2 of 3 rows of the training set"):
        feed_of(method(name), rows, reference)
    feed_of(method("dpo"), rows, reference)  # which reads none


def test_a_table_from_before_there_were_margins_is_read(tmp_path: Path, tokenizer: Any) -> None:
    rows = token_rows(tmp_path, tokenizer, BY_MARGIN)
    old = pyarrow.parquet.read_table(tmp_path / "tokens.parquet")
    pyarrow.parquet.write_table(old.drop_columns(["margin"]), tmp_path / "old.parquet")
    found = load_table(tmp_path / "old.parquet")
    assert found.counts == {"kept": 3, "truncated": 0}
    assert [(row.prompt, row.chosen, row.rejected) for row in found.rows] == [
        (row.prompt, row.chosen, row.rejected) for row in rows
    ]
    assert [row.margin for row in found.rows] == [None] * 3
