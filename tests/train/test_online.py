"""Online methods: advantages and losses against scalar arithmetic, and a loop that raises the reward and survives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from align_bench.api import (
    Advantages,
    CriticAdvantages,
    CriticExperience,
    CriticRollouts,
    Experience,
    Loss,
    OnlineAlgorithm,
    Rollouts,
    online,
)
from align_bench.errors import PluginError
from align_bench.models import cuda_graphs, decode_steps, layout
from align_bench.models import generate as generation
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy, load_tokenizer
from align_bench.models.logprobs import response_logps, token_logps
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train import online as training
from align_bench.train import steps
from align_bench.train.job import TrainingJob
from align_bench.train.online import train_online
from tests.checkpointed import checkpointed_layers
from tests.recorded import StandIn

FP32 = Precision("fp32", "float32", "cpu")
LENGTHS = [3, 1, 5, 2, 4, 2]
GROUPS = [0, 0, 0, 1, 1, 2]
METHODS = ["ppo", "rloo", "grpo"]


@pytest.fixture(scope="module")
def methods() -> dict[str, OnlineAlgorithm]:
    return {name: built_in(name) for name in METHODS}


def built_in(name: str) -> OnlineAlgorithm:
    found = load_registry()[name].algorithm
    assert isinstance(found, OnlineAlgorithm)
    return found


def ragged(seed: int, scale: float = 1.0) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.gauss(-2, scale) for _ in range(length)] for length in LENGTHS]


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    found = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.float64)
    for row, values in enumerate(rows):
        found[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
    return found


MASK = padded([[1.0] * length for length in LENGTHS]).bool()
REWARDS = [0.5, -1.0, 2.0, 0.25, 1.5, -0.75]


def experience(*, critic: bool) -> tuple[Experience, dict[str, list[list[float]]]]:
    lists = {"logps": ragged(1), "ref_logps": ragged(2), "values": ragged(3)}
    given = (torch.tensor(REWARDS, dtype=torch.float64), torch.tensor(GROUPS), MASK)
    logps, ref_logps, values = (padded(lists[name]) for name in ("logps", "ref_logps", "values"))
    if critic:
        return CriticExperience(*given, logps, ref_logps, values), lists
    return Experience(*given, logps, ref_logps), lists


# Advantages.


def test_gae_equals_the_sum_of_discounted_deltas(methods: dict[str, OnlineAlgorithm]) -> None:
    given, lists = experience(critic=True)
    parameters = methods["ppo"].resolve({"kl_coef": 0.3, "discount": 0.9, "gae_lambda": 0.8})
    made = methods["ppo"].advantages(given, parameters)
    plain, returns = [], []
    for row, length in enumerate(LENGTHS):
        logps, ref, values = (lists[name][row] for name in ("logps", "ref_logps", "values"))
        rewards = [-0.3 * (logps[step] - ref[step]) for step in range(length)]
        rewards[-1] += REWARDS[row]
        after = [*values[1:], 0.0]
        delta = [rewards[step] + 0.9 * after[step] - values[step] for step in range(length)]
        plain.append([sum((0.9 * 0.8) ** (k - step) * delta[k] for k in range(step, length)) for step in range(length)])
        returns.append([advantage + value for advantage, value in zip(plain[-1], values, strict=True)])
    every = [value for row in plain for value in row]
    mean = math.fsum(every) / len(every)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in every) / len(every))
    expected = padded([[(value - mean) / deviation for value in row] for row in plain])
    torch.testing.assert_close(made.advantages, expected, rtol=1e-6, atol=1e-7)
    assert isinstance(made, CriticAdvantages)
    torch.testing.assert_close(made.returns, padded(returns), rtol=1e-12, atol=1e-12)


def test_rloo_compares_with_the_other_answers_to_the_prompt(methods: dict[str, OnlineAlgorithm]) -> None:
    given, lists = experience(critic=False)
    made = methods["rloo"].advantages(given, methods["rloo"].resolve({"kl_coef": 0.3}))
    total = [
        reward - 0.3 * (sum(logps) - sum(ref))
        for reward, logps, ref in zip(REWARDS, lists["logps"], lists["ref_logps"], strict=True)
    ]
    for row, group in enumerate(GROUPS):
        others = [total[other] for other in range(len(total)) if GROUPS[other] == group and other != row]
        expected = total[row] - sum(others) / len(others) if others else 0.0
        assert made.advantages[row][MASK[row]].tolist() == pytest.approx([expected] * LENGTHS[row], abs=1e-12)
    assert (made.advantages[~MASK] == 0).all()


def test_grpo_counts_in_standard_deviations_of_the_prompt(methods: dict[str, OnlineAlgorithm]) -> None:
    given, _ = experience(critic=False)
    made = methods["grpo"].advantages(given, methods["grpo"].resolve({}))
    for row, group in enumerate(GROUPS):
        several = [reward for reward, other in zip(REWARDS, GROUPS, strict=True) if other == group]
        mean = sum(several) / len(several)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in several) / (len(several) - 1)) if len(several) > 1 else 0.0
        expected = (REWARDS[row] - mean) / (deviation + 1e-4)
        assert made.advantages[row, 0].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


# Losses.


def rollouts(*, critic: bool) -> Rollouts:
    """Ratios on both sides of the clip, advantages of both signs."""
    old = ragged(5)
    count = sum(LENGTHS)
    logps = padded(old) + padded(ragged(6, 0.4)) * MASK + 2 * MASK
    advantages = padded(ragged(8)) * MASK + 2 * MASK
    given = (logps, padded(old), padded(ragged(7)), MASK, advantages, count / len(LENGTHS))
    if critic:
        returns, values, old_values = (padded(ragged(seed)) for seed in (9, 10, 11))
        return CriticRollouts(*given, values=values, old_values=old_values, returns=returns)
    return Rollouts(*given)


def each_token(batch: Rollouts) -> list[list[dict[str, float]]]:
    names = [name for name in type(batch).__dataclass_fields__ if isinstance(getattr(batch, name), Tensor)]
    return [
        [{name: getattr(batch, name)[row, step].item() for name in names} for step in range(length)]
        for row, length in enumerate(LENGTHS)
    ]


def clipped(token: dict[str, float], clip: float) -> float:
    ratio = math.exp(token["logps"] - token["old_logps"])
    bounded = min(max(ratio, 1 - clip), 1 + clip)
    return max(-token["advantages"] * ratio, -token["advantages"] * bounded)


def test_ppo_equals_scalar_arithmetic(methods: dict[str, OnlineAlgorithm]) -> None:
    batch = rollouts(critic=True)
    loss = methods["ppo"](batch, **methods["ppo"].resolve({"clip": 0.25, "value_clip": 0.5, "value_weight": 0.3}))
    total = 0.0
    for row in each_token(batch):
        for token in row:
            moved = min(max(token["values"] - token["old_values"], -0.5), 0.5)
            near = token["old_values"] + moved
            missed = max((token["values"] - token["returns"]) ** 2, (near - token["returns"]) ** 2)
            total += clipped(token, 0.25) + 0.3 * 0.5 * missed
    assert loss.values.mean().item() == pytest.approx(total / sum(LENGTHS), rel=1e-12)  # the mean over all tokens


def test_rloo_equals_scalar_arithmetic(methods: dict[str, OnlineAlgorithm]) -> None:
    batch = rollouts(critic=False)
    batch = replace(batch, advantages=batch.advantages[:, :1] * MASK)
    loss = methods["rloo"](batch, **methods["rloo"].resolve({"clip": 0.25}))
    for row, tokens in enumerate(each_token(batch)):
        whole = {name: sum(token[name] for token in tokens) for name in ("logps", "old_logps")}
        expected = clipped({**whole, "advantages": tokens[0]["advantages"]}, 0.25)
        assert loss.values[row].item() == pytest.approx(expected, rel=1e-12)


def test_grpo_equals_scalar_arithmetic(methods: dict[str, OnlineAlgorithm]) -> None:
    batch = rollouts(critic=False)
    loss = methods["grpo"](batch, **methods["grpo"].resolve({"clip": 0.25, "kl_coef": 0.3}))
    for row, tokens in enumerate(each_token(batch)):
        back = [token["ref_logps"] - token["logps"] for token in tokens]
        values = [clipped(token, 0.25) + 0.3 * (math.exp(d) - d - 1) for token, d in zip(tokens, back, strict=True)]
        assert loss.values[row].item() == pytest.approx(sum(values) / len(values), rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_on_policy_the_gradient_is_the_policy_gradient(methods: dict[str, OnlineAlgorithm], name: str) -> None:
    """At u = 1: minus the advantage for each token's log-probability, up to the method's way of taking means."""
    critic = name == "ppo"
    batch = rollouts(critic=critic)
    batch = replace(batch, advantages=batch.advantages[:, :1] * MASK, ref_logps=batch.old_logps)
    logps = batch.old_logps.clone().requires_grad_()
    loss = methods[name](replace(batch, logps=logps), **methods[name].resolve({}))
    (found,) = torch.autograd.grad(loss.values.sum(), logps)
    tokens = MASK.sum(1, keepdim=True).double()
    shares: dict[str, Tensor | float] = {"ppo": 1 / batch.mean_tokens, "rloo": 1.0, "grpo": 1 / tokens}
    torch.testing.assert_close(found * MASK, -batch.advantages * shares[name], rtol=1e-12, atol=1e-12)


# The tokens that they read.


def test_token_logps_are_the_terms_of_the_sum(base_folder: Path) -> None:
    model = load_policy(find_base(str(base_folder)), FP32)
    rows = [((5, 6, 7), (8, 9)), ((5,), (6, 7, 8, 9, 10)), ((5, 6, 7), (15,))]
    head = torch.nn.Linear(32, 1)
    logps, values = token_logps(model, rows, head)
    assert values is not None
    assert logps.shape == values.shape == (3, 5)
    torch.testing.assert_close(logps.sum(1), response_logps(model, rows), rtol=1e-5, atol=1e-5)
    for row, (prompt, response) in enumerate(rows):
        ids = torch.tensor([[*prompt, *response]])
        output = model(input_ids=ids, output_hidden_states=True)
        before = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        expected = output.logits[0, before].log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        torch.testing.assert_close(logps[row, : len(response)], expected, rtol=1e-5, atol=1e-5)
        of_states = head(output.hidden_states[-1][0, before]).squeeze(-1)
        torch.testing.assert_close(values[row, : len(response)], of_states, rtol=1e-4, atol=1e-5)
        assert not logps[row, len(response) :].any()
        assert not values[row, len(response) :].any()


# The loop.

END = 1  # the tokenizer's end of turn
SETTINGS = Train(batch_size=16, max_length=64, epochs=6, schedule="constant", warmup=0.0)


def share_of_wanted(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
    """How many of an answer's tokens have an id that four divides: a quarter at first."""
    return [sum(token % 4 == 0 for token in answer) / len(answer) for answer in answers]


@pytest.fixture
def build(base_folder: Path) -> Callable[..., Any]:
    base = find_base(str(base_folder))
    tokenizer = load_tokenizer(base)
    rows = [TokenRow(pair, (5, 6, 7 + pair), (8,), (9,)) for pair in range(16)]

    def run(
        name: str | OnlineAlgorithm, settings: Train = SETTINGS, parameters: dict[str, Any] | None = None, **more: Any
    ) -> Any:
        method = built_in(name) if isinstance(name, str) else name
        model = add_adapter(load_policy(base, FP32), Lora(r=4, alpha=8), seed=0)
        given = {"max_new_tokens": 6, "kl_coef": 0.0, "missing_eos_penalty": 0.0, **(parameters or {})}
        resolved = method.resolve({name: value for name, value in given.items() if name in method.parameters})
        reward = more.pop("reward", share_of_wanted)
        job = TrainingJob(
            model=model,
            rows=more.pop("rows", rows),
            algorithm=method,
            parameters=resolved,
            learning_rate=2e-2,
            settings=settings,
            seed=3,
            **more,
        )
        log = train_online(job, tokenizer, reward)
        trained = {key: value.detach().clone() for key, value in model.named_parameters() if value.requires_grad}
        return log, trained

    return run


@pytest.mark.parametrize(("name", "epochs", "answers"), [("ppo", 12, 16), ("rloo", 10, 16), ("grpo", 5, 16)])
def test_the_reward_rises(build: Callable[..., Any], name: str, epochs: int, answers: int) -> None:
    settings = SETTINGS.model_copy(update={"epochs": epochs, "batch_size": answers})
    log, _ = build(name, settings, {"samples": 8 if name == "grpo" else 4})
    rewards = [step["reward"] for step in log.steps]
    part = len(rewards) // 6
    assert sum(rewards[-part:]) / part > sum(rewards[:part]) / part + 0.12
    assert log.steps[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert log.steps[-1]["kl"] > 0.1
    names = {"loss", "reward", "kl", "tokens", "unfinished", "entropy", "clip_fraction", "learning_rate"}
    assert names <= log.steps[0].keys()
    assert ("explained_variance" in log.steps[0]) == (name == "ppo")


@pytest.mark.parametrize("name", METHODS)
def test_a_price_on_kl_keeps_the_policy_near(build: Callable[..., Any], name: str) -> None:
    short = SETTINGS.model_copy(update={"epochs": 3})
    free, _ = build(name, short, {"samples": 4})
    dear, _ = build(name, short, {"samples": 4, "kl_coef": 5.0})
    # One step's estimate is of a few answers: in the last one alone the ratio is anything from 0.4 to 0.8 for PPO.
    last = len(free.steps) // 3
    priced, unpriced = (sum(step["kl"] for step in log.steps[-last:]) for log in (dear, free))
    assert priced < 0.7 * unpriced


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_do_not_change_the_training(build: Callable[..., Any], name: str) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1})
    whole, _ = build(name, short)
    parts, _ = build(name, short.model_copy(update={"micro_batch_tokens": 24}))
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3, abs=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_layers_that_compute_again_do_not_change_the_training(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1})
    checkpointed = checkpointed_layers(monkeypatch)
    whole, _ = build(name, short)
    assert checkpointed() == 0
    again, _ = build(name, short.model_copy(update={"activation_checkpointing": True}))
    assert checkpointed() > 0
    for one, other in zip(whole.steps, again.steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3, abs=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_graphs_do_not_change_the_training(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of its updates, and of the steps that write the answers; a stand-in takes the place of a GPU's graphs."""
    updates, answers = StandIn(), StandIn()
    for module in (layout, generation):
        monkeypatch.setattr(module, "can_pack", lambda *_: False)
    for module in (steps, decode_steps):
        monkeypatch.setattr(module, "can_capture", lambda _: True)
    monkeypatch.setattr(cuda_graphs, "record", updates.record)
    monkeypatch.setattr(decode_steps, "record", answers.record)
    short = SETTINGS.model_copy(update={"epochs": 1})  # in the long run, rounding changes an answer
    plain, _ = build(name, short)
    assert updates.replays == answers.replays == 0
    graphed, _ = build(name, short.model_copy(update={"cuda_graphs": True}))
    assert updates.replays > 0 or name == "ppo"  # whose rows share no prompt, and have a plain mask on a CPU
    assert answers.replays > 0
    for one, other in zip(plain.steps, graphed.steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3, abs=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_what_answers_were_written_with_is_what_a_pass_over_them_measures(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    measured: list[bool] = []
    measure = training._measure

    def counted(*given: Any) -> Any:
        measured.append(True)
        return measure(*given)

    monkeypatch.setattr(training, "_measure", counted)
    short = SETTINGS.model_copy(update={"epochs": 1})
    written, _ = build(name, short, {"kl_coef": 0.1})
    assert len(measured) == len(written.steps)  # the reference alone
    monkeypatch.setattr(training, "_written", lambda answers, device: None)
    again, _ = build(name, short, {"kl_coef": 0.1})
    assert len(measured) == 3 * len(written.steps)
    for one, other in zip(written.steps, again.steps, strict=True):
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
        assert one["entropy"] == pytest.approx(other["entropy"], rel=1e-5)
        assert one["kl"] == pytest.approx(other["kl"], rel=1e-4, abs=1e-4)


def test_a_prompt_passes_an_update_once_for_all_its_answers(build: Callable[..., Any]) -> None:
    """Of what passes with gradients, each token is read once behind the tokens before it."""
    rows = [TokenRow(pair, (8 + pair, *range(24, 32)), (8,), (9,)) for pair in range(16)]
    distinct: list[int] = []
    read: list[int] = []

    def counting(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        whole = [(*row.prompt, *answer[:-1]) for row, answer in zip(rows, answers, strict=True)]
        distinct.append(len({ids[:length] for ids in whole for length in range(1, len(ids) + 1)}))
        assert distinct[-1] < sum(map(len, whole)) - 9 * 11  # 16 answers to four prompts of nine tokens
        return share_of_wanted(rows, answers)

    forward = torch.nn.Embedding.forward

    def looked_up(module: torch.nn.Embedding, ids: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            read.append(ids.numel())
        return forward(module, ids)

    with patch.object(torch.nn.Embedding, "forward", looked_up):
        log, _ = build("rloo", SETTINGS.model_copy(update={"epochs": 1}), rows=rows, reward=counting)
    assert read == distinct
    assert len(log.steps) == 4


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_a_kill_changes_nothing(build: Callable[..., Any], tmp_path: Path, name: str) -> None:
    short = SETTINGS.model_copy(update={"epochs": 2, "checkpoint_minutes": 1e-9})
    whole, weights = build(name, short)

    class KilledError(Exception):
        pass

    calls = []

    def dies(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        calls.append(1)
        if len(calls) == 2:
            raise KilledError
        return share_of_wanted(rows, answers)

    with pytest.raises(KilledError):
        build(name, short, reward=dies, checkpoint=tmp_path / "checkpoint.pt")
    resumed, again = build(name, short, checkpoint=tmp_path / "checkpoint.pt")
    assert [step["loss"] for step in resumed.steps] == [step["loss"] for step in whole.steps]
    assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_updates_that_are_read_late_are_logged_all_the_same(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    short, shown = SETTINGS.model_copy(update={"epochs": 1}), list[int]()
    at_once, weights = build(name, short)
    monkeypatch.setattr(steps, "queues", lambda _: True)
    late, again = build(name, short, update=lambda done, *_: shown.append(done))
    for one, other in zip(at_once.steps, late.steps, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert shown == [*range(1, len(at_once.steps) + 1)]
    assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.parametrize("ahead", [False, True])
def test_weights_that_have_diverged_write_no_answers(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Of probabilities that are none, a token is drawn that the vocabulary does not have."""
    monkeypatch.setattr(steps, "queues", lambda _: ahead)
    with pytest.raises(PluginError, match="at step 1: training diverged"):
        build("rloo", reward=lambda _, answers: [float("nan")] * len(answers))


def idle(rollouts: Rollouts) -> Loss:
    """No learning."""
    return Loss((rollouts.logps * 0).sum(1))


def nothing(experience: Experience) -> Advantages:
    return Advantages(torch.zeros_like(experience.logps))


def declared(advantage: Callable[..., Any]) -> OnlineAlgorithm:
    return online(paper="none", learning_rate=1e-3, advantage=advantage)(idle)


def test_an_answer_without_end_pays(build: Callable[..., Any]) -> None:
    seen: dict[str, list[Any]] = {"finished": [], "rewards": []}

    def zero(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        seen["finished"] += [answer[-1] == END for answer in answers]
        return [0.0] * len(answers)

    def spy(experience: Experience) -> Advantages:
        seen["rewards"] += experience.rewards.tolist()
        return nothing(experience)

    build(declared(spy), SETTINGS.model_copy(update={"epochs": 1}), {"missing_eos_penalty": 2.5}, reward=zero)
    assert seen["rewards"] == [0.0 if finished else -2.5 for finished in seen["finished"]]
    assert len(set(seen["rewards"])) == 2


@pytest.mark.parametrize(
    ("advantage", "message"),
    [
        (lambda experience: experience.logps, "returned Tensor, expected align_bench.api.Advantages"),
        (lambda experience: Advantages(experience.logps[:, :1]), "expected one per token"),
        (lambda experience: CriticAdvantages(experience.logps, experience.logps), "has returns"),
    ],
)
def test_an_advantage_that_breaks_the_contract_is_told(build: Callable[..., Any], advantage: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build(declared(advantage))


def test_an_advantage_that_raises_is_told_with_its_method(build: Callable[..., Any]) -> None:
    with pytest.raises(PluginError, match="the advantage of idle raised ZeroDivisionError"):
        build(declared(lambda experience: 1 / 0))


def test_declarations_that_cannot_be_used_are_told() -> None:
    def greedy(experience: Experience, *, samples: int = 3) -> Advantages:
        raise AssertionError

    with pytest.raises(PluginError, match="parameter 'samples' is also one of the rollout settings"):
        declared(greedy)
