"""Our losses against TRL's own trainers: same rows, same base, same adapter, in fp32.

Both sides start from the text of a few preferences. Ours go the way of a training: `data.chat.tokenize`, reference
log-probabilities of the plain base, `train.feeds`, the plugin, the mean. TRL's go through its trainer: dataset
preparation, collator, `compute_loss`. The trainer makes its own adapter on its own copy of the base; ours is then
copied into it (an adapter handed over would serve as the reference too). Token ids are compared before any loss is,
and with the loss its gradient by the adapter.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_bench.api import Experience, OfflineAlgorithm, OnlineAlgorithm, Rollouts, summed
from align_bench.api.docstrings import held_equal
from align_bench.data.chat import tokenize
from align_bench.data.planted import planted
from align_bench.evaluate.preference import mismatched_logps, prefix_logps, table_logps
from align_bench.models.base import Base, find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer, load_tokenizer
from align_bench.models.logprobs import token_logps as answer_logps
from align_bench.models.micro_batches import micro_batches
from align_bench.models.precision import Precision, resolve_precision
from align_bench.plugins.registry import load_registry
from align_bench.records import Message, Preference, PreferenceSet, Scalar, TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train.feeds import Reference, UnpairedFeed, feed_of, mismatched_sequence
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

# Newer transformers call it activation_checkpointing; older ones know no other name.
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")

MAX_LENGTH = 256
MAX_TOKENS = 256  # padded tokens a forward pass: several micro-batches a batch
Means = Mapping[str, Tensor]
LORA = Lora(r=4, alpha=8)
SETTINGS = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "max_length": MAX_LENGTH,
}


Case = tuple[str, dict[str, Any], dict[str, Any]]  # our method, its hyper-parameters, TRL's options
DPO_LOSSES: list[Case] = [
    ("dpo", {"beta": 0.1}, {"loss_type": "sigmoid", "beta": 0.1}),
    ("dpo", {"beta": 0.5}, {"loss_type": "sigmoid", "beta": 0.5}),
    ("dpo", {"beta": 0.3, "divergence": "js_divergence"}, {"beta": 0.3, "f_divergence_type": "js_divergence"}),
    (
        "dpo",
        {"beta": 0.3, "divergence": "alpha_divergence", "alpha": 0.7},
        {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    ),
    (
        "dpo",
        {"beta": 0.3, "divergence": "alpha_divergence", "alpha": 1.0},
        {"beta": 0.3, "f_divergence_type": "forward_kl"},
    ),
    ("ipo", {"tau": 0.1}, {"loss_type": "ipo", "beta": 0.1}),
    ("rdpo", {"beta": 0.3, "flip_rate": 0.2}, {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2}),
    ("dpo_norm", {"beta": 5.0}, {"loss_type": "sigmoid_norm", "beta": 5.0}),
    ("hinge", {"beta": 0.05}, {"loss_type": "hinge", "beta": 0.05}),
    ("hinge", {"beta": 1.0}, {"loss_type": "hinge", "beta": 1.0}),
    ("exo", {"beta": 0.3, "flip_rate": 0.01}, {"loss_type": "exo_pair", "beta": 0.3, "label_smoothing": 0.01}),
    ("nca", {"beta": 0.2}, {"loss_type": "nca_pair", "beta": 0.2}),
    ("sppo_hard", {"beta": 0.05}, {"loss_type": "sppo_hard", "beta": 0.05}),
    ("apo_zero", {"beta": 0.3}, {"loss_type": "apo_zero", "beta": 0.3}),
    ("apo_down", {"beta": 0.3}, {"loss_type": "apo_down", "beta": 0.3}),
    ("discopop", {"beta": 0.2, "tau": 0.05}, {"loss_type": "discopop", "beta": 0.2, "discopop_tau": 0.05}),
    ("discopop", {"beta": 0.2, "tau": 0.7}, {"loss_type": "discopop", "beta": 0.2, "discopop_tau": 0.7}),
    ("bco_pair", {"beta": 0.3}, {"loss_type": "bco_pair", "beta": 0.3}),
    ("aot", {"beta": 0.3, "flip_rate": 0.1}, {"loss_type": "aot", "beta": 0.3, "label_smoothing": 0.1}),
    ("aot_unpaired", {"beta": 0.3}, {"loss_type": "aot_unpaired", "beta": 0.3}),
    (
        "aot_unpaired",
        {"beta": 0.3, "flip_rate": 0.1},
        {"loss_type": "aot_unpaired", "beta": 0.3, "label_smoothing": 0.1},
    ),
    ("wpo", {"beta": 0.3}, {"loss_type": "sigmoid", "beta": 0.3, "use_weighting": True}),
    ("ld_dpo", {"beta": 0.3, "alpha": 0.4}, {"loss_type": "sigmoid", "beta": 0.3, "ld_alpha": 0.4}),
]
CPO_LOSSES: list[Case] = [
    ("cpo", {"beta": 0.02, "nll_weight": 0.7}, {"loss_type": "sigmoid", "beta": 0.02}),
    ("cpo_ipo", {"tau": 0.3, "nll_weight": 0.7}, {"loss_type": "ipo", "beta": 0.3}),
    ("slic", {"beta": 0.02, "delta": 1.0, "nll_weight": 0.7}, {"loss_type": "hinge", "beta": 0.02}),
    ("simpo", {"beta": 2.5, "gamma": 1.25}, {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 1.25}),
    ("simpo", {"beta": 2.0, "gamma": 0.0}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.0}),
    (
        "cpo_simpo",
        {"beta": 2.0, "gamma": 0.8, "nll_weight": 0.3},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8},
    ),
    (
        "alphapo",
        {"beta": 2.5, "gamma": 0.1, "alpha": 0.25},
        {"loss_type": "alphapo", "alpha": 0.25, "beta": 2.5, "simpo_gamma": 0.1},
    ),
    (
        "alphapo",
        {"beta": 2.0, "gamma": 0.5, "alpha": -0.5},
        {"loss_type": "alphapo", "alpha": -0.5, "beta": 2.0, "simpo_gamma": 0.5},
    ),
]
# TRL's loss that is not in the tables: `sft` is compared with `rpo` and in a sum.
NOT_IN_DPO_LOSSES = {"sft"}
NOT_IN_CPO_LOSSES: set[str] = set()


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return find_base(str(base_folder))


@pytest.fixture(scope="module")
def precision() -> Precision:
    return resolve_precision("fp32", device="cpu")


@pytest.fixture(scope="module")
def preferences() -> PreferenceSet:
    """Pairs of unequal lengths, all with prompts of their own."""
    pairs = {pair.prompt: pair for pair in planted("train", rows=40)}
    chosen = list(pairs.values())[:6]
    rows = [Preference(i, (Message("user", pair.prompt),), pair.chosen, pair.rejected) for i, pair in enumerate(chosen)]
    return PreferenceSet(tuple(rows), "test", {})


@pytest.fixture(scope="module")
def unpaired_preferences(preferences: PreferenceSet) -> PreferenceSet:
    """The same prompts with one answer each, desirable and undesirable ones mixed."""
    rows = [
        Preference(row.pair, row.prompt, row.chosen if row.pair % 3 else None, None if row.pair % 3 else row.rejected)
        for row in preferences.rows
    ]
    return PreferenceSet(tuple(rows), "test", {})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only wait for each other's threads, for minutes where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _device_restored() -> Iterator[None]:
    """TRL switches accelerate to the CPU for the whole process: undo it."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


# Our side.


def token_rows(base: Base, preferences: PreferenceSet) -> Sequence[TokenRow]:
    table = tokenize(load_tokenizer(base), preferences, max_length=MAX_LENGTH)
    assert table.counts == {"kept": len(preferences.rows), "truncated": 0}
    return table.rows


def our_model(base: Base, precision: Precision, *, scalar: bool = False, seed: int = 0) -> Any:
    """The base under an adapter that changes it: a fresh one has a zero factor."""
    frozen = load_scorer(base, precision, seed=5) if scalar else load_policy(base, precision)
    model = add_adapter(frozen, LORA, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=draw))
    return model


@cache
def offline(name: str) -> OfflineAlgorithm:
    """A method, or the sum of those with + between them."""
    registry = load_registry()
    if "+" in name:
        return summed(name, {term: registry[term].algorithm for term in name.split("+")})
    found = registry[name].algorithm
    assert isinstance(found, OfflineAlgorithm)
    return found


def our_reference(name: str, base: Base, precision: Precision, rows: Sequence[TokenRow]) -> Reference | None:
    algorithm = offline(name)
    if not algorithm.reference:
        return None
    reading = algorithm.reading
    return dict(stored(base, precision, tuple(rows), mismatched=reading.mismatched, prefix=reading.prefix))


@cache
def stored(
    base: Base, precision: Precision, rows: tuple[TokenRow, ...], *, mismatched: bool, prefix: bool
) -> Reference:
    """What the plain base says of rows, computed once for all methods that read the same of it."""
    plain = load_policy(base, precision)
    columns = table_logps(plain, rows, max_tokens=MAX_TOKENS)
    if mismatched:
        columns |= mismatched_logps(plain, rows, max_tokens=MAX_TOKENS)
    if prefix:
        columns |= prefix_logps(plain, rows, max_tokens=MAX_TOKENS)
    return columns


def our_means(
    name: str, model: Any, base: Base, precision: Precision, rows: Sequence[TokenRow], **parameters: Scalar
) -> Means:
    """The loss, rewards and metrics of all rows as one effective batch of several micro-batches."""
    algorithm = offline(name)
    feed = feed_of(algorithm, rows, our_reference(name, base, precision, rows))
    batch = range(len(feed.lengths))
    feed.begin(model, batch, MAX_TOKENS)
    parts = micro_batches(batch, feed.lengths, max_tokens=MAX_TOKENS)
    assert len(parts) > 1
    means: dict[str, Tensor] = {}
    for part in parts:
        loss = algorithm(feed.record(model, part), **parameters)
        values = {field: getattr(loss, field) for field in ("values", *algorithm.reward_fields)} | dict(loss.metrics)
        for key, value in values.items():
            means[key] = means.get(key, torch.zeros(())) + value.sum() / len(batch)
    return means


# TRL's side.


def conversations(preferences: PreferenceSet) -> Any:
    """The preferences as TRL's conversational dataset, with a label where a row has one answer."""
    from datasets import Dataset

    rows: list[dict[str, Any]] = []
    for row in preferences.rows:
        prompt = [{"role": turn.role, "content": turn.content} for turn in row.prompt]
        chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in (row.chosen, row.rejected))
        if row.chosen is None or row.rejected is None:
            desirable = row.chosen is not None
            rows.append({"prompt": prompt, "completion": chosen if desirable else rejected, "label": desirable})
        else:
            margin = {} if row.margin is None else {"margin": row.margin}
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, **margin})
    return Dataset.from_list(rows)


def fresh(base: Base, *, scalar: bool = False) -> dict[str, Any]:
    """New objects for one trainer, which changes what it is given."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = LoraConfig(
        task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
        r=LORA.r,
        lora_alpha=LORA.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"] if scalar else None,
    )
    if scalar:
        model = AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=1, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    return {"model": model, "processing_class": load_tokenizer(base), "peft_config": config}


def copy_adapter(ours: Any, theirs: Any) -> None:
    """Our adapter (and scalar head) into TRL's model; the names must be the same."""
    source = {name: value for name, value in ours.named_parameters() if value.requires_grad}
    target = {name: value for name, value in theirs.named_parameters() if value.requires_grad}
    assert source.keys() == target.keys()
    with torch.no_grad():
        for name, value in source.items():
            target[name].copy_(value)


def collated(trainer: Any) -> dict[str, Any]:
    """TRL's whole prepared dataset as one batch."""
    return dict(trainer.data_collator(list(trainer.train_dataset)))


def unpadded(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row[kept.bool()].tolist()) for row, kept in zip(ids, mask, strict=True)]


def answers(rows: Sequence[TokenRow], side: str) -> list[tuple[int, ...]]:
    return [getattr(row, side) for row in rows]


def whole(rows: Sequence[TokenRow], side: str) -> list[tuple[int, ...]]:
    return [row.prompt + answer for row, answer in zip(rows, answers(rows, side), strict=True)]


def logged(trainer: Any) -> Mapping[str, float]:
    """What the trainer noted of its one batch."""
    metrics = getattr(trainer, "_metrics", None) or trainer._stored_metrics
    return {name: values[-1] for name, values in metrics["train"].items()}


def assert_same_gradient(ours: Any, our_mean: Tensor, theirs: Any, their_mean: Tensor) -> None:
    """Both losses' gradients by the adapter, as one vector each."""
    found = []
    for model, mean in ((ours, our_mean), (theirs, their_mean)):
        by_name = {name: value for name, value in model.named_parameters() if value.requires_grad}
        names = sorted(by_name)
        gradient = torch.autograd.grad(mean, [by_name[name] for name in names])
        found.append(torch.cat([part.flatten() for part in gradient]))
    assert found[0].norm() > 0
    assert (found[0] - found[1]).norm() < 1e-4 * found[0].norm()


def close(value: float, nats: float = 0.0) -> Any:
    """Equal in fp32; means of log-ratios, whose terms cancel, have an absolute error of the log-probabilities' size."""
    return pytest.approx(value, rel=1e-4, abs=nats)


# The comparisons.


@pytest.mark.parametrize("centering", [0.0, 0.05])
def test_rm_equals_trl(
    tmp_path: Path, base: Base, precision: Precision, preferences: PreferenceSet, centering: float
) -> None:
    """RewardTrainer.compute_loss with the same scalar head; `centering` is its `center_rewards_coefficient`."""
    from trl import RewardConfig, RewardTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision, scalar=True)
    ours = our_means("rm", model, base, precision, rows, centering=centering)
    config = RewardConfig(output_dir=str(tmp_path), center_rewards_coefficient=centering, **SETTINGS)
    trainer = RewardTrainer(args=config, train_dataset=conversations(preferences), **fresh(base, scalar=True))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    assert unpadded(batch["input_ids"], batch["attention_mask"]) == whole(rows, "chosen") + whole(rows, "rejected")
    theirs = trainer.compute_loss(trainer.model, batch)
    assert ours["values"].item() == close(theirs.item())
    assert_same_gradient(model, ours["values"], trainer.model, theirs)


@pytest.mark.parametrize("centering", [0.0, 0.05])
def test_margin_rm_equals_trl(
    tmp_path: Path, base: Base, precision: Precision, preferences: PreferenceSet, centering: float
) -> None:
    """RewardTrainer.compute_loss of rows with a column `margin`, which it subtracts from the difference of scores."""
    from trl import RewardConfig, RewardTrainer

    margins = [0.0, 0.5, 1.0, 2.5, -0.75, 3.0]
    marked = [replace(row, margin=margin) for row, margin in zip(preferences.rows, margins, strict=True)]
    preferences = replace(preferences, rows=tuple(marked))
    rows = token_rows(base, preferences)
    assert [row.margin for row in rows] == margins
    model = our_model(base, precision, scalar=True)
    ours = our_means("margin_rm", model, base, precision, rows, scale=1.0, centering=centering)
    config = RewardConfig(output_dir=str(tmp_path), center_rewards_coefficient=centering, **SETTINGS)
    trainer = RewardTrainer(args=config, train_dataset=conversations(preferences), **fresh(base, scalar=True))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    assert unpadded(batch["input_ids"], batch["attention_mask"]) == whole(rows, "chosen") + whole(rows, "rejected")
    assert batch["margin"].tolist() == margins
    theirs = trainer.compute_loss(trainer.model, batch)
    plain = our_means("rm", model, base, precision, rows, centering=centering)
    assert ours["values"].item() == close(theirs.item()) != close(plain["values"].item())
    assert_same_gradient(model, ours["values"], trainer.model, theirs)


@pytest.mark.parametrize(("name", "parameters", "theirs"), DPO_LOSSES)
def test_dpo_and_its_kin_equal_trl(
    tmp_path: Path,
    base: Base,
    precision: Precision,
    preferences: PreferenceSet,
    name: str,
    parameters: dict[str, float],
    theirs: dict[str, Any],
) -> None:
    """DPOTrainer.compute_loss; its reference is its model with the adapter off, ours the stored log-probabilities.

    TRL has no conservative DPO: it ignores `label_smoothing` for the logistic loss.
    """
    from trl import DPOConfig, DPOTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision)
    ours = our_means(name, model, base, precision, rows, **parameters)
    config = DPOConfig(output_dir=str(tmp_path), **theirs, **SETTINGS)
    trainer = DPOTrainer(args=config, train_dataset=conversations(preferences), **fresh(base))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    assert unpadded(batch["input_ids"], batch["attention_mask"]) == whole(rows, "chosen") + whole(rows, "rejected")
    assert unpadded(batch["input_ids"], batch["completion_mask"]) == answers(rows, "chosen") + answers(rows, "rejected")
    value = trainer.compute_loss(trainer.model, batch)
    assert ours["values"].item() == close(value.item())
    # TRL notes β·ρ for the others too, and for LD-DPO those of weighted tokens.
    if offline(name).reward == "β·ρ" and "divergence" not in parameters and name != "ld_dpo":
        assert ours["chosen_rewards"].item() == close(logged(trainer)["rewards/chosen"], nats=1e-4)
        assert ours["rejected_rewards"].item() == close(logged(trainer)["rewards/rejected"], nats=1e-4)
    assert_same_gradient(model, ours["values"], trainer.model, value)


def test_every_loss_of_trl_is_compared_or_named() -> None:
    """A newer TRL with one more loss fails here."""
    from trl import DPOTrainer, KTOTrainer
    from trl.experimental.cpo import CPOTrainer

    compared = {options.get("loss_type", "sigmoid") for _, _, options in DPO_LOSSES}
    assert loss_types(DPOTrainer._compute_loss) == compared | NOT_IN_DPO_LOSSES
    # AlphaPO is SimPO with another reward.
    compared = {options["loss_type"] for _, _, options in CPO_LOSSES} - {"alphapo"}
    assert loss_types(CPOTrainer.cpo_loss) == compared | NOT_IN_CPO_LOSSES
    assert loss_types(KTOTrainer._compute_loss) == {"kto", "apo_zero_unpaired"}


def test_what_docstrings_say_of_trl_is_what_is_compared() -> None:
    compared = {name for name, *_ in (*DPO_LOSSES, *CPO_LOSSES)}
    compared |= {"rm", "margin_rm", "kto", "apo_zero_unpaired", "orpo", "rpo", "sft", "rloo", "grpo"}
    said = {
        name
        for name, plugin in load_registry().plugins.items()
        if held_equal(plugin.algorithm.doc).startswith("TRL, in value and gradient")
    }
    assert said == compared


def loss_types(function: Any) -> set[str]:
    """The loss types that a trainer's code tells apart."""
    return set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(function)))


def test_rpo_equals_trl_but_for_the_weight_of_long_answers(
    tmp_path: Path, base: Base, precision: Precision, preferences: PreferenceSet
) -> None:
    """DPOTrainer with `sigmoid` and `sft`, whose likelihood is a mean over all answer tokens; ours is over answers."""
    from trl import DPOConfig, DPOTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision)
    ours = our_means("rpo", model, base, precision, rows, beta=0.3, nll_weight=0.7)
    config = DPOConfig(
        output_dir=str(tmp_path), beta=0.3, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7], **SETTINGS
    )
    trainer = DPOTrainer(args=config, train_dataset=conversations(preferences), **fresh(base))
    copy_adapter(model, trainer.model)
    over_tokens, over_answers = likelihoods(trainer.model, rows)
    adjusted = trainer.compute_loss(trainer.model, collated(trainer)) + 0.7 * (over_answers - over_tokens)
    assert ours["values"].item() == close(adjusted.item())
    assert_same_gradient(model, ours["values"], trainer.model, adjusted)


def test_a_sum_equals_trl_but_for_the_weight_of_long_answers(
    tmp_path: Path, base: Base, precision: Precision, preferences: PreferenceSet
) -> None:
    """DPOTrainer with MPO's three losses and their weights: value, gradient, and each term, of one pass of ours."""
    from trl import DPOConfig, DPOTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision)
    weights = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    given = {"dpo.beta": 0.3, "dpo.weight": 0.8, "bco_pair.beta": 0.3, "bco_pair.weight": 0.2, "sft.weight": 1.0}
    name = "sft+dpo+bco_pair"
    ours = our_means(name, model, base, precision, rows, **offline(name).resolve(given))
    config = DPOConfig(
        output_dir=str(tmp_path), beta=0.3, loss_type=list(weights), loss_weights=list(weights.values()), **SETTINGS
    )
    trainer = DPOTrainer(args=config, train_dataset=conversations(preferences), **fresh(base))
    copy_adapter(model, trainer.model)
    over_tokens, over_answers = likelihoods(trainer.model, rows)
    adjusted = trainer.compute_loss(trainer.model, collated(trainer)) + over_answers - over_tokens
    assert ours["values"].item() == close(adjusted.item())
    assert ours["sft.loss"].item() == close(over_answers.item())
    alone = 0.8 * ours["dpo.loss"] + 0.2 * ours["bco_pair.loss"] + ours["sft.loss"]
    assert ours["values"].item() == close(alone.item())
    assert_same_gradient(model, ours["values"], trainer.model, adjusted)


@pytest.mark.parametrize(("name", "parameters", "theirs"), CPO_LOSSES)
def test_cpo_and_its_kin_equal_trl_but_for_the_weight_of_long_answers(
    tmp_path: Path,
    base: Base,
    precision: Precision,
    preferences: PreferenceSet,
    name: str,
    parameters: dict[str, float],
    theirs: dict[str, Any],
) -> None:
    """CPOTrainer.compute_loss, whose likelihood is a mean over all answer tokens too.

    Its `simpo_gamma` is our γ: it is divided by β and then multiplied by it, and is not the ratio γ/β.
    """
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision)
    ours = our_means(name, model, base, precision, rows, **parameters)
    weight = parameters.get("nll_weight", 0.0)
    config = CPOConfig(output_dir=str(tmp_path), **{"cpo_alpha": weight, **theirs}, **SETTINGS)
    trainer = CPOTrainer(args=config, train_dataset=conversations(preferences), **fresh(base))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    assert_same_pair_tokens(batch, rows)
    value = trainer.compute_loss(trainer.model, batch)
    over_tokens, over_answers = likelihoods(trainer.model, rows)
    adjusted = value + weight * (over_answers - over_tokens)
    assert ours["values"].item() == close(adjusted.item())
    noted = parameters["tau"] if name == "cpo_ipo" else 1.0  # its s̄ × β, as of all others
    assert noted * ours["chosen_rewards"].item() == close(logged(trainer)["rewards/chosen"])
    assert noted * ours["rejected_rewards"].item() == close(logged(trainer)["rewards/rejected"])
    assert_same_gradient(model, ours["values"], trainer.model, adjusted)


@pytest.mark.parametrize(
    ("name", "clamped"),
    [("kto", False), ("kto", True), ("apo_zero_unpaired", False)],
    ids=["drifted", "clamped", "without drift"],
)
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_kto_and_its_kin_equal_trl(
    tmp_path: Path,
    base: Base,
    precision: Precision,
    preferences: PreferenceSet,
    unpaired_preferences: PreferenceSet,
    paired: bool,
    name: str,
    clamped: bool,
) -> None:
    """KTOTrainer.compute_loss over the whole table as one batch, drift included.

    Ours holds a prompt against the answer of the next row. TRL rotates completions by one the other way, within
    blocks of `per_device_train_batch_size` rows, and turns pairs into all chosen and then all rejected rows. So with
    the rows in reverse and blocks of as many rows as there are prompts, both have the same mismatched sequences, which
    is asserted. The adapter is one whose drift is above 0, or one whose drift is below and clamped. A loss that reads
    no drift gets no mismatched sequences from TRL.
    """
    from trl import KTOConfig, KTOTrainer

    given = preferences if paired else unpaired_preferences
    parameters = {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.7}
    rows = token_rows(base, given)
    for seed in range(20):
        model = our_model(base, precision, seed=seed)
        ours = our_means("kto", model, base, precision, rows, **parameters)
        if (ours["drift"].item() == 0) is clamped:
            break
    assert (ours["drift"].item() == 0) is clamped
    drifting = name == "kto"
    if not drifting:
        ours = our_means(name, model, base, precision, rows, **parameters)
    backwards = PreferenceSet(given.rows[::-1], given.shape, given.counts)
    options = {"loss_type": name, "per_device_train_batch_size": len(rows), **parameters}
    config = KTOConfig(output_dir=str(tmp_path), **options, **SETTINGS)
    trainer = KTOTrainer(args=config, train_dataset=conversations(backwards), **fresh(base))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    feed = UnpairedFeed(rows, None)
    # Our examples in TRL's order.
    order = sorted(feed.examples, key=lambda example: (example[1] if paired else "", -example[0]))
    matched = [(rows[index].prompt, getattr(rows[index], side)) for index, side in order]
    mismatched = [mismatched_sequence(rows, feed.partner, index, side) for index, side in order]
    assert batch["label"].tolist() == [side == "chosen" for _, side in order]
    for prefix, sequences in (("", matched), ("KL_", mismatched))[: 1 + drifting]:
        ids, mask, answer = (batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "completion_mask"))
        assert unpadded(ids, mask) == [(*prompt, *response) for prompt, response in sequences]
        assert unpadded(ids, answer) == [response for _, response in sequences]
    theirs = trainer.compute_loss(trainer.model, batch)
    assert ours["values"].item() == close(theirs.item())
    noted, share = logged(trainer), batch["label"].float().mean().item()
    if drifting:
        assert ours["drift"].item() == close(noted["kl"], nats=1e-4)
    both = share * noted["rewards/chosen"] + (1 - share) * noted["rewards/rejected"]
    assert ours["rewards"].item() == close(both, nats=1e-4)
    assert_same_gradient(model, ours["values"], trainer.model, theirs)


@pytest.mark.parametrize("lambda_", [0.1, 1.0])
def test_orpo_equals_trl_but_for_the_prompt(
    tmp_path: Path, base: Base, precision: Precision, preferences: PreferenceSet, lambda_: float
) -> None:
    """ORPOTrainer.compute_loss, split into its terms.

    The odds-ratio term is the same. TRL's likelihood term is the mean over all tokens of the batch, prompts included;
    ours is each answer's own mean. Both are computed anew here, token by token, from the plain model's logits, and the
    two losses differ by exactly that.
    """
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    rows = token_rows(base, preferences)
    model = our_model(base, precision)
    ours = our_means("orpo", model, base, precision, rows, lambda_=lambda_)
    config = ORPOConfig(output_dir=str(tmp_path), beta=lambda_, **SETTINGS)
    trainer = ORPOTrainer(args=config, train_dataset=conversations(preferences), **fresh(base))
    copy_adapter(model, trainer.model)

    batch = collated(trainer)
    assert_same_pair_tokens(batch, rows)
    theirs = trainer.compute_loss(trainer.model, batch)
    terms = logged(trainer)

    assert ours["log_odds_ratio"].item() == close(terms["log_odds_chosen"])
    assert ours["chosen_rewards"].item() == close(terms["rewards/chosen"])
    assert ours["rejected_rewards"].item() == close(terms["rewards/rejected"])
    # TRL's `log_odds_ratio` is the log-sigmoid, its `logps/chosen` the mean of s̄_w: without its term, ours is that.
    assert ours["values"].item() + lambda_ * terms["log_odds_ratio"] == close(-terms["logps/chosen"])

    per_token = [token_logps(trainer.model, ids) for ids in whole(rows, "chosen")]
    nll_all, nll_answers = -torch.cat(per_token).mean(), likelihoods(trainer.model, rows)[1]
    assert terms["nll_loss"] == close(nll_all.item())
    assert nll_all.item() != pytest.approx(nll_answers.item(), rel=1e-3)
    adjusted = theirs - nll_all + nll_answers
    assert ours["values"].item() == close(adjusted.item())
    assert_same_gradient(model, ours["values"], trainer.model, adjusted)


def assert_same_pair_tokens(batch: Mapping[str, Any], rows: Sequence[TokenRow]) -> None:
    """For CPO and ORPO, whose label −100 marks the prompt and the padding."""
    for side in ("chosen", "rejected"):
        ids, mask, labels = (batch[f"{side}_{name}"] for name in ("input_ids", "attention_mask", "labels"))
        assert unpadded(ids, mask) == whole(rows, side)
        assert unpadded(ids, labels != -100) == answers(rows, side)


def likelihoods(model: Any, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the chosen answers: a mean over their tokens, and over answers of their own means."""
    each = [
        token_logps(model, ids)[-len(answer) :]
        for ids, answer in zip(whole(rows, "chosen"), answers(rows, "chosen"), strict=True)
    ]
    return -torch.cat(each).mean(), -torch.stack([logps.mean() for logps in each]).mean()


def token_logps(model: Any, ids: Sequence[int]) -> Tensor:
    """log π of every token but the first, by the model's own logits."""
    tokens = torch.tensor([ids])
    logps: Tensor = model(input_ids=tokens).logits.log_softmax(-1)
    return logps[0, :-1].gather(1, tokens[0, 1:, None]).squeeze(1)


def test_the_adapter_moves_the_policy_off_the_reference(
    base: Base, precision: Precision, preferences: PreferenceSet
) -> None:
    """Else every comparison with a reference would compare ln 2 with ln 2."""
    rows = token_rows(base, preferences)
    policy = table_logps(our_model(base, precision), rows, max_tokens=MAX_TOKENS)
    reference = table_logps(load_policy(base, precision), rows, max_tokens=MAX_TOKENS)
    ratio = policy["chosen"] - reference["chosen"]
    assert ratio.abs().mean() > 0.5


@pytest.mark.parametrize("name", ["rm", "dpo", "kto", "simpo", "orpo"])
def test_the_training_loop_takes_the_compared_loss(
    base: Base, precision: Precision, preferences: PreferenceSet, name: str
) -> None:
    """The first step that `train` logs has the loss and the gradient that are compared with TRL's above."""
    rows = token_rows(base, preferences)
    model = our_model(base, precision, scalar=name == "rm")
    algorithm = offline(name)
    means = our_means(name, model, base, precision, rows, **algorithm.resolve({}))
    gradient = torch.autograd.grad(means["values"], [value for value in model.parameters() if value.requires_grad])
    job = TrainingJob(
        model=model,
        rows=rows,
        algorithm=algorithm,
        parameters=algorithm.resolve({}),
        learning_rate=1e-4,
        settings=Train(batch_size=2 * len(rows), micro_batch_tokens=MAX_TOKENS),
        seed=0,
    )
    log = train(job, our_reference(name, base, precision, rows))
    assert log.steps[0]["loss"] == close(means["values"].item())
    norm = torch.cat([part.flatten() for part in gradient]).norm().item()
    assert log.steps[0]["gradient_norm"] == close(norm)


# Online methods: TRL writes the answers, both sides judge and update on them.


@dataclass(frozen=True)
class Sampled:
    """One batch of answers that TRL's trainer wrote, scored by a made-up reward, and ours of the same.

    Attributes:
        trainer, batch: TRL's trainer and what it made of its batch.
        model: our model, under the same adapter.
        sequences: prompt and answer ids of each row.
        experience: what our loop hands to an advantage function.
    """

    trainer: Any
    batch: Mapping[str, Any]
    model: Any
    sequences: list[tuple[tuple[int, ...], tuple[int, ...]]]
    experience: Experience

    def move(self) -> None:
        """A step of either adapter, so that ratios leave 1."""
        draw = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.03 * torch.randn(parameter.shape, generator=draw))
        copy_adapter(self.model, self.trainer.model)


def sampled(
    trainer_class: Any, config: Any, base: Base, precision: Precision, preferences: PreferenceSet, samples: int
) -> Sampled:
    rewards: list[float] = []

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        rewards.extend(math.sin(sum(ids)) * len(ids) for ids in completion_ids)
        return rewards

    given = conversations(preferences).select_columns("prompt")
    model = our_model(base, precision)
    trainer = trainer_class(args=config, reward_funcs=reward, train_dataset=given, **fresh(base))
    copy_adapter(model, trainer.model)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([row for row in given for _ in range(samples)])
    prompts = unpadded(batch["prompt_ids"], batch["prompt_mask"])
    answered = unpadded(batch["completion_ids"], batch["completion_mask"])
    sequences = list(zip(prompts, answered, strict=True))
    with torch.no_grad():
        logps, _ = answer_logps(model, sequences)
        with model.disable_adapter():
            ref_logps, _ = answer_logps(model, sequences)
    lengths = torch.tensor([len(answer) for answer in answered])
    assert len(set(lengths.tolist())) > 1
    experience = Experience(
        rewards=torch.tensor(rewards),
        group=torch.arange(len(given)).repeat_interleave(samples),
        mask=torch.arange(logps.shape[1]) < lengths[:, None],
        logps=logps,
        ref_logps=ref_logps,
    )
    return Sampled(trainer, batch, model, sequences, experience)


@pytest.mark.parametrize(
    ("name", "parameters", "options"),
    [
        ("rloo", {"kl_coef": 0.1, "clip": 0.2}, {"beta": 0.1}),
        ("rloo", {"kl_coef": 0.0, "clip": 0.6}, {"beta": 0.0, "epsilon": 0.6}),
        # By default TRL multiplies the KL estimate by the ratio; the paper, and ours, does not.
        ("grpo", {"kl_coef": 0.1, "clip": 0.2}, {"beta": 0.1, "loss_type": "grpo", "use_bias_correction_kl": False}),
        ("grpo", {"kl_coef": 0.0, "clip": 0.05}, {"beta": 0.0, "epsilon": 0.05, "loss_type": "grpo"}),
    ],
)
def test_rloo_and_grpo_equal_trl(
    tmp_path: Path,
    base: Base,
    precision: Precision,
    preferences: PreferenceSet,
    name: str,
    parameters: Mapping[str, float],
    options: Mapping[str, Any],
) -> None:
    """Advantages of the trainers' own answers; after a step of the policy, value and gradient of `_compute_loss`."""
    import trl

    trainers = {"rloo": (trl.RLOOTrainer, trl.RLOOConfig), "grpo": (trl.GRPOTrainer, trl.GRPOConfig)}
    trainer_class, config_class = trainers[name]
    settings = {key: value for key, value in SETTINGS.items() if key != "max_length"}
    samples, size = 3, 3 * len(preferences.rows)
    config = config_class(
        output_dir=str(tmp_path),
        num_generations=samples,
        per_device_train_batch_size=size,
        max_completion_length=48,
        num_iterations=2,  # with one update a batch, TRL takes the new log-probabilities for the old ones
        seed=3,
        **settings,
        **options,
    )
    found = sampled(trainer_class, config, base, precision, preferences, samples)
    algorithm = load_registry()[name].algorithm
    assert isinstance(algorithm, OnlineAlgorithm)
    resolved = algorithm.resolve(parameters)
    made = algorithm.advantages(found.experience, resolved)
    assert made.advantages[:, 0].tolist() == pytest.approx(found.batch["advantages"].tolist(), rel=1e-3, abs=1e-4)
    assert made.advantages[:, 0].abs().max() > 0.1

    found.move()
    given = found.experience
    logps, _ = answer_logps(found.model, found.sequences)
    record = Rollouts(
        logps=logps,
        old_logps=given.logps,
        ref_logps=given.ref_logps,
        mask=given.mask,
        advantages=made.advantages,
        mean_tokens=float(given.mask.sum()) / len(given.mask),
    )
    loss = algorithm(record, **resolved)
    assert 0 < float(loss.metrics["clip_fraction"].mean()) < 1, "some ratios are beyond the clip"
    theirs = found.trainer._compute_loss(found.trainer.model, found.batch)
    assert loss.values.mean().item() == close(theirs.item(), nats=1e-4)
    assert_same_gradient(found.model, loss.values.mean(), found.trainer.model, theirs)
