"""Validation pairs: per-example values by the methods' own definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align_bench.api import Job, recipe
from align_bench.evaluate import preference
from align_bench.evaluate.preference import (
    mismatched_logps,
    table_attacked_scores,
    table_logps,
    table_scores,
)
from align_bench.evaluate.rewards import rewards_of
from align_bench.models.base import find_base
from align_bench.models.layout import Sequences, passes_over
from align_bench.models.load import load_policy, load_scorer
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow

FP32 = Precision("fp32", "float32", "cpu")
ROWS = [
    TokenRow(0, (5, 6), (7, 8, 9), (10,)),
    TokenRow(1, (11,), (12,), (13, 14, 15, 16)),
    TokenRow(2, (5, 7), (3, 4), (4, 4)),
]


def test_table_is_in_row_order_whatever_the_batches(base_folder: Path) -> None:
    model = load_policy(find_base(str(base_folder)), FP32)
    expected = torch.cat([response_logps(model, [(row.prompt, row.rejected or ())]) for row in ROWS]).detach()
    for limit in (4, 1000):
        columns = table_logps(model, ROWS, max_tokens=limit)
        torch.testing.assert_close(columns["rejected"], expected, rtol=1e-5, atol=1e-5)


def test_a_large_table_is_measured_in_parts(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids of a part are held at a time, and progress counts the distinct answers of the parts so far."""
    model = load_policy(find_base(str(base_folder)), FP32)
    rows = [*ROWS, TokenRow(3, (5, 7), (3, 4), None), TokenRow(4, (5, 7), None, (9, 9))]
    whole, told, held = table_logps(model, rows, max_tokens=1000), [], []

    def counted(model: Any, sequences: Sequences, *, max_tokens: int) -> list[list[int]]:
        held.append(sum(len(prompt) + len(answer) for prompt, answer in sequences))
        return passes_over(model, sequences, max_tokens=max_tokens)

    monkeypatch.setattr(preference, "passes_over", counted)
    monkeypatch.setattr(preference, "TOKENS_AT_ONCE", 12)
    parts = table_logps(model, rows, max_tokens=1000, update=lambda done, total, text="": told.append((done, total)))
    for name, values in whole.items():
        torch.testing.assert_close(parts[name], values, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert len(held) > 1
    assert max(held) <= 12 + 7  # a row may begin a part's end
    assert told[-1] == (8, 8)
    assert all(done <= total for done, total in told)


def test_scores_do_not_depend_on_the_batch(base_folder: Path) -> None:
    model = load_scorer(find_base(str(base_folder)), FP32)
    expected = torch.cat([scores(model, [(row.prompt, row.chosen or ())]) for row in ROWS]).detach()
    for limit in (4, 1000):
        columns = table_scores(model, ROWS, max_tokens=limit)
        torch.testing.assert_close(columns["chosen"], expected, rtol=1e-5, atol=1e-5)


def test_an_attack_goes_against_the_label_whatever_the_batch(base_folder: Path) -> None:
    model = load_scorer(find_base(str(base_folder)), FP32)
    clean = table_scores(model, ROWS, max_tokens=1000)
    small, large = (table_attacked_scores(model, ROWS, epsilon, max_tokens=1000) for epsilon in (1e-3, 1e-2))
    assert (large["chosen"] < small["chosen"]).all()
    assert (small["chosen"] < clean["chosen"]).all()
    assert (large["rejected"] > small["rejected"]).all()
    assert (small["rejected"] > clean["rejected"]).all()
    alone = table_attacked_scores(model, ROWS, 1e-2, max_tokens=4)
    for name, values in large.items():
        torch.testing.assert_close(alone[name], values, rtol=1e-5, atol=1e-5)


def test_missing_answers_are_nan(base_folder: Path) -> None:
    model = load_policy(find_base(str(base_folder)), FP32)
    columns = table_logps(model, [TokenRow(0, (5,), (6,), None), TokenRow(1, (5,), None, (6,))], max_tokens=64)
    assert columns["chosen"].isnan().tolist() == [False, True]
    assert columns["rejected"].isnan().tolist() == [True, False]
    assert columns["chosen"][0] == columns["rejected"][1]


def test_answer_that_stands_in_several_pairs_is_measured_once(base_folder: Path) -> None:
    model = load_policy(find_base(str(base_folder)), FP32)
    rows = [
        *ROWS,
        TokenRow(3, (5, 6), (10,), (7, 8)),
        TokenRow(4, (5, 6), (7, 8, 9), (10,)),
        TokenRow(5, (9,), (10,), (12,)),
    ]
    measured: list[int] = []
    columns = table_logps(model, rows, max_tokens=1000, update=lambda done, total, note="": measured.append(total))
    assert measured[-1] == 9  # of 12 answers; the same answer to another prompt is another answer
    for side in ("chosen", "rejected"):
        expected = torch.cat([response_logps(model, [(row.prompt, getattr(row, side))]) for row in rows]).detach()
        torch.testing.assert_close(columns[side], expected, rtol=1e-5, atol=1e-5)


def test_mismatched_takes_the_next_rows_answers(base_folder: Path) -> None:
    model = load_policy(find_base(str(base_folder)), FP32)
    found = mismatched_logps(model, ROWS, max_tokens=1000)
    expected = response_logps(model, [((5, 6), (12,)), ((11,), (3, 4)), ((5, 7), (7, 8, 9))]).detach()
    torch.testing.assert_close(found["mismatched_chosen"], expected, rtol=1e-5, atol=1e-5)


def test_rewards_are_the_methods_own() -> None:
    registry = load_registry()
    policy = {"chosen": torch.tensor([-3.0, -2.0, -4.0]), "rejected": torch.tensor([-1.0, -8.0, -2.0])}
    reference = {"chosen": torch.tensor([-4.0, -2.5, -4.0]), "rejected": torch.tensor([-2.0, -7.0, -3.0])}
    expected = {
        "dpo": ([0.1, 0.05, 0.0], [0.1, -0.1, 0.1]),
        "kto": ([0.1, 0.05, 0.0], [0.1, -0.1, 0.1]),
        "simpo": ([-2.5, -5.0, -5.0], [-2.5, -5.0, -2.5]),
        "orpo": ([-0.1, -0.2, -0.2], [-0.1, -0.2, -0.1]),
        "odpo": ([0.1, 0.05, 0.0], [0.1, -0.1, 0.1]),  # of rows without a margin
    }
    for name, (chosen, rejected) in expected.items():
        method = registry[name].algorithm
        found = rewards_of(method, method.resolve({}), ROWS, policy, reference)
        torch.testing.assert_close(found["chosen"], torch.tensor(chosen))
        torch.testing.assert_close(found["rejected"], torch.tensor(rejected))


def test_a_recipe_is_measured_by_the_mean_log_probability() -> None:
    @recipe(data="unpaired", paper="none", learning_rate=1e-3)
    def taken(job: Job) -> None:
        """Takes the whole training."""

    policy = {"chosen": torch.tensor([-3.0, -1.0, -4.0]), "rejected": torch.tensor([-2.0, -8.0, -1.0])}
    rewards = rewards_of(taken, {}, ROWS, policy, {})
    assert rewards["chosen"].tolist() == [-1.0, -1.0, -2.0]
    assert rewards["rejected"].tolist() == [-2.0, -2.0, -0.5]
