"""The losses that read the whole batch, first tokens or confidence, against their equations in pure Python."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import (
    BatchPairLogps,
    BatchUnpairedLogps,
    ConfidencePairLogps,
    MatchedUnpairedLogps,
    OfflineAlgorithm,
    PairLogps,
    PrefixPairLogps,
    ReferencedPairLogps,
)
from align_bench.plugins.registry import load_registry

METHODS = load_registry()
ROWS = 11


def method(name: str) -> OfflineAlgorithm:
    found = METHODS[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def floats(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def draw() -> random.Random:
    return random.Random(7)


def pairs(draw: random.Random, rows: int = ROWS) -> ReferencedPairLogps:
    """Random pairs with gradient, whose log-ratios are well away from 0."""
    won, lost = (floats([-draw.uniform(1, 90) for _ in range(rows)]).requires_grad_() for _ in range(2))
    ratios = [floats([draw.gauss(0, 5) for _ in range(rows)]) for _ in range(2)]
    counts = [torch.tensor([draw.randint(1, 40) for _ in range(rows)]) for _ in range(2)]
    known = won.detach() - ratios[0], lost.detach() - ratios[1]
    return ReferencedPairLogps(won, lost, counts[0], counts[1], *known)


def in_batch(rows: ReferencedPairLogps, running: Mapping[str, float] | None = None, places: Any = None) -> Any:
    """Some of the rows, or all, as a micro-batch of the effective batch that all of them are."""
    names = ("chosen", "rejected", "chosen_tokens", "rejected_tokens", "ref_chosen", "ref_rejected")
    values = {name: getattr(rows, name) for name in names}
    whole = ReferencedPairLogps(**{name: value.detach() for name, value in values.items()})
    at = torch.arange(len(rows)) if places is None else torch.tensor(places)
    return BatchPairLogps(
        **{name: value[at] for name, value in values.items()}, batch=whole, place=at, running=running or {}
    )


def ratios(rows: ReferencedPairLogps) -> tuple[list[float], list[float]]:
    chosen, rejected = rows.chosen - rows.ref_chosen, rows.rejected - rows.ref_rejected
    return chosen.tolist(), rejected.tolist()


@pytest.mark.parametrize("flip", [0.0, 0.2])
def test_aot_compares_margins_of_equal_rank(draw: random.Random, flip: float) -> None:
    rows = pairs(draw)
    mine = [won - lost for won, lost in zip(rows.chosen.tolist(), rows.rejected.tolist(), strict=True)]
    theirs = [won - lost for won, lost in zip(rows.ref_chosen.tolist(), rows.ref_rejected.tolist(), strict=True)]
    expected = [0.0] * ROWS
    for rank, row in enumerate(sorted(range(ROWS), key=lambda place: mine[place])):
        distance = 0.3 * (mine[row] - sorted(theirs)[rank])
        expected[row] = (1 - flip) * softplus(-distance) + flip * softplus(distance)
    found = method("aot")(in_batch(rows), beta=0.3, flip_rate=flip)
    assert found.values.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("flip", [0.0, 0.2])
def test_unpaired_aot_has_the_value_and_the_gradient_of_the_sorted_batch(draw: random.Random, flip: float) -> None:
    rows = pairs(draw)
    chosen, rejected = rows.chosen - rows.ref_chosen, rows.rejected - rows.ref_rejected
    distance = 0.3 * (chosen.sort().values - rejected.sort().values)
    whole = (-(1 - flip) * logsigmoid(distance) - flip * logsigmoid(-distance)).sum()
    wanted = torch.autograd.grad(whole, [rows.chosen, rows.rejected])
    parts = [in_batch(rows, places=places) for places in ([3, 0, 7], [1, 2, 4, 5], [10, 9, 8, 6])]
    found = torch.stack([method("aot_unpaired")(part, beta=0.3, flip_rate=flip).values.sum() for part in parts]).sum()
    assert found.item() == pytest.approx(whole.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(found, [rows.chosen, rows.rejected]), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_bco_is_shifted_by_the_mean_reward_of_all_answers_so_far(draw: random.Random) -> None:
    remembered: dict[str, float] = {}
    seen: list[float] = []
    for rows in (6, 3, 8):
        ratio = [draw.gauss(1, 5) for _ in range(rows)]
        desirable = [draw.random() < 0.4 for _ in range(rows)]
        logps = floats([-draw.uniform(20, 60) for _ in range(rows)])
        given = (logps, torch.full((rows,), 9), torch.tensor(desirable), logps - floats(ratio))
        batch = MatchedUnpairedLogps(*given)
        seen += [0.3 * value for value in ratio]
        shift = math.fsum(seen) / len(seen)
        remembered = method("bco").remembered(remembered, batch, {"beta": 0.3})
        assert remembered == pytest.approx({"mean": shift, "answers": len(seen)}, rel=1e-12)
        record = BatchUnpairedLogps(*given, batch=batch, place=torch.arange(rows), running=remembered)
        found = method("bco")(record, beta=0.3)
        expected = [
            softplus(shift - 0.3 * value) if wanted else softplus(0.3 * value - shift)
            for value, wanted in zip(ratio, desirable, strict=True)
        ]
        assert found.values.tolist() == pytest.approx(expected, rel=1e-12)
        assert found.rewards_in("rewards").tolist() == pytest.approx([0.3 * value for value in ratio], rel=1e-12)


@pytest.mark.parametrize("filtered", [0.0, 0.2, 0.5, 0.7])
def test_beta_follows_the_mean_of_the_margins_that_are_kept(draw: random.Random, filtered: float) -> None:
    given = {"beta": 0.05, "alpha": 0.6, "momentum": 0.9, "filtered": filtered}
    remembered: dict[str, float] = {}
    usual = 0.0
    for _ in range(3):
        rows = pairs(draw)
        margins = [won - lost for won, lost in zip(*ratios(rows), strict=True)]
        usual = 0.9 * usual + 0.1 * math.fsum(margins) / ROWS
        remembered = method("beta_dpo").remembered(remembered, in_batch(rows).batch, given)
        assert remembered == pytest.approx({"mean": usual}, rel=1e-12)
        count = math.ceil(ROWS * (1 - Fraction(str(filtered))))  # exactly
        kept = sorted(range(ROWS), key=lambda place: abs(margins[place] - usual))[:count]
        beta = max(1e-3, 0.05 * (1 + 0.6 * (math.fsum(margins[place] for place in kept) / count - usual)))
        expected = [
            softplus(-beta * margin) * ROWS / count if place in kept else 0.0 for place, margin in enumerate(margins)
        ]
        found = method("beta_dpo")(in_batch(rows, remembered), **given)
        assert found.values.tolist() == pytest.approx(expected, rel=1e-9)
        assert found.metrics["beta"].tolist() == pytest.approx([beta] * ROWS, rel=1e-9)
        assert found.rewards_in("chosen_rewards").tolist() == pytest.approx([0.05 * one for one in ratios(rows)[0]])


@pytest.mark.parametrize(("rows", "filtered", "kept"), [(10, 0.7, 3), (20, 0.7, 6), (10, 0.2, 8), (11, 0.2, 9)])
def test_as_many_pairs_are_kept_as_the_share_says(draw: random.Random, rows: int, filtered: float, kept: int) -> None:
    """Floats make a little more than 3 of 10 × (1 − 0.7)."""
    found = method("beta_dpo")(in_batch(pairs(draw, rows), {"mean": 0.0}), filtered=filtered)
    assert int((found.values > 0).sum()) == kept


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ld_dpo_weighs_the_tokens_beyond_the_shorter_answer(draw: random.Random, alpha: float) -> None:
    rows = pairs(draw)
    first = [floats([-draw.uniform(1, 20) for _ in range(ROWS)]) for _ in range(4)]
    given = (rows.chosen, rows.rejected, rows.chosen_tokens, rows.rejected_tokens, rows.ref_chosen, rows.ref_rejected)
    found = method("ld_dpo")(PrefixPairLogps(*given, *first), beta=0.2, alpha=alpha)

    def weighted(whole: Tensor, prefix: Tensor, place: int) -> float:
        return prefix[place].item() + alpha * (whole[place].item() - prefix[place].item())

    expected = []
    for place in range(ROWS):
        won = weighted(rows.chosen, first[0], place) - weighted(rows.ref_chosen, first[2], place)
        lost = weighted(rows.rejected, first[1], place) - weighted(rows.ref_rejected, first[3], place)
        expected.append(softplus(-0.2 * (won - lost)))
    assert found.values.tolist() == pytest.approx(expected, rel=1e-9)
    if alpha == 1:
        dpo = method("dpo")(rows, beta=0.2, divergence="reverse_kl", alpha=0.5)
        torch.testing.assert_close(found.values, dpo.values)


def test_wpo_is_dpo_times_both_weights(draw: random.Random) -> None:
    rows = pairs(draw)
    confidence = [floats([draw.uniform(-3, 0.4) for _ in range(ROWS)]) for _ in range(2)]
    given = (rows.chosen, rows.rejected, rows.chosen_tokens, rows.rejected_tokens, rows.ref_chosen, rows.ref_rejected)
    found = method("wpo")(ConfidencePairLogps(*given, *confidence), beta=0.2)
    expected = [
        math.exp(confidence[0][place].item()) * math.exp(confidence[1][place].item()) * softplus(-0.2 * (won - lost))
        for place, (won, lost) in enumerate(zip(*ratios(rows), strict=True))
    ]
    assert found.values.tolist() == pytest.approx(expected, rel=1e-12)


def test_bco_of_pairs_classifies_each_answer(draw: random.Random) -> None:
    rows = pairs(draw)
    expected = [softplus(-0.3 * won) + softplus(0.3 * lost) for won, lost in zip(*ratios(rows), strict=True)]
    assert method("bco_pair")(rows, beta=0.3).values.tolist() == pytest.approx(expected, rel=1e-12)


def test_ipo_without_a_reference(draw: random.Random) -> None:
    rows = pairs(draw)
    free = PairLogps(rows.chosen, rows.rejected, rows.chosen_tokens, rows.rejected_tokens)
    expected = []
    for won, lost, *counts in zip(
        *(each.tolist() for each in (rows.chosen, rows.rejected, rows.chosen_tokens, rows.rejected_tokens)), strict=True
    ):
        mean_won, mean_lost = won / counts[0], lost / counts[1]
        expected.append((mean_won - mean_lost - 1 / (2 * 0.4)) ** 2 - 0.7 * mean_won)
    found = method("cpo_ipo")(free, tau=0.4, nll_weight=0.7)
    assert found.values.tolist() == pytest.approx(expected, rel=1e-12)
