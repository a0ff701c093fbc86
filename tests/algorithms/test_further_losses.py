"""The losses beside the best-known ones, each against its equation in pure Python, one number at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import Loss, OfflineAlgorithm, PairLogps, ReferencedPairLogps, ReferencedUnpairedLogps
from align_bench.plugins.registry import load_registry
from align_bench.records import Scalar

ROWS = 11
METHODS = load_registry()


@dataclass(frozen=True)
class Row:
    """One pair as plain numbers: sums under the policy, their ρ, and counts of tokens."""

    won: float
    lost: float
    won_ratio: float
    lost_ratio: float
    won_tokens: int
    lost_tokens: int

    @property
    def won_mean(self) -> float:
        return self.won / self.won_tokens

    @property
    def lost_mean(self) -> float:
        return self.lost / self.lost_tokens


Naive = Callable[..., tuple[float, float, float]]  # a row and hyper-parameters → its loss and both rewards


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    """−log σ(−x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def dpo(row: Row, beta: float, divergence: str, alpha: float) -> tuple[float, float, float]:
    # f′(u) of f(u) = u log u, of Jensen–Shannon's, and of the α-divergence, less what they are at u = 1.
    derivative: Callable[[float], float] = {
        "reverse_kl": lambda u: math.log(u),
        "js_divergence": lambda u: math.log(2 * u / (1 + u)),
        "alpha_divergence": lambda u: (1 - u**-alpha) / alpha,
    }[divergence]
    won, lost = (beta * derivative(math.exp(ratio)) for ratio in (row.won_ratio, row.lost_ratio))
    return softplus(lost - won), won, lost


def dpo_norm(row: Row, beta: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_ratio / row.won_tokens, beta * row.lost_ratio / row.lost_tokens
    return softplus(lost - won), won, lost


def apo_zero(row: Row, beta: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_ratio, beta * row.lost_ratio
    return 1 - sigmoid(won) + sigmoid(lost), won, lost


def apo_down(row: Row, beta: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_ratio, beta * row.lost_ratio
    return sigmoid(won) + 1 - sigmoid(won - lost), won, lost


def dpop(row: Row, beta: float, penalty: float) -> tuple[float, float, float]:
    sunk = penalty * max(0.0, -row.won_ratio)
    margin = beta * (row.won_ratio - row.lost_ratio - sunk)
    return softplus(-margin), beta * (row.won_ratio - sunk), beta * row.lost_ratio


def hinge(row: Row, beta: float) -> tuple[float, float, float]:
    return max(0.0, 1 - beta * (row.won_ratio - row.lost_ratio)), beta * row.won_ratio, beta * row.lost_ratio


def slic(row: Row, beta: float, delta: float, nll_weight: float) -> tuple[float, float, float]:
    rank = max(0.0, delta - beta * row.won + beta * row.lost)
    return rank + nll_weight * -row.won_mean, beta * row.won, beta * row.lost


def exo(row: Row, beta: float, flip_rate: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_ratio, beta * row.lost_ratio
    policy, labels = (sigmoid(won - lost), sigmoid(lost - won)), (1 - flip_rate, flip_rate)
    return math.fsum(p * math.log(p / q) for p, q in zip(policy, labels, strict=True)), won, lost


def nca(row: Row, beta: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_ratio, beta * row.lost_ratio
    return softplus(-won) + 0.5 * softplus(won) + 0.5 * softplus(lost), won, lost


def sppo_hard(row: Row, beta: float) -> tuple[float, float, float]:
    value = (row.won_ratio - (1 - 0.5) / beta) ** 2 + (row.lost_ratio - (0 - 0.5) / beta) ** 2
    return value, row.won_ratio, row.lost_ratio


def discopop(row: Row, beta: float, tau: float) -> tuple[float, float, float]:
    margin = beta * (row.won_ratio - row.lost_ratio)
    blend = sigmoid(margin / tau)
    return (1 - blend) * softplus(-margin) + blend * math.exp(-margin), beta * row.won_ratio, beta * row.lost_ratio


def alphapo(row: Row, beta: float, gamma: float, alpha: float) -> tuple[float, float, float]:
    won, lost = (
        beta * (mean if alpha == 0 else (1 - math.exp(mean) ** -alpha) / alpha)
        for mean in (row.won_mean, row.lost_mean)
    )
    return softplus(lost - won + gamma), won, lost


def simper(row: Row) -> tuple[float, float, float]:
    perplexities = [math.exp(-mean) for mean in (row.won_mean, row.lost_mean)]
    return -1 / perplexities[0] + 1 / perplexities[1], 1 / perplexities[0], 1 / perplexities[1]


def cpo_simpo(row: Row, beta: float, gamma: float, nll_weight: float) -> tuple[float, float, float]:
    won, lost = beta * row.won_mean, beta * row.lost_mean
    return softplus(lost - won + gamma) - nll_weight * row.won_mean, won, lost


def cal_dpo(row: Row, beta: float, calibration_weight: float) -> tuple[float, float, float]:
    squares = (row.won_ratio - 0.5 / beta) ** 2 + (row.lost_ratio + 0.5 / beta) ** 2
    value = softplus(row.lost_ratio - row.won_ratio) + calibration_weight * squares
    return value, row.won_ratio, row.lost_ratio


SETTINGS: list[tuple[Naive, dict[str, Scalar]]] = [
    (dpo, {"beta": 0.3, "divergence": "reverse_kl", "alpha": 0.5}),
    (dpo, {"beta": 0.3, "divergence": "js_divergence", "alpha": 0.5}),
    (dpo, {"beta": 0.1, "divergence": "alpha_divergence", "alpha": 0.3}),
    (dpo, {"beta": 0.1, "divergence": "alpha_divergence", "alpha": 1.0}),
    (dpo_norm, {"beta": 5.0}),
    (dpo_norm, {"beta": 0.4}),
    (apo_zero, {"beta": 0.1}),
    (apo_zero, {"beta": 0.5}),
    (apo_down, {"beta": 0.1}),
    (apo_down, {"beta": 0.5}),
    (dpop, {"beta": 0.3, "penalty": 50.0}),
    (dpop, {"beta": 0.1, "penalty": 2.0}),
    (hinge, {"beta": 0.1}),
    (hinge, {"beta": 0.02}),
    (slic, {"beta": 1.0, "delta": 1.0, "nll_weight": 1.0}),
    (slic, {"beta": 0.02, "delta": 0.5, "nll_weight": 0.3}),
    (exo, {"beta": 0.1, "flip_rate": 1e-3}),
    (exo, {"beta": 0.3, "flip_rate": 0.2}),
    (nca, {"beta": 0.01}),
    (nca, {"beta": 0.4}),
    (sppo_hard, {"beta": 0.001}),
    (sppo_hard, {"beta": 0.2}),
    (discopop, {"beta": 0.05, "tau": 0.05}),
    (discopop, {"beta": 0.2, "tau": 1.0}),
    (alphapo, {"beta": 2.5, "gamma": 0.1, "alpha": 0.25}),
    (alphapo, {"beta": 2.0, "gamma": 0.5, "alpha": -0.5}),
    (alphapo, {"beta": 2.0, "gamma": 0.5, "alpha": 0.0}),
    (simper, {}),
    (cpo_simpo, {"beta": 10.0, "gamma": 5.4, "nll_weight": 0.05}),
    (cpo_simpo, {"beta": 2.0, "gamma": 0.0, "nll_weight": 0.7}),
    (cal_dpo, {"beta": 0.002, "calibration_weight": 0.5}),
    (cal_dpo, {"beta": 0.1, "calibration_weight": 0.0}),
]
each_setting = pytest.mark.parametrize(
    ("naive", "parameters"),
    SETTINGS,
    ids=["-".join([naive.__name__, *map(str, given.values())]) for naive, given in SETTINGS],
)


def offline(name: str) -> OfflineAlgorithm:
    found = METHODS[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


def pairs(rows: list[Row], *, reference: bool) -> Any:
    """The rows as the record that a loss reads, in float64."""
    won, lost = floats([row.won for row in rows]), floats([row.lost for row in rows])
    counts = torch.tensor([row.won_tokens for row in rows]), torch.tensor([row.lost_tokens for row in rows])
    if not reference:
        return PairLogps(won, lost, *counts)
    ratios = floats([row.won_ratio for row in rows]), floats([row.lost_ratio for row in rows])
    return ReferencedPairLogps(won, lost, *counts, won - ratios[0], lost - ratios[1])


def floats(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lopsided(seed: int) -> list[Row]:
    """Answers of 1 to 400 tokens, from near certain to unlikely, with ratios of both signs."""
    draw = random.Random(seed)
    rows = []
    for _ in range(ROWS):
        counts = draw.choice((1, 2, 30, 400)), draw.choice((1, 2, 30, 400))
        sums = [-count * 10 ** draw.uniform(-3, 0.9) for count in counts]
        rows.append(Row(sums[0], sums[1], draw.gauss(0, 9), draw.gauss(0, 9), *counts))
    return rows


@each_setting
@pytest.mark.parametrize("seed", range(3))
def test_values_and_rewards_equal_the_equation(naive: Naive, parameters: dict[str, Scalar], seed: int) -> None:
    method, rows = offline(naive.__name__), lopsided(seed)
    loss = method(pairs(rows, reference=method.reference), **parameters)
    expected = zip(*(naive(row, **parameters) for row in rows), strict=True)
    for found, column in zip((loss.values, loss.chosen_rewards, loss.rejected_rewards), expected, strict=True):
        assert found is not None
        # ρ comes from a difference of sums of up to 3,000 nats.
        assert found.tolist() == pytest.approx(list(column), rel=1e-9, abs=1e-9)


def test_every_loss_of_this_table_has_a_default_that_is_checked() -> None:
    for naive in {naive for naive, _ in SETTINGS}:
        method, rows = offline(naive.__name__), lopsided(5)
        batch, resolved = pairs(rows, reference=method.reference), method.resolve({})
        expected = [naive(row, **resolved)[0] for row in rows]
        assert method(batch).values.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "neutral", "special", "its"),
    [
        ("dpop", {"beta": 0.2, "penalty": 0.0}, "dpo", {"beta": 0.2}),
        ("cal_dpo", {"calibration_weight": 0.0}, "dpo", {"beta": 1.0}),
        ("alphapo", {"beta": 2.0, "gamma": 0.5, "alpha": 0.0}, "simpo", {"beta": 2.0, "gamma": 0.5}),
        ("cpo_simpo", {"beta": 2.0, "gamma": 0.5, "nll_weight": 0.0}, "simpo", {"beta": 2.0, "gamma": 0.5}),
    ],
)
def test_special_cases(name: str, neutral: dict[str, Scalar], special: str, its: dict[str, Scalar]) -> None:
    batch = pairs(lopsided(1), reference=offline(name).reference)
    found, expected = offline(name)(batch, **neutral).values, offline(special)(batch, **its).values
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_default_divergence_of_dpo_changes_no_bit() -> None:
    batch = pairs(lopsided(2), reference=True)
    chosen, rejected = 0.1 * (batch.chosen - batch.ref_chosen), 0.1 * (batch.rejected - batch.ref_rejected)
    loss = offline("dpo")(batch)
    assert torch.equal(loss.values, -torch.nn.functional.logsigmoid(chosen - rejected))
    assert torch.equal(loss.rewards_in("chosen_rewards"), chosen)


def test_alpha_divergence_nears_reverse_kl() -> None:
    batch = pairs(lopsided(3), reference=True)
    near = offline("dpo")(batch, divergence="alpha_divergence", alpha=1e-7).values
    torch.testing.assert_close(near, offline("dpo")(batch).values, rtol=1e-4, atol=1e-6)


def test_unknown_divergence_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match="divergence: got 'forward_kl', expected one of reverse_kl, js_divergence, alpha"
    ):
        offline("dpo").resolve({"divergence": "forward_kl"})


def at_ratios(name: str, won: list[float], lost: list[float], **parameters: Scalar) -> tuple[Loss, Tensor, Tensor]:
    """The loss at the given ρ, and its derivatives by the sums of either side."""
    rows = [Row(-20.0, -30.0, *ratios, 5, 6) for ratios in zip(won, lost, strict=True)]
    batch = pairs(rows, reference=True)
    batch = replace(batch, chosen=batch.chosen.requires_grad_(), rejected=batch.rejected.requires_grad_())
    loss = offline(name)(batch, **parameters)
    chosen, rejected = torch.autograd.grad(loss.values.sum(), [batch.chosen, batch.rejected])
    return loss, chosen, rejected


def test_apo_down_lowers_the_chosen_answer_once_the_rejected_one_has_sunk_and_that_one_by_more() -> None:
    _, chosen, rejected = at_ratios("apo_down", [0.0, 0.5, 0.0], [0.0, -1.0, -2.0], beta=0.3)
    assert chosen[0].item() == 0
    assert (chosen[1:] > 0).all()
    assert (rejected > chosen).all()


def test_nca_holds_the_chosen_answer_at_its_own_target() -> None:
    beta = 0.2
    target = math.log(2) / beta
    _, chosen, rejected = at_ratios("nca", [target - 0.1, target, target + 0.1], [9.0, -9.0, 0.0], beta=beta)
    assert chosen[0] < 0 < chosen[2]
    assert chosen[1].item() == pytest.approx(0, abs=1e-12)
    assert (rejected > 0).all()


def test_exo_is_zero_and_still_where_the_policy_agrees_with_the_smoothed_label() -> None:
    margin = math.log(0.9 / 0.1) / 0.2
    loss, chosen, rejected = at_ratios("exo", [margin, 0.0], [0.0, -margin], beta=0.2, flip_rate=0.1)
    for found in (loss.values, chosen, rejected):
        assert found.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_discopop_rises_with_the_margin_around_the_reference_alone() -> None:
    margins = [-0.2, -0.125, -0.11, 0.0, 0.06, 0.08, 0.5]
    _, chosen, _ = at_ratios("discopop", margins, [0.0] * len(margins), beta=1.0, tau=0.05)
    assert (chosen > 0).tolist() == [False, False, True, True, True, False, False]


def test_hinge_leaves_alone_a_pair_that_has_its_margin() -> None:
    loss, chosen, rejected = at_ratios("hinge", [5.1, 4.9], [-5.0, -5.0], beta=0.1)
    assert loss.values.tolist() == pytest.approx([0.0, 0.01])
    assert chosen.tolist() == pytest.approx([0.0, -0.1])
    assert rejected.tolist() == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize(("desirable_weight", "undesirable_weight"), [(1.0, 1.0), (1.3, 0.4)])
def test_apo_zero_unpaired_equals_the_equation_and_reads_no_mismatched_answers(
    desirable_weight: float, undesirable_weight: float
) -> None:
    draw = random.Random(4)
    ratios = [draw.gauss(0, 9) for _ in range(ROWS)]
    desirable = [index % 3 != 1 for index in range(ROWS)]
    logps = floats([-draw.uniform(20, 600) for _ in ratios])
    nothing = torch.full((ROWS,), torch.nan, dtype=torch.float64)
    batch = ReferencedUnpairedLogps(
        logps, torch.full((ROWS,), 9), torch.tensor(desirable), logps - floats(ratios), nothing, nothing
    )
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    loss = offline("apo_zero_unpaired")(batch, beta=0.3, **weights)
    expected = [
        desirable_weight * (1 - sigmoid(0.3 * ratio)) if wanted else undesirable_weight * sigmoid(0.3 * ratio)
        for ratio, wanted in zip(ratios, desirable, strict=True)
    ]
    assert loss.values.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert loss.rewards_in("rewards").tolist() == pytest.approx([0.3 * ratio for ratio in ratios], rel=1e-9)


def test_both_sides_of_apo_zero_add_up_to_the_loss_on_pairs() -> None:
    rows = lopsided(6)
    ratios = floats([row.won_ratio for row in rows] + [row.lost_ratio for row in rows])
    zero, desirable = torch.zeros_like(ratios), torch.arange(2 * ROWS) < ROWS
    single = ReferencedUnpairedLogps(ratios, torch.full((2 * ROWS,), 9), desirable, zero, zero, zero)
    values = offline("apo_zero_unpaired")(single, beta=0.2).values
    whole = offline("apo_zero")(pairs(rows, reference=True), beta=0.2).values
    torch.testing.assert_close(values[:ROWS] + values[ROWS:], whole, rtol=1e-9, atol=1e-12)
