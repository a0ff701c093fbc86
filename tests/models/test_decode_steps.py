"""Answers that CUDA graphs write, without a GPU: a stand-in does each step again, from and into the same memory."""

from __future__ import annotations

import warnings
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor

from align_bench.models import decode_steps, layout
from align_bench.models import generate as generation
from align_bench.models.base import find_base
from align_bench.models.cuda_graphs import Recorded
from align_bench.models.generate import Answer, generate
from align_bench.models.load import add_adapter, load_policy, load_tokenizer
from align_bench.models.precision import Precision
from align_bench.suite.models import Generate, Lora
from tests.recorded import StandIn

FP32 = Precision("fp32", "float32", "cpu")
PROMPTS = [[1, 5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16], [17], [3, 4, 5], [6, 7]]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """As on a GPU; the stand-in takes the place of a capture."""
    found = StandIn()
    monkeypatch.setattr(layout, "can_pack", lambda *_: False)
    monkeypatch.setattr(generation, "can_pack", lambda *_: False)
    monkeypatch.setattr(generation, "queues", lambda _: True)
    monkeypatch.setattr(decode_steps, "record", found.record)
    monkeypatch.setattr(decode_steps, "can_capture", lambda _: True)
    monkeypatch.setattr(decode_steps, "_CANNOT", WeakKeyDictionary())
    return found


@pytest.fixture(scope="module")
def loaded(base_folder: Path) -> tuple[Any, Any]:
    base = find_base(str(base_folder))
    model = add_adapter(load_policy(base, FP32), Lora(), seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model, load_tokenizer(base)


def both(loaded: tuple[Any, Any], settings: Generate) -> tuple[list[list[Answer]], list[list[Answer]]]:
    """The answers of plain steps, and of graphs."""
    graphed = settings.model_copy(update={"cuda_graphs": True})
    plain, found = (generate(*loaded, PROMPTS, one, seed=3, logps=True) for one in (settings, graphed))
    return plain, found


def assert_same(plain: list[list[Answer]], found: list[list[Answer]]) -> None:
    for one, other in zip(chain.from_iterable(plain), chain.from_iterable(found), strict=True):
        assert (one.ids, one.finished) == (other.ids, other.finished)
        assert other.logps == pytest.approx(one.logps, abs=1e-4)


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize(("temperature", "samples"), [(0.0, 1), (1.0, 3)])
def test_answers_are_those_of_plain_steps(
    loaded: tuple[Any, Any], stand_in: StandIn, temperature: float, samples: int, batch_size: int
) -> None:
    settings = Generate(max_new_tokens=12, temperature=temperature, samples=samples, batch_size=batch_size)
    plain, found = both(loaded, settings)
    assert_same(plain, found)
    batches = -(-len(PROMPTS) // batch_size)
    assert stand_in.replays == batches * (1 + 10)  # of eleven steps all but the first; one is held to the plain step


def test_answers_that_have_ended_stay_until_half_of_them_are_gone(
    loaded: tuple[Any, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Generate(max_new_tokens=14, temperature=1.0, samples=2)
    free = generate(*loaded, PROMPTS, settings, seed=3)
    ends = frozenset(answer.ids[2 + place % 3] for place, answer in enumerate(chain.from_iterable(free[:4])))
    monkeypatch.setattr(generation, "generation_ends", lambda *_: ends)
    sizes: list[int] = []
    begin = decode_steps.GraphedSteps._begin

    def noted(steps: Any, cache: Any, mask: Tensor) -> None:
        sizes.append(len(mask))
        begin(steps, cache, mask)
        assert steps._seen.shape[-1] % 8 == 0  # as a GPU's attention asks for

    monkeypatch.setattr(decode_steps.GraphedSteps, "_begin", noted)
    plain, found = both(loaded, settings)
    assert_same(plain, found)
    assert len({len(answer.ids) for several in plain for answer in several}) > 2
    assert sizes[0] == 12
    assert any(len(answer.ids) > 8 for several in plain for answer in several)
    assert len(sizes) > 1
    assert all(2 * after <= before for before, after in pairwise(sizes))
    assert stand_in.replays > 0


@pytest.mark.parametrize("what", ["capture", "numbers"])
def test_what_cannot_be_captured_is_written_plainly_and_that_is_said(
    loaded: tuple[Any, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refused(*_: Any) -> Recorded:
        raise RuntimeError

    if what == "capture":
        monkeypatch.setattr(decode_steps, "record", refused)
    stand_in.spoil = lambda number, result: result.mul_(1.01)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plain, found = both(loaded, Generate(max_new_tokens=8, batch_size=3))
    assert_same(plain, found)
    (line,) = [str(one.message) for one in said]  # once, and not for every batch
    assert line.startswith("answers are written without CUDA graphs from here on: ")
    assert ("(RuntimeError)" if what == "capture" else "differ from the plain ones by 0.01") in line


def test_on_a_cpu_the_setting_has_no_effect(
    loaded: tuple[Any, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    plain, found = both(loaded, Generate(max_new_tokens=8))
    assert plain == found
    assert stand_in.replays == 0
