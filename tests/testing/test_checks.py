"""The conformance kit: every built-in method passes, and each planted mistake is caught by the check that names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import Algorithm, OfflineAlgorithm, Parameter, SumOfLosses, summed, sums
from align_bench.errors import PluginError
from align_bench.models.logprobs import response_logps, scores
from align_bench.plugins.registry import load_file, load_registry
from align_bench.records import Scalar
from align_bench.testing import CheckReport, check_algorithm
from align_bench.testing.specimens import KINDS
from align_bench.train import feeds
from align_bench.train.checkpoints import Checkpoint
from align_bench.train.moving_reference import MovingFeed, MovingReference
from align_bench.train.steps import State

CHECKS = [
    "contract",
    "closed form",
    "signs",
    "gradients",
    "extremes",
    "rewards",
    "start",
    "margin",
    "length",
    "KL estimate",
    "whole batch",
    "terms",
    "range ends",
    "responses",
    "batches",
    "moving reference",
    "advantages",
    "bounds",
    "documentation",
]
DOCUMENTED = '''"""A method of the tests.

    Equation:
        below

    Args:
        batch: the batch.
        beta: strength of the pull,
            per nat.

    Returns:
        Loss and rewards, each of shape [rows].

    Source:
        these tests.

    Differs from the source:
        1. In nothing.
    """'''
PLUGIN = """
from typing import Annotated

import torch
from annotated_types import Gt, Ge, Lt, Le
from torch.nn.functional import logsigmoid

from align_bench.api import *


{before}


@{decorator}, paper="none", learning_rate=1e-5, {declared})
def planted(batch{annotation}, *, beta: Annotated[float, {bounds}] = 0.1) -> Loss:
    {doc}
{body}
"""


@dataclass(frozen=True)
class Twin:
    """A sound method; its mutants differ from it by one replacement in its file."""

    data: str
    declared: str
    body: str
    bounds: str = "Gt(0)"
    doc: str = DOCUMENTED
    before: str = ""
    annotation: str = ""

    @property
    def text(self) -> str:
        decorator = "online(" if self.data == "rollouts" else f'algorithm(data="{self.data}", reward="r"'
        text = PLUGIN.format(**{name: getattr(self, name) for name in self.__dataclass_fields__}, decorator=decorator)
        return text.replace("@online(, ", "@online(")


DPO = Twin(
    "pairs",
    "reference=True, at_reference=0.6931471805599453, normalised=False",
    """
    chosen = beta * (batch.chosen - batch.ref_chosen)
    rejected = beta * (batch.rejected - batch.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
MOVING = replace(DPO, declared=f"{DPO.declared}, moving_reference=lambda: 3")
KTO = Twin(
    "unpaired",
    "reference=True, at_reference=(0.5, 0.5), normalised=False",
    """
    drift = (batch.mismatched - batch.ref_mismatched).mean().clamp(min=0).detach()
    ratio = batch.logps - batch.ref_logps
    desirable, undesirable = torch.sigmoid(beta * (drift - ratio)), torch.sigmoid(beta * (ratio - drift))
    return Loss(torch.where(batch.desirable, desirable, undesirable), rewards=beta * ratio)
""",
)
SIMPO = Twin(
    "pairs",
    "normalised=True",
    """
    chosen = beta * batch.chosen / batch.chosen_tokens
    rejected = beta * batch.rejected / batch.rejected_tokens
    return Loss(-logsigmoid(chosen - rejected - 0.5), chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
ORPO = Twin(
    "pairs",
    "normalised=True",
    """
    def log_odds(mean):
        return mean - torch.log(-torch.expm1(mean.clamp(max=-torch.finfo(mean.dtype).eps)))

    chosen, rejected = batch.chosen_mean, batch.rejected_mean
    odds_ratio = log_odds(chosen) - log_odds(rejected)
    return Loss(-chosen - beta * logsigmoid(odds_ratio), chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
SFT = Twin(
    "chosen", "normalised=True", "    return Loss(-batch.logps / batch.tokens, rewards=batch.logps / batch.tokens)"
)
DOWN = replace(
    DPO,
    declared='reference=True, at_reference=1.0, normalised=False, falls_with="margin"',
    body="""
    chosen = beta * (batch.chosen - batch.ref_chosen)
    rejected = beta * (batch.rejected - batch.ref_rejected)
    values = torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
SMOOTHED = replace(
    DPO,
    bounds="Ge(0), Lt(0.5)",
    body="""
    chosen, rejected = batch.chosen - batch.ref_chosen, batch.rejected - batch.ref_rejected
    margin = chosen - rejected
    values = -((1 - beta) * logsigmoid(margin) - beta * logsigmoid(-margin)) / (1 - 2 * beta)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
IPO = replace(
    DPO,
    declared="reference=True, at_reference=lambda beta: (1 / (2 * beta)) ** 2, normalised=False",
    body="""
    chosen, rejected = batch.chosen - batch.ref_chosen, batch.rejected - batch.ref_rejected
    return Loss((chosen - rejected - 1 / (2 * beta)) ** 2, chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
RM = Twin(
    "scores",
    "at_reference=0.6931471805599453",
    """
    values = -logsigmoid(batch.chosen - batch.rejected) + beta * (batch.chosen + batch.rejected) ** 2
    return Loss(values, chosen_rewards=batch.chosen, rejected_rewards=batch.rejected)
""",
)
POE = Twin(
    "scores",
    "auxiliary=BiasExpert",
    """
    values = -logsigmoid(batch.chosen + batch.bias_chosen - batch.rejected - batch.bias_rejected)
    return Loss(values, chosen_rewards=batch.chosen, rejected_rewards=batch.rejected)
""",
)
ROBUST = Twin(
    "scores",
    "auxiliary=lambda: Adversary(epsilon=0.1)",
    """
    attacked = -logsigmoid(batch.adversarial_chosen - batch.adversarial_rejected)
    values = attacked - logsigmoid(batch.chosen - batch.rejected)
    return Loss(values, chosen_rewards=batch.chosen, rejected_rewards=batch.rejected)
""",
)
ODIN = Twin(
    "scores",
    "auxiliary=LengthHead",
    """
    def spread(values):
        return values.std(correction=0).clamp(min=torch.finfo(values.dtype).eps)

    def correlation(values, tokens):
        z_tokens = (tokens - batch.batch_tokens.to(values).mean()) / spread(batch.batch_tokens.to(values))
        return (values - batch.batch_length_scores.mean()) / spread(batch.batch_length_scores) * z_tokens

    pair = batch.chosen + batch.length_chosen - batch.rejected - batch.length_rejected
    length = correlation(batch.length_chosen, batch.chosen_tokens)
    values = -logsigmoid(pair) - beta * length + batch.head_cosine.abs()
    return Loss(values, chosen_rewards=batch.chosen, rejected_rewards=batch.rejected)
""",
)
RLOO = Twin(
    "rollouts",
    "advantage=over_the_others",
    """
    ratio = (batch.logps - batch.old_logps).sum(1).exp()
    worth = batch.advantages[:, 0]
    return Loss(torch.maximum(-worth * ratio, -worth * ratio.clamp(1 - beta, 1 + beta)))
""",
    before="""
def over_the_others(experience):
    same = (experience.group[:, None] == experience.group).to(experience.rewards)
    mean = (same @ experience.rewards - experience.rewards) / (same.sum(1) - 1)
    return Advantages((experience.rewards - mean)[:, None] * experience.mask)
""",
)
PPO = Twin(
    "rollouts",
    "critic=True, advantage=whitened",
    """
    ratio = (batch.logps - batch.old_logps).exp()
    clipped = ratio.clamp(1 - beta, 1 + beta)
    surrogate = torch.maximum(-batch.advantages * ratio, -batch.advantages * clipped)
    missed = 0.5 * (batch.values - batch.returns).square()
    return Loss(((surrogate + missed) * batch.mask).sum(1) / batch.mean_tokens)
""",
    before="""
def whitened(experience):
    over = (experience.rewards[:, None] - experience.values) * experience.mask
    tokens = over[experience.mask]
    white = (over - tokens.mean()) / (tokens.std(correction=0) + 1e-8) * experience.mask
    return CriticAdvantages(white, returns=over + experience.values)
""",
)
GRPO = replace(
    RLOO,
    body="""
    ratio = (batch.logps - batch.old_logps).exp()
    surrogate = torch.maximum(-batch.advantages * ratio, -batch.advantages * ratio.clamp(1 - beta, 1 + beta))
    back = batch.ref_logps - batch.logps
    return Loss(((surrogate + 0.04 * (back.exp() - back - 1)) * batch.mask).sum(1) / batch.mask.sum(1))
""",
)
OFFSET = replace(
    DPO,
    annotation=": ReferencedMarginPairLogps",
    body="""
    chosen = beta * (batch.chosen - batch.ref_chosen)
    rejected = beta * (batch.rejected - batch.ref_rejected)
    offset = batch.margin.clamp(min=1e-6).log()
    return Loss(-logsigmoid(chosen - rejected - offset), chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
MARGIN_RM = Twin(
    "scores",
    "at_reference=math.log1p(math.e)",
    """
    values = -logsigmoid(batch.chosen - batch.rejected - batch.margin)
    return Loss(values, chosen_rewards=batch.chosen, rejected_rewards=batch.rejected)
""",
    before="import math",
    annotation=": MarginPairScores",
)
AOT = replace(
    DPO,
    annotation=": BatchPairLogps",
    body="""
    everyone = batch.batch
    rank = (everyone.chosen - everyone.rejected).argsort().argsort()[batch.place]
    known = (everyone.ref_chosen - everyone.ref_rejected).sort().values[rank]
    chosen, rejected = beta * (batch.chosen - batch.ref_chosen), beta * (batch.rejected - batch.ref_rejected)
    values = -logsigmoid(beta * (batch.chosen - batch.rejected - known))
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
BCO = replace(
    KTO,
    declared="reference=True, at_reference=0.6931471805599453, normalised=False, running=so_far",
    annotation=": BatchUnpairedLogps",
    before="""
def so_far(before, batch, *, beta):
    rewards = beta * (batch.logps - batch.ref_logps)
    count = before.get("count", 0) + len(batch)
    mean = before.get("mean", 0.0)
    return {"mean": mean + (float(rewards.mean()) - mean) * len(batch) / count, "count": count}
""",
    body="""
    reward = beta * (batch.logps - batch.ref_logps)
    over = reward - batch.running["mean"]
    return Loss(-logsigmoid(torch.where(batch.desirable, over, -over)), rewards=reward)
""",
)
WEIGHTED = replace(
    DPO,
    declared="normalised=False",
    annotation=": ConfidencePairLogps",
    body="""
    weight = (batch.confidence_chosen + batch.confidence_rejected).exp()
    chosen, rejected = beta * (batch.chosen - batch.ref_chosen), beta * (batch.rejected - batch.ref_rejected)
    return Loss(-weight * logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
FIRST = replace(
    DPO,
    annotation=": PrefixPairLogps",
    body="""
    chosen, rejected = beta * (batch.chosen - batch.ref_chosen), beta * (batch.rejected - batch.ref_rejected)
    first = batch.prefix_chosen - batch.ref_prefix_chosen - batch.prefix_rejected + batch.ref_prefix_rejected
    values = -logsigmoid(0.3 * (chosen - rejected) + 0.7 * beta * first)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
""",
)
ONLINE = {"ppo": PPO, "rloo": RLOO, "grpo": GRPO, "poe": POE, "robust": ROBUST, "odin": ODIN}
TWINS = ONLINE | {
    "dpo": DPO,
    "apo_down": DOWN,
    "kto": KTO,
    "simpo": SIMPO,
    "orpo": ORPO,
    "sft": SFT,
    "rdpo": SMOOTHED,
    "ipo": IPO,
    "rm": RM,
    "offset": OFFSET,
    "margin_rm": MARGIN_RM,
    "aot": AOT,
    "bco": BCO,
    "wpo": WEIGHTED,
    "ld_dpo": FIRST,
    "tr_dpo": MOVING,
}

Mutant = tuple[Twin, str, str, set[str]]  # the sound twin, what is sound in it, the mistake, the checks that catch it
LOGISTIC = "logsigmoid(chosen - rejected)"
MUTANTS: dict[str, Mutant] = {
    "a flipped sign": (DPO, LOGISTIC, "logsigmoid(rejected - chosen)", {"signs"}),
    "KTO with its second term's sign wrong": (KTO, "beta * (ratio - drift)", "beta * (drift - ratio)", {"signs"}),
    "lengths of the batch's longest answers": (SIMPO, "_tokens", "_tokens.max()", {"batches"}),
    "KL from the batch's own rows": (
        KTO,
        "(batch.mismatched - batch.ref_mismatched)",
        "(batch.logps - batch.ref_logps)",
        {"KL estimate", "batches", "gradients"},  # a detached part that moves with the row is half a gradient
    ),
    "ORPO without care at s̄ → 0": (
        ORPO,
        "torch.log(-torch.expm1(mean.clamp(max=-torch.finfo(mean.dtype).eps)))",
        "torch.log(1 - torch.exp(mean))",
        {"extremes"},
    ),
    "the mean in place of the rows": (DPO, LOGISTIC, f"{LOGISTIC}.mean()", {"contract"}),
    "no gradient": (DPO, LOGISTIC, f"{LOGISTIC}.detach()", {"contract"}),
    "no finite value": (DPO, LOGISTIC, "torch.log(rejected - chosen)", {"contract"}),
    "a reference that is not declared": (DPO, "reference=True, at_reference=0.6931471805599453, ", "", {"contract"}),
    "one side's reference for both": (DPO, "batch.ref_rejected", "batch.ref_chosen", {"closed form", "start"}),
    "a reward without its reference": (
        DPO,
        "chosen_rewards=chosen",
        "chosen_rewards=beta * batch.chosen",
        {"start"},
    ),
    "a wrong declaration": (IPO, "(1 / (2 * beta)) ** 2, norm", "(1 / beta) ** 2, norm", {"closed form"}),
    "half a gradient": (DPO, LOGISTIC, "logsigmoid((chosen + chosen.detach()) / 2 - rejected)", {"gradients"}),
    "a spelt-out sigmoid": (DPO, f"-{LOGISTIC}", "torch.log(1 + torch.exp(rejected - chosen))", {"extremes"}),
    "an overflowing power": (RM, "** 2", "** 10", {"extremes"}),
    "swapped rewards": (DPO, "rejected_rewards=rejected", "rejected_rewards=-rejected", {"rewards"}),
    "sums declared as means": (DPO, "normalised=False", "normalised=True", {"length"}),
    "means declared as sums": (SIMPO, "normalised=True", "normalised=False", {"length"}),
    "one side's token counts for both": (SIMPO, "batch.rejected_tokens", "batch.chosen_tokens", {"length"}),
    "token counts of both sides": (
        ORPO,
        "batch.chosen_mean, batch.rejected_mean",
        "(each * 2 / (batch.chosen_tokens + batch.rejected_tokens) for each in (batch.chosen, batch.rejected))",
        {"length"},
    ),
    "KL with a gradient": (KTO, ".detach()", "", {"KL estimate"}),
    "KL from own rows too": (
        KTO,
        ".mean().clamp",
        ".mean().add((batch.logps - batch.ref_logps).mean()).clamp",
        {"KL estimate", "batches", "gradients"},
    ),
    "a margin that is pushed the wrong way": (
        DOWN,
        "torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)",
        "torch.sigmoid(-chosen) + torch.sigmoid(chosen - rejected)",
        {"signs"},
    ),
    "a chosen answer that falls, undeclared": (DOWN, ', falls_with="margin"', "", {"signs"}),
    "no KL": (KTO, ".clamp(min=0)", ".clamp(min=0, max=0)", {"KL estimate"}),
    "a range that ends on a pole": (SMOOTHED, "Lt(0.5)", "Le(0.5)", {"range ends"}),
    "rejected answers declared idle": (DPO, "normalised", "uses_rejected=False, normalised", {"signs"}),
    "idle rejected answers": (DPO, "chosen - rejected)", "chosen)", {"signs"}),
    "PoE with the bias added at inference": (
        POE,
        "chosen_rewards=batch.chosen,",
        "chosen_rewards=batch.chosen + batch.bias_chosen,",
        {"rewards"},
    ),
    "PoE that divides by the bias": (POE, "+ batch.bias_chosen", "- batch.bias_chosen", {"signs"}),
    "PoE with an idle bias expert": (
        POE,
        "batch.bias_rejected)",
        "batch.bias_rejected.detach())",
        {"gradients", "signs"},
    ),
    "attacks that help": (
        ROBUST,
        "batch.adversarial_chosen - batch.adversarial_rejected",
        "batch.adversarial_rejected - batch.adversarial_chosen",
        {"signs"},
    ),
    "attacked scores as rewards": (
        ROBUST,
        "rejected_rewards=batch.rejected",
        "rejected_rewards=batch.adversarial_rejected",
        {"rewards"},
    ),
    "ODIN without care for equal scores": (
        ODIN,
        ".clamp(min=torch.finfo(values.dtype).eps)",
        "",
        {"extremes"},
    ),
    "ODIN with a micro-batch's statistics": (
        ODIN,
        "values - batch.batch_length_scores.mean()",
        "values - batch.length_chosen.mean()",
        {"batches"},
    ),
    "both heads as the reward": (
        ODIN,
        "chosen_rewards=batch.chosen,",
        "chosen_rewards=batch.chosen + batch.length_chosen,",
        {"rewards"},
    ),
    "PPO with its ratio upside down": (
        PPO,
        "(batch.logps - batch.old_logps)",
        "(batch.old_logps - batch.logps)",
        {"signs"},
    ),
    "PPO with a clip that holds on both sides": (
        PPO,
        "torch.maximum(-batch.advantages * ratio, -batch.advantages * clipped)",
        "-batch.advantages * clipped",
        {"signs"},
    ),
    "PPO with the minimum of losses": (PPO, "torch.maximum", "torch.minimum", {"signs"}),
    "PPO with values that flee": (PPO, "missed = 0.5", "missed = -0.5", {"signs"}),
    "PPO over its padding": (PPO, "batch.mean_tokens", "batch.mask.shape[1]", {"batches"}),
    "PPO over a micro-batch's tokens": (
        PPO,
        "/ batch.mean_tokens",
        "/ batch.mask.sum() * len(batch.mask)",
        {"batches"},
    ),
    "whitening over the padding": (PPO, "over[experience.mask]", "over", {"advantages"}),
    "worse answers preferred": (
        PPO,
        "(experience.rewards[:, None] - ",
        "(-experience.rewards[:, None] - ",
        {"advantages"},
    ),
    "GRPO with its KL the wrong way": (
        GRPO,
        "back.exp() - back - 1",
        "(-back).exp() - back - 1",
        {"KL estimate"},
    ),
    "GRPO over its padding": (GRPO, "/ batch.mask.sum(1)", "/ batch.mask.shape[1]", {"batches"}),
    "RLOO with half its gradient": (
        RLOO,
        "(batch.logps - batch.old_logps).sum(1)",
        "((batch.logps + batch.logps.detach()) / 2 - batch.old_logps).sum(1)",
        {"gradients"},
    ),
    "RLOO with other prompts' answers": (
        RLOO,
        "(same @ experience.rewards - experience.rewards) / (same.sum(1) - 1)",
        "2 * experience.rewards",
        {"advantages"},
    ),
    "advantages beyond the mask": (
        RLOO,
        "[:, None] * experience.mask)",
        "[:, None].expand(experience.mask.shape))",
        {"advantages"},
    ),
    "a batch mean": (RM, "values = ", "values = batch.chosen.mean() * 0.1 + ", {"batches"}),
    "an offset added": (OFFSET, "- offset)", "+ offset)", {"margin"}),
    "a margin added": (MARGIN_RM, "- batch.margin", "+ batch.margin", {"margin", "closed form"}),
    "a margin that is not read": (OFFSET, "- offset)", ")", {"margin"}),
    "an offset in the reward": (
        OFFSET,
        "rejected_rewards=rejected)",
        "rejected_rewards=rejected + offset)",
        {"margin"},
    ),
    "an offset without care for equal answers": (OFFSET, ".clamp(min=1e-6)", "", {"extremes"}),
    "a micro-batch's mean margin": (MARGIN_RM, "batch.margin", "batch.margin.mean()", {"batches"}),
    "a margin that is not declared": (OFFSET, "ReferencedMargin", "Referenced", {"contract"}),
    # TRL sorts the rows of a micro-batch, so that the accumulated gradient is not that of the batch.
    "AOT over a micro-batch": (
        AOT,
        "everyone = batch.batch\n    rank = (everyone.chosen - everyone.rejected).argsort().argsort()[batch.place]",
        "everyone = batch\n    rank = (everyone.chosen - everyone.rejected).argsort().argsort()",
        {"whole batch", "batches"},
    ),
    "AOT in the order of the rows": (
        AOT,
        ".argsort().argsort()[batch.place]",
        "[batch.place].argsort()",
        {"whole batch", "batches", "closed form"},
    ),
    "AOT that sorts nothing": (
        AOT,
        "values[rank]",
        "values[rank] * 0 + batch.ref_chosen - batch.ref_rejected",
        {"whole batch"},
    ),
    "a shift that forgets": (BCO, "mean + (float(rewards.mean()) - mean) * len(batch) / count", "0.0", {"whole batch"}),
    "a shift from the first row": (BCO, "float(rewards.mean())", "float(rewards[0])", {"whole batch", "batches"}),
    "a shift from a micro-batch": (
        BCO,
        'reward - batch.running["mean"]',
        "reward - reward.detach().mean()",
        {"whole batch", "batches", "gradients"},
    ),
    "a shift in the reward": (BCO, "rewards=reward", "rewards=-over", {"rewards"}),
    "BCO that shifts one side only": (
        BCO,
        "torch.where(batch.desirable, over, -over)",
        "torch.where(batch.desirable, over, reward)",
        {"signs"},
    ),
    "a weight with a gradient": (
        WEIGHTED,
        "(batch.confidence_chosen + batch.confidence_rejected).exp()",
        "(batch.chosen + batch.rejected).exp()",
        {"signs"},
    ),
    "first tokens of one side only": (
        FIRST,
        " - batch.prefix_rejected + batch.ref_prefix_rejected",
        "",
        {"signs"},
    ),
    "first tokens without their reference": (FIRST, " - batch.ref_prefix_chosen", "", {"closed form"}),
    "first tokens as the reward": (FIRST, "chosen_rewards=chosen,", "chosen_rewards=chosen + first,", {"rewards"}),
    "a reference that moves after no step": (MOVING, "lambda: 3", "lambda: 0", {"moving reference"}),
    "a section left out": (SFT, "Source:", "From:", {"documentation"}),
    "a parameter left out": (SFT, "beta: strength", "bet: strength", {"documentation"}),
    "a unit left out": (SFT, "per nat.", "a number.", {"documentation"}),
}

Write = Callable[[str], Algorithm]


@pytest.fixture
def loaded(tmp_path: Path) -> Write:
    """The method of a plugin file with this text."""

    def load(text: str) -> Algorithm:
        path = tmp_path / "planted.py"
        path.write_text(text, encoding="utf-8")
        (plugin,) = load_file(path)
        return plugin.algorithm

    return load


def failed(report: CheckReport) -> set[str]:
    return {check.name for check in report.having("failed")}


BUILT_IN = load_registry().plugins
OFFLINE = {
    name: plugin.algorithm for name, plugin in BUILT_IN.items() if isinstance(plugin.algorithm, OfflineAlgorithm)
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_method_passes(name: str) -> None:
    report = check_algorithm(BUILT_IN[name].algorithm)
    assert [check.name for check in report.checks] == CHECKS
    if report.having("unchecked"):
        with pytest.warns(UserWarning, match=f"{name} is unchecked in"):
            report.raise_for_failures()
        assert {check.name for check in report.having("passed")} == {"bounds", "documentation"}
        return
    report.raise_for_failures()
    wanted = {"contract", "signs", "responses", "batches"}
    if getattr(BUILT_IN[name].algorithm, "falls_with", "sides") == "nothing":
        wanted -= {"signs"}
    assert {check.name for check in report.having("passed")} >= wanted


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dpo", {"beta": 5.0, "divergence": "reverse_kl", "alpha": 0.5}),
        ("dpo", {"beta": 0.3, "divergence": "js_divergence", "alpha": 0.5}),
        ("dpo", {"beta": 0.3, "divergence": "alpha_divergence", "alpha": 1.0}),
        ("dpo_norm", {"beta": 10.0}),
        ("apo_zero", {"beta": 0.5}),
        ("apo_down", {"beta": 0.5}),
        ("apo_zero_unpaired", {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.5}),
        ("dpop", {"beta": 0.1, "penalty": 5.0}),
        ("hinge", {"beta": 0.5}),
        ("slic", {"beta": 0.1, "delta": 0.5, "nll_weight": 0.0}),
        ("exo", {"beta": 0.5, "flip_rate": 0.2}),
        ("nca", {"beta": 0.5}),
        ("sppo_hard", {"beta": 0.05}),
        ("discopop", {"beta": 0.5, "tau": 1.0}),
        ("alphapo", {"beta": 10.0, "gamma": 0.0, "alpha": 0.0}),
        ("alphapo", {"beta": 2.0, "gamma": 1.0, "alpha": -1.0}),
        ("cpo_simpo", {"beta": 2.0, "gamma": 0.0, "nll_weight": 0.0}),
        ("cal_dpo", {"beta": 0.1, "calibration_weight": 0.0}),
        ("kto", {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.5}),
        ("simpo", {"beta": 10.0, "gamma": 0.0}),
        ("orpo", {"lambda_": 0.0}),
        ("orpo", {"lambda_": 1.0}),
        ("rm", {"centering": 0.7}),
        ("poe_rm", {"noise": 0.0, "length_expert": True, "bias_rate": 1.0, "bias_weight": 1.0, "centering": 0.0}),
        ("odin_rm", {"length_weight": 0.0, "orthogonality": 0.5, "centering": 0.3}),
        ("robust_rm", {"epsilon": 0.5, "adversarial_weight": 0.25, "centering": 0.3}),
    ],
)
def test_built_in_method_passes_at_other_parameters(name: str, parameters: dict[str, Scalar]) -> None:
    report = check_algorithm(BUILT_IN[name].algorithm, **parameters)
    report.raise_for_failures()
    assert report.parameters == parameters


def test_closed_form_is_declared_where_there_is_one() -> None:
    for name, status in {"dpo": "passed", "kto": "passed", "rm": "passed", "simpo": "not applicable"}.items():
        (check,) = (check for check in check_algorithm(BUILT_IN[name].algorithm).checks if check.name == "closed form")
        assert check.status == status
        assert check.found


@pytest.mark.parametrize("name", TWINS)
def test_sound_twin_passes(loaded: Write, name: str) -> None:
    check_algorithm(loaded(TWINS[name].text)).raise_for_failures()


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_mistake_is_caught(loaded: Write, name: str) -> None:
    twin, sound, mistake, caught_by = MUTANTS[name]
    assert sound in twin.text
    report = check_algorithm(loaded(twin.text.replace(sound, mistake)))
    assert failed(report) == caught_by
    with pytest.raises(AssertionError, match="planted fails") as caught:
        report.raise_for_failures()
    for check in report.having("failed"):
        assert check.hint
        for said in (check.name, check.found, check.expected, check.hint):
            assert said in str(caught.value)


def span_off_by_three(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Counts the prompt's last three tokens as the response's."""
    return response_logps(model, [(prompt[:-3] or prompt[:1], (*prompt[-3:], *answer)) for prompt, answer in rows])


def late_by_three(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Leaves out the response's first three tokens where it has more."""
    return response_logps(
        model,
        [((*prompt, *answer[:3]), answer[3:]) if len(answer) > 3 else (prompt, answer) for prompt, answer in rows],
    )


@pytest.mark.parametrize("mutant", [span_off_by_three, late_by_three])
@pytest.mark.parametrize("name", ["dpo", "kto", "simpo", "orpo", "sft"])
def test_span_that_is_off_by_three_tokens_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any) -> None:
    monkeypatch.setattr(feeds, "response_logps", mutant)
    assert failed(check_algorithm(BUILT_IN[name].algorithm)) == {"responses"}


def test_score_of_another_token_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        feeds, "scores", lambda model, rows: scores(model, [(prompt, answer[:-1] or answer) for prompt, answer in rows])
    )
    assert failed(check_algorithm(BUILT_IN["rm"].algorithm)) == {"responses"}


def test_mismatched_answer_of_the_wrong_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "mismatched", lambda rows: list(range(len(rows))))
    assert failed(check_algorithm(BUILT_IN["kto"].algorithm)) == {"responses"}


class Unbounded(Parameter):
    """A hyper-parameter whose range is not enforced."""

    def parse(self, value: Any) -> Any:
        return value


def aliased(self: MovingReference, step: int, trained: Mapping[str, Tensor]) -> None:
    """The reference is the live weights, and goes where the policy goes."""
    if step % self.every == 0:
        self.weights = {name: weight.detach() for name, weight in trained.items()}


def late(self: MovingReference, step: int, trained: Mapping[str, Tensor]) -> None:
    """Counts the step to come."""
    follow(self, step - 1, trained)


def once(self: MovingReference, step: int, trained: Mapping[str, Tensor]) -> None:
    """Moves the first time only."""
    if not self.weights:
        follow(self, step, trained)


follow = MovingReference.follow


def moving(name: str) -> OfflineAlgorithm:
    return replace(OFFLINE[name], moving_reference=lambda: 16)


@pytest.mark.parametrize("name", ["tr_dpo", "kto", "aot"])
def test_reference_that_moves_passes(name: str) -> None:
    check_algorithm(moving(name)).raise_for_failures()


@pytest.mark.parametrize("mutant", [aliased, late, once])
@pytest.mark.parametrize("name", ["tr_dpo", "kto", "aot"])
def test_reference_that_moves_wrong_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any) -> None:
    monkeypatch.setattr(MovingReference, "follow", mutant)
    assert failed(check_algorithm(moving(name))) == {"moving reference"}


def resumes_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[Checkpoint], dict[str, Tensor]]) -> None:
    """A training goes on from another reference than the checkpoint's."""
    restore = State._restore

    def wrong(self: State, content: Checkpoint) -> None:
        content["reference"] = change(content)
        restore(self, content)

    monkeypatch.setattr(State, "_restore", wrong)


def test_reference_that_is_lost_by_a_kill_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    resumes_with(monkeypatch, lambda content: {})
    (check,) = check_algorithm(OFFLINE["tr_dpo"]).having("failed")
    assert check.name == "moving reference"
    assert "at step 4, killed after step 3 and resumed, ref_chosen is" in check.found
    assert "as the policy after step 2 says" in check.found


def test_reference_that_resumes_as_the_policy_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    resumes_with(monkeypatch, lambda content: content["weights"])
    assert failed(check_algorithm(OFFLINE["tr_dpo"])) == {"moving reference"}


def test_stored_reference_that_stays_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovingFeed, "record", lambda self, model, examples: self.feed.record(model, examples))
    assert failed(check_algorithm(OFFLINE["tr_dpo"])) == {"moving reference"}


def test_range_that_is_not_enforced_is_caught(loaded: Write) -> None:
    sound = loaded(DPO.text)
    beta = sound.parameters["beta"]
    loose = Unbounded(**{field.name: getattr(beta, field.name) for field in fields(beta)})
    assert failed(check_algorithm(replace(sound, parameters={"beta": loose}))) == {"bounds"}
    outside = replace(sound, parameters={"beta": replace(beta, default=-1.0)})
    assert "bounds" in failed(check_algorithm(outside))


def test_every_check_of_the_kit_has_a_mistake_that_it_catches() -> None:
    caught = set().union(*(names for *_, names in MUTANTS.values()))
    assert caught | {"responses", "bounds", "terms"} == set(CHECKS)


def sum_of(*names: str) -> SumOfLosses:
    return summed("added", {name: BUILT_IN[name].algorithm for name in names})


SUMS = [
    ("dpo", "bco", "sft"),
    ("cpo", "simpo"),
    ("odpo", "aot_unpaired", "ld_dpo", "wpo"),
    ("bco", "apo_zero_unpaired", "kto"),
    ("beta_dpo", "bco"),
    ("apo_down", "sft"),
    ("dpo", "kto"),
    ("aot", "bco", "kto"),
    ("tr_dpo", "sft"),
]


@pytest.mark.parametrize("names", SUMS, ids="+".join)
def test_a_sum_of_built_in_losses_passes(names: tuple[str, ...]) -> None:
    found = sum_of(*names)
    report = check_algorithm(found, **{f"{names[0]}.weight": 0.8})
    assert [check.name for check in report.checks] == CHECKS
    report.raise_for_failures()
    assert {"contract", "terms", "responses", "batches"} <= {check.name for check in report.having("passed")}
    other = sum_of(*reversed(names))
    assert (list(other.parameters), list(other.terms), other.paper) == (
        list(found.parameters),
        list(found.terms),
        found.paper,
    )


def test_a_sum_that_loses_a_weight_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sums._weighted

    def unweighted(algorithm: SumOfLosses, batch: Any, parameters: Any) -> Any:
        return real(algorithm, batch, {**parameters, "dpo.weight": 1.0})

    monkeypatch.setattr(sums, "_weighted", unweighted)
    assert failed(check_algorithm(sum_of("dpo", "sft"), **{"dpo.weight": 0.8})) == {"terms"}


def test_a_sum_that_swaps_the_sides_of_pairs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit reads pairs as single answers by the same code; signs and the feed's rows are its own."""
    real = sums._as_single

    def swapped(values: Any, rows: int) -> dict[str, Any]:
        found: dict[str, Any] = real(values, rows)
        return {**found, "desirable": ~found["desirable"]}

    monkeypatch.setattr(sums, "_as_single", swapped)
    assert "signs" in failed(check_algorithm(sum_of("apo_zero_unpaired", "dpo"), **{"dpo.weight": 0.1}))


def test_loss_that_is_not_written_yet_is_told_with_its_line(loaded: Write) -> None:
    text = replace(DPO, body='    raise NotImplementedError("nothing here")').text
    report = check_algorithm(loaded(text))
    (check,) = report.having("failed")
    assert check.name == "contract"
    assert "no loss yet: nothing here" in check.found
    line = 1 + text.splitlines().index('    raise NotImplementedError("nothing here")')
    assert check.hint.endswith(f"planted.py, line {line}")
    assert {check.name for check in report.having("passed")} == {"bounds", "documentation"}
    assert {check.found for check in report.having("unchecked")} == {"the loss has to run first"}


def test_loss_that_raises_is_told_with_its_line(loaded: Write) -> None:
    text = DPO.text.replace("batch.ref_chosen", "batch.ref_chosn")
    (check,) = check_algorithm(loaded(text)).having("failed")
    assert "AttributeError" in check.found
    assert "ref_chosn" in check.found
    assert check.hint.endswith(f"line {1 + next(i for i, line in enumerate(text.splitlines()) if 'chosn' in line)}")


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("a flipped sign", "signs", r"at the reference, row 0: ∂loss/∂chosen = 0\.05, expected below 0"),
        ("KTO with its second term's sign wrong", "signs", r"row 1: ∂loss/∂logps of a rejected answer = -0\.025"),
        (
            "lengths of the batch's longest answers",
            "batches",
            r"alone, without padding, example 0 has a loss .* of \[1\.07",
        ),
        ("ORPO without care at s̄ → 0", "extremes", r"a certain chosen answer .* ∂loss/∂chosen: \[nan, nan, nan"),
        ("no gradient", "contract", "the values carry no gradient"),
        ("no finite value", "contract", r"values are \[nan"),
        ("a wrong declaration", "closed form", "25, declared 100"),
        ("half a gradient", "gradients", r"mismatch for ∂loss/∂chosen, numerical:.* analytical:"),
        ("KL from own rows too", "KL estimate", "row 0 goes from .* when the other rows' own answers change"),
        ("KL with a gradient", "KL estimate", "∂loss/∂mismatched = "),
        ("a range that ends on a pole", "range ends", r"at beta=0\.5, which its range allows, the loss is \[-?inf"),
        ("a unit left out", "documentation", "no unit in Args for beta"),
    ],
)
def test_what_was_found_is_told_with_numbers(loaded: Write, name: str, check: str, said: str) -> None:
    twin, sound, mistake, _ = MUTANTS[name]
    found = {each.name: each.found for each in check_algorithm(loaded(twin.text.replace(sound, mistake))).checks}
    assert re.search(said, found[check])


def test_reference_that_is_not_declared_is_suggested(loaded: Write) -> None:
    twin, sound, mistake, _ = MUTANTS["a reference that is not declared"]
    (check,) = check_algorithm(loaded(twin.text.replace(sound, mistake))).having("failed")
    assert "declare reference=True" in check.hint


def test_margin_that_is_not_declared_is_suggested(loaded: Write) -> None:
    twin, sound, mistake, _ = MUTANTS["a margin that is not declared"]
    (check,) = check_algorithm(loaded(twin.text.replace(sound, mistake))).having("failed")
    assert "annotate the batch as a record with Margin in its name" in check.hint


def test_kind_without_checks_is_unchecked_and_not_passed() -> None:
    report = check_algorithm(replace(BUILT_IN["dpo"].algorithm, data="triples"))  # type: ignore[arg-type]
    unchecked = report.having("unchecked")
    assert {check.name for check in unchecked} == set(CHECKS) - {"bounds", "documentation"}
    assert {check.found for check in unchecked} == {"the kit has no checks for the data kind 'triples' yet"}
    with pytest.warns(UserWarning, match="dpo is unchecked in: contract, .*'triples'"):
        report.raise_for_failures()


def test_every_kind_that_training_feeds_has_checks() -> None:
    assert set(KINDS) == {*feeds.FEEDS, "rollouts"}


def test_parameter_out_of_range_is_told() -> None:
    with pytest.raises(PluginError, match=r"beta: got -1\.0, expected float > 0"):
        check_algorithm(BUILT_IN["dpo"].algorithm, beta=-1.0)


def test_random_numbers_of_the_caller_stay_as_they_were(loaded: Write) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_algorithm(loaded(SFT.text))
    assert torch.equal(torch.rand(2), expected)


SUMMED = '''
from align_bench.api import Loss, ReferencedPairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-5, reward="ρ")
def summed(logps: ReferencedPairLogps, *, target: float = 1.0) -> Loss:
    """Squared distance of the margin from a target.

    Equation:
        ℓ = (ρ_c − ρ_r − target)², ρ the log-ratio to the reference, a {what}

    Args:
        logps: nats.
        target: the margin, in nats.

    Returns:
        One value per pair, no unit; rewards in nats.

    Source:
        The tests.

    Differs from the source:
        In nothing.
    """
    chosen = logps.chosen - logps.ref_chosen
    rejected = logps.rejected - logps.ref_rejected
    return Loss((chosen - rejected - target) ** 2, chosen_rewards=chosen, rejected_rewards=rejected)
'''


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("mean per token", "failed", "its loss depends on length: answers twice as long"),
        ("sum over the answer", "not applicable", "its loss depends on length: answers twice as long"),
    ],
)
def test_a_text_that_says_mean_while_the_loss_sums_is_caught(tmp_path: Path, what: str, status: str, said: str) -> None:
    path = tmp_path / "summed.py"
    path.write_text(SUMMED.replace("{what}", what), encoding="utf-8")
    (plugin,) = load_file(path)
    (found,) = [check for check in check_algorithm(plugin.algorithm).checks if check.name == "length"]
    assert found.status == status
    assert said in found.found
    assert ("but its text says 'mean per token'" in found.found) == (status == "failed")
