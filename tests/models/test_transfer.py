"""Numbers between host and device: what is read late is the same, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.evaluate import drift, preference
from align_bench.evaluate.drift import answer_drift, answer_logps
from align_bench.evaluate.preference import table_logps
from align_bench.judge import reward_model
from align_bench.judge.reward_model import score_answers
from align_bench.models import transfer
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer
from align_bench.models.precision import Precision
from align_bench.models.transfer import read_late
from align_bench.records import TokenRow
from align_bench.suite.models import Lora

FP32 = Precision("fp32", "float32", "cpu")
ANSWERS = [((5, 6, 7), (8, 9)), ((5, 6, 7), (10,)), ((11, 12), (13, 14, 15)), ((20,), (21, 22)), ((23, 24), (25,))]


@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_found_is_read_before_or_after_the_next_is_queued(monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    monkeypatch.setattr(transfer, "queues", lambda _: ahead)
    events: list[str] = []

    def found() -> Iterator[tuple[str, Tensor]]:
        for number in range(3):
            events.append(f"queue {number}")
            yield f"number {number}", torch.tensor([float(number)])

    read = []
    for what, values in read_late(found()):
        events.append(f"read {what[-1]}")
        read.append((what, values.tolist()))
    assert read == [("number 0", [0.0]), ("number 1", [1.0]), ("number 2", [2.0])]
    late = ["queue 0", "queue 1", "read 0", "queue 2", "read 1", "read 2"]
    at_once = ["queue 0", "read 0", "queue 1", "read 1", "queue 2", "read 2"]
    assert events == (late if ahead else at_once)


def test_nothing_found_is_nothing_read() -> None:
    assert list(read_late(iter(()))) == []


def test_measures_read_late_are_the_same(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = find_base(str(base_folder))
    policy = add_adapter(load_policy(base, FP32), Lora(), seed=0).eval()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.05, generator=torch.Generator().manual_seed(1))
    judge = load_scorer(base, FP32).eval()
    rows = [TokenRow(number, prompt, answer, answer[::-1]) for number, (prompt, answer) in enumerate(ANSWERS)]

    def measured() -> list[Any]:
        return [
            answer_drift(policy, ANSWERS, max_tokens=8),
            [logps.tolist() for logps in answer_logps(policy, ANSWERS, max_tokens=8)],
            score_answers(judge, ANSWERS, max_tokens=8),
            {side: values.tolist() for side, values in table_logps(policy, rows, max_tokens=8).items()},
        ]

    expected = measured()
    uses = dict.fromkeys((drift, preference, reward_model), 0)
    for module in uses:

        def late(found: Any, module: Any = module) -> Iterator[Any]:
            uses[module] += 1
            return read_late(found)

        monkeypatch.setattr(module, "read_late", late)
    monkeypatch.setattr(transfer, "queues", lambda _: True)
    assert measured() == expected
    assert list(uses.values()) == [2, 1, 1]
