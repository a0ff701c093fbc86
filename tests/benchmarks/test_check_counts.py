"""The counts of the tiny workload are those in `benchmarks/counts.json`, and a count that grows is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import check_counts
import pytest
import torch
from check_counts import Counter, Known, Tally, Workload, compare
from torch import Tensor

VERSIONS = "torch 2.13, transformers 5.24"
KNOWN = Known({VERSIONS: {"dpo: operators per step": 1204}}, {"dpo: forward passes per step": 1})


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    return Workload.embedded().counts()


def test_no_count_has_grown(found: dict[str, int]) -> None:
    verdict = compare(found, Known.in_file(check_counts.FILE), check_counts.held_with())
    assert not verdict.grown, "\n".join(verdict.lines)


def test_every_part_is_counted(found: dict[str, int]) -> None:
    assert {name.split(":")[0] for name in found} == {*check_counts.METHODS, "scoring", "generation", "token table"}
    assert all(count > 0 for name, count in found.items() if "padding" not in name)
    assert found["dpo: tokens through the model per step"] < found["token table: tokens of 8 pairs"] / 2  # shared


def test_the_same_work_has_the_same_counts(found: dict[str, int]) -> None:
    """In one process after other work, as in one of its own: else a count would depend on the order of tests."""
    workload = Workload.embedded()
    again = workload._step("simpo", {})
    assert again == {name: found[name] for name in again}


def test_a_count_that_grew_is_a_failure_with_what_to_do() -> None:
    verdict = compare({"dpo: operators per step": 1310, "dpo: forward passes per step": 1}, KNOWN, VERSIONS)
    assert verdict.grown == ("dpo: operators per step 1,204 → 1,310",)
    assert "python benchmarks/check_counts.py --update and say why in the commit" in "\n".join(verdict.lines)


def test_a_count_that_shrank_passes_and_asks_for_an_update() -> None:
    verdict = compare({"dpo: operators per step": 1000, "dpo: forward passes per step": 1}, KNOWN, VERSIONS)
    assert (verdict.grown, verdict.shrunk) == ((), ("dpo: operators per step 1,204 → 1,000",))
    assert "Less is needed" in "\n".join(verdict.lines)


def test_other_versions_hold_all_but_the_operators() -> None:
    verdict = compare({"dpo: operators per step": 9999, "dpo: forward passes per step": 2}, KNOWN, "torch 9.9")
    assert verdict.grown == ("dpo: forward passes per step 1 → 2",)
    (skipped,) = verdict.skipped
    assert "torch 9.9" in skipped
    assert VERSIONS in skipped


def test_a_count_that_only_one_side_has_is_a_failure() -> None:
    assert len(compare({"orpo: forward passes per step": 1}, KNOWN, VERSIONS).grown) == 3


def test_an_update_keeps_what_other_versions_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "counts.json"
    now = {"dpo: operators per step": 1310, "dpo: forward passes per step": 1}
    KNOWN.write(path)
    monkeypatch.setattr(check_counts, "FILE", path)
    monkeypatch.setattr(Workload, "embedded", classmethod(lambda cls: _Counted(now)))
    monkeypatch.setattr(check_counts, "held_with", lambda: VERSIONS)
    assert check_counts.main([]) == 1
    monkeypatch.setattr(check_counts, "held_with", lambda: "torch 9.9")
    assert check_counts.main(["--update"]) == check_counts.main([]) == 0
    capsys.readouterr()
    assert Known.in_file(path).operators == {
        VERSIONS: {"dpo: operators per step": 1204},
        "torch 9.9": {"dpo: operators per step": 1310},
    }


class _Counted:
    def __init__(self, now: dict[str, int]) -> None:
        self.now = now

    def counts(self) -> dict[str, int]:
        return self.now


class _Decoder(torch.nn.Module):
    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return ids + 1


class _Model(torch.nn.Module):
    base_model_prefix = "decoder"

    def __init__(self) -> None:
        super().__init__()
        self.decoder = _Decoder()

    def forward(self, **inputs: Any) -> Any:
        return self.decoder(inputs.pop("input_ids"), **inputs)


def test_the_counter_counts_operators_passes_tokens_and_padding() -> None:
    model, ids = _Model(), torch.ones(2, 3, dtype=torch.long)
    with Counter(model) as counter:
        model(input_ids=ids)
        first = counter.tally
        model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]))
    assert first == Tally(operators=1, passes=1, tokens=6, padding=0)
    assert (counter.tally.passes, counter.tally.tokens, counter.tally.padding) == (2, 12, 3)
    model(input_ids=ids)
    assert counter.tally.passes == 2  # it is closed
