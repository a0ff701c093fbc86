"""The built-in losses against scalar arithmetic in pure Python, closed forms, gradients and extreme margins."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import (
    ChosenLogps,
    Loss,
    OfflineAlgorithm,
    PairLogps,
    PairScores,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    UnpairedLogps,
)
from align_bench.api.batches import fields_of
from align_bench.api.readings import READINGS, as_record
from align_bench.plugins.registry import load_registry

Record = Any  # the record that the method reads
Parameters = dict[str, float]
Batch = Mapping[str, list[float]]
Expected = Sequence[tuple[float, ...]]  # a row's loss, then its rewards

ROWS = 11


def with_margin(batch: PairLogps | PairScores, margin: Tensor) -> Record:
    """The record that holds the margin, shape [rows], beside what the batch holds."""
    return as_record(replace(READINGS[type(batch)], margin=True), fields_of(batch) | {"margin": margin})


SETTINGS: list[tuple[str, Parameters]] = [
    ("rm", {"centering": 0.0}),
    ("rm", {"centering": 0.01}),
    ("rm", {"centering": 0.7}),
    ("dpo", {"beta": 0.01}),
    ("dpo", {"beta": 0.1}),
    ("dpo", {"beta": 0.5}),
    ("kto", {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}),
    ("kto", {"beta": 0.02, "desirable_weight": 1.3, "undesirable_weight": 0.6}),
    ("kto", {"beta": 0.5, "desirable_weight": 0.25, "undesirable_weight": 2.0}),
    ("simpo", {"beta": 2.5, "gamma": 1.25}),
    ("simpo", {"beta": 2.0, "gamma": 0.0}),
    ("simpo", {"beta": 10.0, "gamma": 5.0}),
    ("orpo", {"lambda_": 0.0}),
    ("orpo", {"lambda_": 0.1}),
    ("orpo", {"lambda_": 1.0}),
    ("ipo", {"tau": 0.1}),
    ("ipo", {"tau": 0.8}),
    ("cdpo", {"beta": 0.1, "flip_rate": 0.1}),
    ("cdpo", {"beta": 0.3, "flip_rate": 0.45}),
    ("rdpo", {"beta": 0.1, "flip_rate": 0.1}),
    ("rdpo", {"beta": 0.3, "flip_rate": 0.45}),
    ("ldpo", {"beta": 0.1, "alpha": 0.05}),
    ("ldpo", {"beta": 0.02, "alpha": 0.5}),
    ("cpo", {"beta": 0.1, "nll_weight": 1.0}),
    ("cpo", {"beta": 0.3, "nll_weight": 0.2}),
    ("rpo", {"beta": 0.1, "nll_weight": 1.0}),
    ("rpo", {"beta": 0.3, "nll_weight": 0.2}),
    ("sft", {}),
    ("odpo", {"beta": 0.1, "alpha": 1.0}),
    ("odpo", {"beta": 0.4, "alpha": 0.3}),
    ("margin_rm", {"scale": 1.0, "centering": 0.0}),
    ("margin_rm", {"scale": 0.3, "centering": 0.01}),
]
each_setting = pytest.mark.parametrize(
    ("name", "parameters"), SETTINGS, ids=[f"{name}-{'-'.join(map(str, given.values()))}" for name, given in SETTINGS]
)
METHODS = list(dict.fromkeys(name for name, _ in SETTINGS))
REFERENCED = ["dpo", "ipo", "cdpo", "rdpo", "ldpo", "rpo", "odpo"]  # pairs whose loss reads a reference
MARGINS = ["odpo", "margin_rm"]  # whose loss reads the data's margin
each_method = pytest.mark.parametrize("name", METHODS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@pytest.fixture(scope="module")
def methods() -> dict[str, OfflineAlgorithm]:
    return {name: built_in(name) for name in METHODS}


def built_in(name: str) -> OfflineAlgorithm:
    found = load_registry()[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


# The formulas once more, one number at a time.


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return math.exp(log_sigmoid(x))


def logit_of_exp(a: float) -> float:
    """Log-odds of a probability e^a."""
    return a - math.log(-math.expm1(a))


def naive_rm(batch: Batch, centering: float) -> Expected:
    return [
        (-log_sigmoid(won - lost) + centering * (won + lost) ** 2, won, lost)
        for won, lost in zip(batch["chosen"], batch["rejected"], strict=True)
    ]


def naive_dpo(batch: Batch, beta: float, divergence: str = "reverse_kl", alpha: float = 0.5) -> Expected:
    assert divergence == "reverse_kl", "the others are in test_further_losses.py"
    found = []
    for row in range(len(batch["chosen"])):
        won = batch["chosen"][row] - batch["ref_chosen"][row]
        lost = batch["rejected"][row] - batch["ref_rejected"][row]
        found.append((-log_sigmoid(beta * (won - lost)), beta * won, beta * lost))
    return found


def naive_kto(batch: Batch, beta: float, desirable_weight: float, undesirable_weight: float) -> Expected:
    drifts = [policy - ref for policy, ref in zip(batch["mismatched"], batch["ref_mismatched"], strict=True)]
    drift = max(0.0, math.fsum(drifts) / len(drifts))
    found = []
    for row, desirable in enumerate(batch["desirable"]):
        ratio = batch["logps"][row] - batch["ref_logps"][row]
        if desirable:
            value = desirable_weight * (1 - sigmoid(beta * (ratio - drift)))
        else:
            value = undesirable_weight * (1 - sigmoid(beta * (drift - ratio)))
        found.append((value, beta * ratio))
    return found


def naive_simpo(batch: Batch, beta: float, gamma: float) -> Expected:
    found = []
    for row in range(len(batch["chosen"])):
        won = batch["chosen"][row] / batch["chosen_tokens"][row]
        lost = batch["rejected"][row] / batch["rejected_tokens"][row]
        found.append((-log_sigmoid(beta * (won - lost) - gamma), beta * won, beta * lost))
    return found


def naive_orpo(batch: Batch, lambda_: float) -> Expected:
    found = []
    for row in range(len(batch["chosen"])):
        won = batch["chosen"][row] / batch["chosen_tokens"][row]
        lost = batch["rejected"][row] / batch["rejected_tokens"][row]
        likelihood, odds_ratio = -won, logit_of_exp(won) - logit_of_exp(lost)
        found.append((likelihood - lambda_ * log_sigmoid(odds_ratio), lambda_ * won, lambda_ * lost))
    return found


def ratios(batch: Batch, side: str) -> list[float]:
    return [policy - ref for policy, ref in zip(batch[side], batch[f"ref_{side}"], strict=True)]


def naive_ipo(batch: Batch, tau: float) -> Expected:
    won = [ratio / count for ratio, count in zip(ratios(batch, "chosen"), batch["chosen_tokens"], strict=True)]
    lost = [ratio / count for ratio, count in zip(ratios(batch, "rejected"), batch["rejected_tokens"], strict=True)]
    return [((w - x - 0.5 / tau) ** 2, w, x) for w, x in zip(won, lost, strict=True)]


def naive_cdpo(batch: Batch, beta: float, flip_rate: float) -> Expected:
    found = []
    for won, lost in zip(ratios(batch, "chosen"), ratios(batch, "rejected"), strict=True):
        as_labelled, flipped = -log_sigmoid(beta * (won - lost)), -log_sigmoid(beta * (lost - won))
        found.append(((1 - flip_rate) * as_labelled + flip_rate * flipped, beta * won, beta * lost))
    return found


def naive_rdpo(batch: Batch, beta: float, flip_rate: float) -> Expected:
    found = []
    for won, lost in zip(ratios(batch, "chosen"), ratios(batch, "rejected"), strict=True):
        as_labelled, flipped = -log_sigmoid(beta * (won - lost)), -log_sigmoid(beta * (lost - won))
        value = ((1 - flip_rate) * as_labelled - flip_rate * flipped) / (1 - 2 * flip_rate)
        found.append((value, beta * won, beta * lost))
    return found


def naive_ldpo(batch: Batch, beta: float, alpha: float) -> Expected:
    found = []
    for row, (won, lost) in enumerate(zip(ratios(batch, "chosen"), ratios(batch, "rejected"), strict=True)):
        longer = batch["chosen_tokens"][row] - batch["rejected_tokens"][row]
        rewards = beta * won + alpha * batch["chosen_tokens"][row], beta * lost + alpha * batch["rejected_tokens"][row]
        found.append((-log_sigmoid(beta * (won - lost) + alpha * longer), *rewards))
    return found


def naive_cpo(batch: Batch, beta: float, nll_weight: float) -> Expected:
    found = []
    for won, lost, count in zip(batch["chosen"], batch["rejected"], batch["chosen_tokens"], strict=True):
        value = -log_sigmoid(beta * (won - lost)) + nll_weight * -won / count
        found.append((value, beta * won, beta * lost))
    return found


def naive_rpo(batch: Batch, beta: float, nll_weight: float) -> Expected:
    likelihood = [-won / count for won, count in zip(batch["chosen"], batch["chosen_tokens"], strict=True)]
    return [
        (value + nll_weight * nll, won, lost)
        for (value, won, lost), nll in zip(naive_dpo(batch, beta), likelihood, strict=True)
    ]


def naive_sft(batch: Batch) -> Expected:
    means = [value / count for value, count in zip(batch["logps"], batch["tokens"], strict=True)]
    return [(-mean, mean) for mean in means]


def naive_odpo(batch: Batch, beta: float, alpha: float) -> Expected:
    found = []
    for won, lost, margin in zip(ratios(batch, "chosen"), ratios(batch, "rejected"), batch["margin"], strict=True):
        offset = alpha * math.log(max(margin, 1e-6))
        found.append((-log_sigmoid(beta * won - beta * lost - offset), beta * won, beta * lost))
    return found


def naive_margin_rm(batch: Batch, scale: float, centering: float) -> Expected:
    return [
        (-log_sigmoid(won - lost - scale * margin) + centering * (won + lost) ** 2, won, lost)
        for won, lost, margin in zip(batch["chosen"], batch["rejected"], batch["margin"], strict=True)
    ]


NAIVE: dict[str, Callable[..., Expected]] = {
    "rm": naive_rm,
    "dpo": naive_dpo,
    "kto": naive_kto,
    "simpo": naive_simpo,
    "orpo": naive_orpo,
    "ipo": naive_ipo,
    "cdpo": naive_cdpo,
    "rdpo": naive_rdpo,
    "ldpo": naive_ldpo,
    "cpo": naive_cpo,
    "rpo": naive_rpo,
    "sft": naive_sft,
    "odpo": naive_odpo,
    "margin_rm": naive_margin_rm,
}


# Batches.


def lopsided(name: str, seed: int = 0, rows: int = ROWS) -> Record:
    """Random float64 rows: margins of both signs, answers of 1 to 400 tokens, probabilities from near 1 to tiny."""
    if name in MARGINS:
        plain = "rm" if name == "margin_rm" else "dpo"
        draw = random.Random(f"{name}/{seed}")
        said = [draw.choice((draw.uniform(0, 5), draw.uniform(5, 100), 0.0, -1.0)) for _ in range(rows)]
        return with_margin(lopsided(plain, seed, rows), _tensor(said))
    draw = random.Random(f"{name}/{seed}")
    if name == "rm":
        return scored(*(_tensor([draw.gauss(0.3, 3) * draw.choice((0.1, 1, 5)) for _ in range(rows)]) for _ in "wl"))
    if name == "kto":
        ref = [-draw.uniform(1, 600) for _ in range(rows)]
        ref_mismatched = [-draw.uniform(50, 900) for _ in range(rows + 3)]
        return ReferencedUnpairedLogps(
            logps=_tensor([value + draw.gauss(0, 12) for value in ref]),
            tokens=torch.tensor([draw.randint(1, 400) for _ in range(rows)]),
            desirable=torch.tensor([index % 3 != 1 for index in range(rows)]),
            ref_logps=_tensor(ref),
            mismatched=_tensor([value + draw.gauss(4, 3) for value in ref_mismatched]),
            ref_mismatched=_tensor(ref_mismatched),
        )
    if name == "sft":
        counts = [draw.choice((1, 2, 30, 400)) for _ in range(rows)]
        return ChosenLogps(_tensor([-count * 10 ** draw.uniform(-5, 0.9) for count in counts]), torch.tensor(counts))
    tokens = [[draw.choice((1, 2, 30, 400)) for _ in range(rows)] for _ in "wl"]
    logps = [[-count * 10 ** draw.uniform(-5, 0.9) for count in side] for side in tokens]
    given = (*map(_tensor, logps), *map(torch.tensor, tokens))
    if name not in REFERENCED:
        return PairLogps(*given)
    known = (_tensor([value + draw.gauss(0, 15) for value in side]) for side in logps)
    return ReferencedPairLogps(*given, *known)


def scored(chosen: Tensor, rejected: Tensor) -> PairScores:
    """Pairs of scores, of answers whose lengths do not matter."""
    return PairScores(chosen, rejected, torch.full(chosen.shape, 3), torch.full(rejected.shape, 5))


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def as_lists(batch: Record) -> dict[str, list[float]]:
    return {field.name: getattr(batch, field.name).tolist() for field in fields(batch)}


def trained(batch: Record) -> list[str]:
    """The fields that carry gradient."""
    return ["logps"] if isinstance(batch, ChosenLogps | UnpairedLogps) else ["chosen", "rejected"]


def with_gradient(batch: Record) -> Record:
    return replace(batch, **{name: getattr(batch, name).clone().requires_grad_() for name in trained(batch)})


def gradients(algorithm: OfflineAlgorithm, batch: Record, **parameters: float) -> tuple[Loss, list[Tensor]]:
    """The loss and the derivative of its sum by each trained field; rows do not mix, so these are per-row."""
    batch = with_gradient(batch)
    loss = algorithm(batch, **parameters)
    return loss, list(torch.autograd.grad(loss.values.sum(), [getattr(batch, name) for name in trained(batch)]))


def picked(batch: Record, rows: list[int]) -> Record:
    """Some rows of a batch; KTO's mismatched answers belong to the whole batch and stay."""
    names = [field.name for field in fields(batch) if "mismatched" not in field.name]
    return replace(batch, **{name: getattr(batch, name)[rows] for name in names})


def pair(
    chosen: list[float], rejected: list[float], dtype: torch.dtype, tokens: int = 1, ref: float | None = None
) -> PairLogps:
    won, lost = torch.tensor(chosen, dtype=dtype), torch.tensor(rejected, dtype=dtype)
    counts = torch.full((len(chosen),), tokens)
    if ref is None:
        return PairLogps(won, lost, counts, counts)
    known = torch.full_like(won, ref)
    return ReferencedPairLogps(won, lost, counts, counts, known, known)


def unpaired(
    ratios: list[float], desirable: list[bool], drift: list[float], dtype: torch.dtype = torch.float64
) -> ReferencedUnpairedLogps:
    """Rows with the given ρ, and mismatched answers with the given ρ."""
    ratio, drifts = torch.tensor(ratios, dtype=dtype), torch.tensor(drift, dtype=dtype)
    ref, ref_mismatched = torch.full_like(ratio, -20.0), torch.full_like(drifts, -30.0)
    counts = torch.full((len(ratios),), 5)
    return ReferencedUnpairedLogps(
        ref + ratio, counts, torch.tensor(desirable), ref, ref_mismatched + drifts, ref_mismatched
    )


# Values.


@each_setting
@pytest.mark.parametrize("seed", range(3))
def test_values_and_rewards_equal_scalar_arithmetic(
    methods: dict[str, OfflineAlgorithm], name: str, parameters: Parameters, seed: int
) -> None:
    batch = lopsided(name, seed)
    loss = methods[name](batch, **parameters)
    expected: list[list[float]] = [
        list(column) for column in zip(*NAIVE[name](as_lists(batch), **parameters), strict=True)
    ]
    found = [loss.values, *(getattr(loss, field) for field in methods[name].reward_fields)]
    # 1 − σ loses digits below the spacing of doubles at 1, in Python as in torch.
    absolute = 1e-15 if name == "kto" else 0.0
    for tensor, column in zip(found, expected, strict=True):
        assert tensor.dtype == torch.float64
        assert tensor.tolist() == pytest.approx(column, rel=1e-10, abs=absolute)


@each_method
def test_defaults_are_those_of_the_declaration(methods: dict[str, OfflineAlgorithm], name: str) -> None:
    batch = lopsided(name)
    assert torch.equal(methods[name](batch).values, methods[name](batch, **methods[name].resolve({})).values)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "rdpo"])
def test_dpo_and_its_kin_are_ln_2_at_the_reference(methods: dict[str, OfflineAlgorithm], name: str) -> None:
    batch = lopsided(name)
    loss: Any = methods[name](replace(batch, ref_chosen=batch.chosen, ref_rejected=batch.rejected), beta=0.3)
    assert loss.values.tolist() == pytest.approx([math.log(2)] * ROWS, rel=1e-15)
    assert loss.chosen_rewards.tolist() == loss.rejected_rewards.tolist() == [0.0] * ROWS


def test_ipo_is_its_squared_target_at_the_reference(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = lopsided("ipo")
    loss: Any = methods["ipo"](replace(batch, ref_chosen=batch.chosen, ref_rejected=batch.rejected), tau=0.25)
    assert loss.values.tolist() == [4.0] * ROWS


@pytest.mark.parametrize(
    ("name", "neutral"), [("cdpo", {"flip_rate": 0.0}), ("rdpo", {"flip_rate": 0.0}), ("ldpo", {"alpha": 0.0})]
)
def test_dpo_is_a_special_case(methods: dict[str, OfflineAlgorithm], name: str, neutral: Parameters) -> None:
    batch = lopsided("dpo")
    assert torch.equal(methods[name](batch, beta=0.2, **neutral).values, methods["dpo"](batch, beta=0.2).values)


def test_an_offset_of_nothing_is_dpo(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = lopsided("dpo")
    with_one = with_margin(batch, torch.ones(ROWS, dtype=torch.float64))
    assert torch.equal(methods["odpo"](with_one, beta=0.2).values, methods["dpo"](batch, beta=0.2).values)


def test_the_better_the_chosen_answer_the_more_odpo_asks_for(methods: dict[str, OfflineAlgorithm]) -> None:
    """At the reference, where the loss is −log σ(−ln m) = ln(1 + m), and next to nothing where m is not above 0."""
    batch = pair([-1.0] * 5, [-1.0] * 5, torch.float64, ref=-1.0)
    margins = _tensor([3.0, 1.0, 0.25, 0.0, -4.0])
    values = methods["odpo"](with_margin(batch, margins), beta=0.2, alpha=1.0).values.tolist()
    assert values == pytest.approx([math.log(4), math.log(2), math.log(1.25), 1e-6, 1e-6], rel=1e-6)


def test_a_margin_of_nothing_is_the_plain_reward_model(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = lopsided("rm")
    nothing = with_margin(batch, torch.zeros(ROWS, dtype=torch.float64))
    assert torch.equal(methods["margin_rm"](nothing).values, methods["rm"](batch).values)


def test_robust_dpo_is_unbiased_under_flips(methods: dict[str, OfflineAlgorithm]) -> None:
    """Over labels that are flipped with probability ε, its expectation is DPO's loss on clean ones."""
    batch, rate = lopsided("dpo"), 0.2
    flipped = ReferencedPairLogps(
        batch.rejected,
        batch.chosen,
        batch.rejected_tokens,
        batch.chosen_tokens,
        batch.ref_rejected,
        batch.ref_chosen,
    )
    robust = [methods["rdpo"](rows, beta=0.05, flip_rate=rate).values for rows in (batch, flipped)]
    expected = methods["dpo"](batch, beta=0.05).values
    torch.testing.assert_close((1 - rate) * robust[0] + rate * robust[1], expected, rtol=1e-12, atol=1e-12)


def test_kto_is_one_half_at_the_reference(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = lopsided("kto")
    at_reference = replace(batch, ref_logps=batch.logps, ref_mismatched=batch.mismatched)
    assert methods["kto"](at_reference, beta=0.3).values.tolist() == [0.5] * ROWS


def test_rm_is_ln_2_at_equal_scores_of_zero_and_pays_for_a_common_offset(methods: dict[str, OfflineAlgorithm]) -> None:
    zero, two = torch.zeros(4, dtype=torch.float64), torch.full((4,), 2.0, dtype=torch.float64)
    assert methods["rm"](scored(zero, zero)).values.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)
    offset = methods["rm"](scored(two, two), centering=0.1).values
    assert offset.tolist() == pytest.approx([math.log(2) + 1.6] * 4, rel=1e-15)


def test_simpo_is_ln_2_where_the_margin_equals_the_target(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = pair([-1.0, -3.0], [-2.0, -4.0], torch.float64, tokens=2)
    loss = methods["simpo"](batch, beta=2.0, gamma=1.0)
    assert loss.values.tolist() == pytest.approx([math.log(2)] * 2, rel=1e-15)


def test_orpo_is_likelihood_plus_ln_2_for_equal_answers(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = pair([-0.5, -6.0], [-0.5, -6.0], torch.float64, tokens=2)
    loss = methods["orpo"](batch, lambda_=0.4)
    assert loss.values.tolist() == pytest.approx([0.25 + 0.4 * math.log(2), 3 + 0.4 * math.log(2)], rel=1e-14)


# Gradients.


def below_target_of_ipo(loss: Loss, tau: float) -> Tensor:
    return loss.rewards_in("chosen_rewards") - loss.rewards_in("rejected_rewards") < 1 / (2 * tau)


def below_target_of_cdpo(loss: Loss, beta: float, flip_rate: float) -> Tensor:
    return loss.rewards_in("chosen_rewards") - loss.rewards_in("rejected_rewards") < math.log(1 / flip_rate - 1)


TURNING: dict[str, Callable[..., Tensor]] = {"ipo": below_target_of_ipo, "cdpo": below_target_of_cdpo}


@each_setting
@pytest.mark.parametrize("seed", range(3))
def test_gradient_raises_the_chosen_and_lowers_the_rejected(
    methods: dict[str, OfflineAlgorithm], name: str, parameters: Parameters, seed: int
) -> None:
    if "centering" in parameters:
        parameters = {**parameters, "centering": 0.0}  # the centring term pulls both scores to 0, whichever won
    batch = lopsided(name, seed)
    _, found = gradients(methods[name], batch, **parameters)
    if isinstance(batch, UnpairedLogps):
        assert (found[0] < 0).tolist() == batch.desirable.tolist()
        assert (found[0] > 0).tolist() == (~batch.desirable).tolist()
    elif isinstance(batch, ChosenLogps):
        assert (found[0] < 0).all()
    elif name in TURNING:
        # These two turn back beyond their target margin, which is where their loss is least.
        below = TURNING[name](methods[name](batch, **parameters), **parameters)
        assert below.any()
        assert (found[0] < 0).tolist() == below.tolist()
        assert (found[1] > 0).tolist() == below.tolist()
    else:
        assert (found[0] < 0).all()
        assert (found[1] == 0).all() if parameters.get("lambda_") == 0 else (found[1] > 0).all()


def test_centring_pulls_both_scores_towards_zero(methods: dict[str, OfflineAlgorithm]) -> None:
    scores = torch.tensor([30.0, -30.0], dtype=torch.float64)
    for gradient in gradients(methods["rm"], scored(scores, scores), centering=0.1)[1]:
        assert (gradient.sign() == scores.sign()).all()


@each_setting
def test_gradient_equals_finite_differences(
    methods: dict[str, OfflineAlgorithm], name: str, parameters: Parameters
) -> None:
    batch = with_gradient(moderate(name))
    names = trained(batch)

    def values(*inputs: Tensor) -> tuple[Tensor, ...]:
        loss = methods[name](replace(batch, **dict(zip(names, inputs, strict=True))), **parameters)
        return loss.values, *(getattr(loss, field) for field in methods[name].reward_fields)

    assert torch.autograd.gradcheck(values, [getattr(batch, field) for field in names])


def moderate(name: str) -> Record:
    """Rows whose losses are curved enough for finite differences, on both branches of ORPO's log-odds."""
    if name in MARGINS:
        return with_margin(moderate("rm" if name == "margin_rm" else "dpo"), _tensor([0.5, 2.0, 1.25]))
    if name == "kto":
        return unpaired([3.0, -4.0, 0.5, -1.0], [True, False, False, True], [2.0, 0.5])
    if name == "rm":
        return scored(_tensor([1.5, -2.0, 0.25]), _tensor([-0.5, 1.0, 0.5]))
    if name == "sft":
        return ChosenLogps(_tensor([-1.0, -0.02, -9.0]), torch.tensor([1, 3, 7]))
    ref = -2.0 if name in REFERENCED else None
    return pair([-1.0, -0.02, -9.0], [-3.0, -2.5, -0.4], torch.float64, tokens=2, ref=ref)


@each_method
def test_rows_are_independent_of_order_and_of_each_other(methods: dict[str, OfflineAlgorithm], name: str) -> None:
    batch = lopsided(name)
    loss, found = gradients(methods[name], batch)
    order = random.Random(name).sample(range(ROWS), ROWS)
    for rows in (order, order[:4], [5]):
        part, part_found = gradients(methods[name], picked(batch, rows))
        for whole, some in zip([loss.values, *found], [part.values, *part_found], strict=True):
            torch.testing.assert_close(some, whole[rows], rtol=1e-13, atol=0)


# Extreme margins.


def extreme(name: str, dtype: torch.dtype) -> Record:
    """Two rows with a margin of +10,000 and −10,000."""
    if name in MARGINS:
        plain = extreme("rm" if name == "margin_rm" else "dpo", dtype)
        return with_margin(plain, torch.tensor([3.0, 0.5], dtype=dtype))
    if name == "rm":
        return scored(torch.tensor([5e3, -5e3], dtype=dtype), torch.tensor([-5e3, 5e3], dtype=dtype))
    if name == "kto":
        return unpaired([1e4, -1e4, 1e4, -1e4], [True, True, False, False], [1.0, 3.0], dtype)
    if name == "sft":
        return ChosenLogps(torch.tensor([-1.0, -10001.0], dtype=dtype), torch.tensor([1, 1]))
    ref = -1.0 if name in REFERENCED else None
    return pair([-1.0, -10001.0], [-10001.0, -1.0], dtype, ref=ref)


@each_dtype
@each_method
def test_extreme_margins_stay_finite_and_are_not_clipped(
    methods: dict[str, OfflineAlgorithm], name: str, dtype: torch.dtype
) -> None:
    batch = extreme(name, dtype)
    loss, found = gradients(methods[name], batch)
    for tensor in (loss.values, *found):
        assert tensor.isfinite().all()
    expected = NAIVE[name](as_lists(batch), **methods[name].resolve({}))
    assert loss.values.tolist() == pytest.approx([row[0] for row in expected], rel=1e-5, abs=1e-30)
    if name != "kto":  # which is bounded, so that its gradient vanishes where it is saturated
        assert found[0][1] < 0
    if name not in ("kto", "sft"):
        assert found[1][1] > 0


@each_dtype
@each_method
def test_margins_that_overflow_exp_stay_finite_with_drift_at_zero_too(
    methods: dict[str, OfflineAlgorithm], name: str, dtype: torch.dtype
) -> None:
    batch = extreme(name, dtype)
    if name == "kto":
        batch = replace(batch, mismatched=batch.ref_mismatched - 1e4)
    steep = {
        "rm": {},
        "dpo": {"beta": 10.0},
        "kto": {"beta": 10.0},
        "simpo": {"beta": 10.0},
        "orpo": {"lambda_": 10.0},
        "ipo": {"tau": 1e-3},
        "cdpo": {"beta": 10.0},
        "rdpo": {"beta": 10.0, "flip_rate": 0.49},
        "ldpo": {"beta": 10.0, "alpha": 100.0},
        "cpo": {"beta": 10.0},
        "rpo": {"beta": 10.0},
        "sft": {},
        "odpo": {"beta": 10.0, "alpha": 100.0},
        "margin_rm": {"scale": 1e3},
    }[name]
    loss, found = gradients(methods[name], batch, **steep)
    assert all(tensor.isfinite().all() for tensor in (loss.values, *found))


# ORPO's log-odds.


@each_dtype
@pytest.mark.parametrize("tokens", [1, 7])
def test_orpo_is_finite_at_certainty(methods: dict[str, OfflineAlgorithm], dtype: torch.dtype, tokens: int) -> None:
    """An answer of probability 1 has infinite log-odds; the loss keeps off that pole and still points the right way."""
    near = [0.0, -0.0, -1e-40, -1e-12, -1e-7]
    chosen = near + [-1.0] * len(near) + near
    rejected = [-1.0] * len(near) + near + near[::-1]
    loss, (won, lost) = gradients(methods["orpo"], pair(chosen, rejected, dtype, tokens), lambda_=0.5)
    for tensor in (loss.values, won, lost, loss.metrics["log_odds_ratio"].detach()):
        assert tensor.isfinite().all()
    assert (won < 0).all()
    assert (lost > 0).all()
    assert (loss.values > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_orpo_computes_log_odds_in_32_bits(methods: dict[str, OfflineAlgorithm], dtype: torch.dtype) -> None:
    batch = pair([-0.001, 0.0], [-9.0, -0.001], dtype)
    loss, found = gradients(methods["orpo"], batch)
    odds_ratio = loss.metrics["log_odds_ratio"]
    assert odds_ratio.dtype == torch.float32
    lists = as_lists(batch)
    assert odds_ratio[0].item() == pytest.approx(
        logit_of_exp(lists["chosen"][0]) - logit_of_exp(lists["rejected"][0]), rel=1e-6
    )
    assert all(tensor.isfinite().all() for tensor in (loss.values, *found))


@each_dtype
def test_orpo_log_odds_are_exact_near_zero_and_far_below(
    methods: dict[str, OfflineAlgorithm], dtype: torch.dtype
) -> None:
    smallest = torch.finfo(dtype).eps
    exponents = torch.linspace(math.log10(2 * smallest), 4, 300, dtype=torch.float64)
    around_half = torch.linspace(0.69, 0.70, 41, dtype=torch.float64)
    means = -torch.cat([10**exponents, around_half]).to(dtype)
    anchor = -1.0
    batch = pair(means.tolist(), [anchor] * len(means), dtype)
    found = methods["orpo"](batch).metrics["log_odds_ratio"]
    assert found.dtype == dtype
    for mean, value in zip(means.tolist(), found.tolist(), strict=True):
        expected = float(exact_log_odds(mean) - exact_log_odds(anchor))
        assert value == pytest.approx(expected, rel=4 * smallest, abs=4 * smallest), mean


def exact_log_odds(mean: float) -> Decimal:
    """`a − log(1 − e^a)` to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        context.Emin = -(10**6)
        a = Decimal(mean)
        return a - (1 - a.exp()).ln()


# KTO's drift.


def test_kto_drift_below_zero_counts_as_zero(methods: dict[str, OfflineAlgorithm]) -> None:
    ratios, desirable = [2.0, -3.0, 1.0, -1.0], [True, True, False, False]
    below = methods["kto"](unpaired(ratios, desirable, [-8.0, 1.0]), beta=0.2)
    at_zero = methods["kto"](unpaired(ratios, desirable, [0.0, 0.0]), beta=0.2)
    above = methods["kto"](unpaired(ratios, desirable, [8.0, -1.0]), beta=0.2)
    assert torch.equal(below.values, at_zero.values)
    assert below.metrics["drift"].tolist() == [0.0] * 4
    # A row's own drift is not clamped: it is the mean that is.
    assert above.metrics["drift"].tolist() == pytest.approx([3.5] * 4)
    assert ((above.values > at_zero.values) == torch.tensor(desirable)).all()


@pytest.mark.parametrize("drift", [[5.0, 2.0], [-5.0, 2.0]], ids=["above", "below"])
def test_kto_drift_has_no_gradient(methods: dict[str, OfflineAlgorithm], drift: list[float]) -> None:
    batch = with_gradient(unpaired([1.0, -1.0], [True, False], drift))
    batch = replace(batch, mismatched=batch.mismatched.requires_grad_())
    loss = methods["kto"](batch)
    policy, mismatched = torch.autograd.grad(loss.values.sum(), [batch.logps, batch.mismatched], allow_unused=True)
    assert policy.abs().min() > 0
    assert mismatched is None
    assert not loss.metrics["drift"].requires_grad


def test_kto_weights_scale_their_own_rows_alone(methods: dict[str, OfflineAlgorithm]) -> None:
    batch = lopsided("kto")
    plain = methods["kto"](batch).values
    desirable = methods["kto"](batch, desirable_weight=3.0).values
    undesirable = methods["kto"](batch, undesirable_weight=3.0).values
    ones, threes = torch.ones_like(plain), torch.full_like(plain, 3.0)
    torch.testing.assert_close(desirable / plain, torch.where(batch.desirable, threes, ones), rtol=1e-12, atol=0)
    torch.testing.assert_close(undesirable / plain, torch.where(batch.desirable, ones, threes), rtol=1e-12, atol=0)


def test_losses_need_no_gradient(methods: dict[str, OfflineAlgorithm]) -> None:
    for name, algorithm in methods.items():
        loss: Any = algorithm(lopsided(name))
        assert not loss.values.requires_grad
