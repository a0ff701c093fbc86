"""The debiased reward models' losses against scalar arithmetic in pure Python, and their gradients."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import (
    Adversary,
    AdversaryScores,
    BiasExpert,
    BiasExpertScores,
    LengthHead,
    LengthHeadScores,
    Loss,
    OfflineAlgorithm,
    PairLogps,
    algorithm,
)
from align_bench.errors import PluginError
from align_bench.plugins.registry import load_registry

ROWS = 9
SCORES = {
    "poe_rm": ("chosen", "rejected", "bias_chosen", "bias_rejected"),
    "robust_rm": ("chosen", "rejected", "adversarial_chosen", "adversarial_rejected"),
    "odin_rm": ("chosen", "rejected", "length_chosen", "length_rejected", "head_cosine"),
}
SETTINGS: list[tuple[str, dict[str, float]]] = [
    ("poe_rm", {"bias_weight": 0.0, "centering": 0.0}),
    ("poe_rm", {"bias_weight": 0.7, "centering": 0.3}),
    ("robust_rm", {"adversarial_weight": 1.0, "centering": 0.0}),
    ("robust_rm", {"adversarial_weight": 0.25, "centering": 0.3}),
    ("odin_rm", {"length_weight": 1.0, "orthogonality": 1.0, "centering": 0.0}),
    ("odin_rm", {"length_weight": 0.5, "orthogonality": 0.2, "centering": 0.3}),
]
each_setting = pytest.mark.parametrize(("name", "parameters"), SETTINGS)


@pytest.fixture(scope="module")
def methods() -> dict[str, OfflineAlgorithm]:
    found = {name: load_registry()[name].algorithm for name in SCORES}
    return {name: method for name, method in found.items() if isinstance(method, OfflineAlgorithm)}


def record(name: str, seed: int = 0, slope: float = 0.05) -> Any:
    """Random float64 rows; scores rise with length by `slope` a token."""
    draw = random.Random(f"{name}/{seed}")
    tokens = [[draw.choice((1, 4, 30, 90)) for _ in range(ROWS)] for _ in "wl"]
    values = [tensor([draw.gauss(0, 2) + slope * count for count in side]) for side in (*tokens, *tokens)]
    chosen, rejected, won, lost = values
    given = (chosen, rejected, torch.tensor(tokens[0]), torch.tensor(tokens[1]), won, lost)
    if name == "odin_rm":
        unknown = torch.empty(0)
        return with_batch(LengthHeadScores(*given, tensor(-0.3), unknown, unknown, unknown))
    return BiasExpertScores(*given) if name == "poe_rm" else AdversaryScores(*given)


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def with_batch(pairs: LengthHeadScores) -> LengthHeadScores:
    """The pairs as a whole effective batch of their own."""
    return replace(
        pairs,
        batch_scores=torch.cat((pairs.chosen, pairs.rejected)).detach(),
        batch_length_scores=torch.cat((pairs.length_chosen, pairs.length_rejected)).detach(),
        batch_tokens=torch.cat((pairs.chosen_tokens, pairs.rejected_tokens)),
    )


def softplus(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x >= 0 else math.log1p(math.exp(x))


def naive(name: str, pairs: Any, *, centering: float, **own: float) -> float:
    """The mean loss of a whole batch, one number at a time."""
    columns = {field: getattr(pairs, field).tolist() for field in SCORES[name]}
    losses = []
    for row in range(ROWS):
        chosen, rejected = columns["chosen"][row], columns["rejected"][row]
        if name == "poe_rm":
            bias = columns["bias_chosen"][row] - columns["bias_rejected"][row]
            value = softplus(rejected - chosen - bias) + own["bias_weight"] * softplus(-bias)
        elif name == "robust_rm":
            attacked = softplus(columns["adversarial_rejected"][row] - columns["adversarial_chosen"][row])
            weight = own["adversarial_weight"]
            value = (1 - weight) * softplus(rejected - chosen) + weight * attacked
        else:
            value = softplus(rejected + columns["length_rejected"][row] - chosen - columns["length_chosen"][row])
        losses.append(value + centering * (chosen + rejected) ** 2)
    total = statistics.fmean(losses)
    if name == "odin_rm":
        lengths = [float(count) for count in [*pairs.chosen_tokens.tolist(), *pairs.rejected_tokens.tolist()]]
        quality = statistics.correlation(columns["chosen"] + columns["rejected"], lengths)
        length = statistics.correlation(columns["length_chosen"] + columns["length_rejected"], lengths)
        total += own["length_weight"] * (abs(quality) - length) + own["orthogonality"] * abs(columns["head_cosine"])
    return total


@each_setting
@pytest.mark.parametrize("slope", [0.05, -0.05])
def test_the_mean_equals_scalar_arithmetic(
    methods: dict[str, OfflineAlgorithm], name: str, parameters: dict[str, float], slope: float
) -> None:
    for seed in range(3):
        pairs = record(name, seed, slope)
        loss: Any = methods[name](pairs, **parameters)
        assert float(loss.values.mean()) == pytest.approx(naive(name, pairs, **parameters), rel=1e-10)
        assert torch.equal(loss.chosen_rewards, pairs.chosen)  # the main expert alone is the reward
        assert torch.equal(loss.rejected_rewards, pairs.rejected)


@each_setting
def test_gradients_equal_finite_differences(
    methods: dict[str, OfflineAlgorithm], name: str, parameters: dict[str, float]
) -> None:
    """Of the mean over a whole batch whose statistics move with it, though the loss holds them constant."""
    pairs = record(name)
    fields = SCORES[name]
    inputs = [getattr(pairs, field).clone().requires_grad_() for field in fields]

    def mean(*values: Tensor) -> Tensor:
        moved = replace(pairs, **dict(zip(fields, values, strict=True)))
        return methods[name](with_batch(moved) if name == "odin_rm" else moved, **parameters).values.mean()

    assert torch.autograd.gradcheck(mean, inputs)


@pytest.mark.parametrize("name", SCORES)
def test_rows_do_not_depend_on_the_micro_batch(methods: dict[str, OfflineAlgorithm], name: str) -> None:
    pairs = record(name)
    whole = methods[name](pairs).values
    rows = [5, 0, 7]
    own = [field for field in SCORES[name] if field != "head_cosine"] + ["chosen_tokens", "rejected_tokens"]
    part = replace(pairs, **{field: getattr(pairs, field)[rows] for field in own})
    torch.testing.assert_close(methods[name](part).values, whole[rows], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", SCORES)
def test_extreme_margins_and_equal_scores_stay_finite(methods: dict[str, OfflineAlgorithm], name: str) -> None:
    pairs = record(name)
    for scale in (1e4, 0.0):
        moved = replace(pairs, **{field: (scale * getattr(pairs, field)).requires_grad_() for field in SCORES[name]})
        loss = methods[name](with_batch(moved) if name == "odin_rm" else moved)
        torch.autograd.backward(loss.values.sum())
        assert loss.values.isfinite().all()
        assert all(getattr(moved, field).grad.isfinite().all() for field in SCORES[name])


def test_an_expert_that_knows_the_label_leaves_nothing_to_learn(methods: dict[str, OfflineAlgorithm]) -> None:
    """Where the bias explains the labels, the main expert's gradient vanishes: that is how PoE debiases."""
    zero = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    counts = torch.ones(4, dtype=torch.long)
    for bias, pull in ((0.0, 0.5), (30.0, 0.0)):
        known = torch.full((4,), bias, dtype=torch.float64)
        pairs = BiasExpertScores(zero, zero.detach(), counts, counts, known, torch.zeros_like(known))
        (gradient,) = torch.autograd.grad(methods["poe_rm"](pairs).values.sum(), zero)
        assert gradient.tolist() == pytest.approx([-pull] * 4, abs=1e-12)


def test_what_each_method_asks_for_follows_its_parameters(methods: dict[str, OfflineAlgorithm]) -> None:
    def asked(name: str, **given: Any) -> Any:
        return methods[name].beside(methods[name].resolve(given))

    assert asked("poe_rm", noise=0.0, bias_rate=3.0) == BiasExpert(noise=0.0, learning_rate_factor=3.0)
    assert asked("poe_rm", length_expert=True).length_only
    assert asked("robust_rm", epsilon=0.3) == Adversary(0.3)
    assert asked("odin_rm") == LengthHead()


def test_only_scores_take_an_auxiliary() -> None:
    with pytest.raises(PluginError, match="stands beside scores"):

        @algorithm(paper="none", learning_rate=1e-3, reward="s", auxiliary=LengthHead)
        def wrong(logps: PairLogps) -> Loss:
            """A policy with a length head."""
            return Loss(-logps.chosen)
