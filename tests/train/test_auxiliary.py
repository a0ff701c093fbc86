"""What stands beside a reward model in training: seen by optimizer and checkpoint, absent from the saved adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from align_bench.api import Adversary, BiasExpert, BiasExpertScores, LengthHead, LengthHeadScores, OfflineAlgorithm
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import table_scores
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_adapter, load_scorer, save_adapter
from align_bench.models.logprobs import attacked_scores, head_weight, scores
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import Scalar, TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train.auxiliary import attach, companion_of
from align_bench.train.feeds import ScoreFeed
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=6, max_length=128)
METHODS: list[tuple[str, dict[str, Scalar]]] = [
    ("poe_rm", {"noise": 0.0}),
    ("poe_rm", {"length_expert": True}),
    ("robust_rm", {}),
    ("odin_rm", {}),
]
each_method = pytest.mark.parametrize(("name", "parameters"), METHODS, ids=["poe", "poe-length", "robust", "odin"])


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> Sequence[TokenRow]:
    return tokenize(tokenizer, read(DataSource("embedded/planted", split="train", rows=14)), max_length=128).rows


@pytest.fixture
def scorer(base_folder: Path) -> Callable[..., Any]:
    def fresh(precision: Precision = FP32) -> Any:
        return add_adapter(load_scorer(find_base(str(base_folder)), precision), Lora(r=4, alpha=8), seed=0)

    return fresh


@pytest.fixture
def build(scorer: Callable[..., Any], rows: Sequence[TokenRow]) -> Callable[..., dict[str, Any]]:
    def run(
        name: str, parameters: dict[str, Scalar], settings: Train = SETTINGS, precision: Precision = FP32, **more: Any
    ) -> dict[str, Any]:
        method = load_registry()[name].algorithm
        assert isinstance(method, OfflineAlgorithm)
        model = scorer(precision)
        resolved = method.resolve(parameters)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=method,
            parameters=resolved,
            learning_rate=1e-2,
            settings=settings,
            seed=5,
            **more,
        )
        log = train(job)
        weights = {key: value.detach().clone() for key, value in model.named_parameters() if value.requires_grad}
        return {"steps": log.steps, "weights": weights, "model": model}

    return run


@each_method
def test_micro_batches_do_not_change_the_training(
    build: Callable[..., dict[str, Any]], name: str, parameters: dict[str, Scalar]
) -> None:
    whole = build(name, parameters, SETTINGS.model_copy(update={"micro_batch_tokens": 100_000}))
    parts = build(name, parameters, SETTINGS.model_copy(update={"micro_batch_tokens": 128}))
    for one, other in zip(whole["steps"], parts["steps"], strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-5), key


@each_method
def test_every_method_trains_where_bf16_computes(
    build: Callable[..., dict[str, Any]], name: str, parameters: dict[str, Scalar]
) -> None:
    near = build(name, parameters, precision=Precision("bf16", "bfloat16", "cpu"))
    assert near["steps"][0]["loss"] == pytest.approx(build(name, parameters)["steps"][0]["loss"], rel=0.05)
    assert {weight.dtype for weight in near["weights"].values()} == {torch.float32}
    assert near["steps"][-1]["gradient_norm"] > 0


@each_method
def test_training_lowers_the_loss(
    build: Callable[..., dict[str, Any]], name: str, parameters: dict[str, Scalar]
) -> None:
    steps = build(name, parameters, SETTINGS.model_copy(update={"epochs": 5}))["steps"]
    assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.parametrize(("name", "parameters"), [("poe_rm", {"noise": 1.0}), ("odin_rm", {})], ids=["poe", "odin"])
def test_a_killed_training_goes_on_to_the_same_numbers(
    build: Callable[..., dict[str, Any]], tmp_path: Path, name: str, parameters: dict[str, Scalar]
) -> None:
    """Noise, companion and its optimizer state included."""
    settings = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_minutes": 1e-9})
    straight = build(name, parameters, settings)
    checkpoint = tmp_path / "checkpoint.pt"

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(name, parameters, settings, checkpoint=checkpoint, update=kill)
    resumed = build(name, parameters, settings, checkpoint=checkpoint)
    assert any(key.startswith("companion.") for key in straight["weights"])
    for key, weight in straight["weights"].items():
        assert torch.equal(weight, resumed["weights"][key]), key
    assert [step["loss"] for step in straight["steps"]] == [step["loss"] for step in resumed["steps"]]


@each_method
def test_the_saved_adapter_is_the_reward_model_alone(
    build: Callable[..., dict[str, Any]],
    base_folder: Path,
    rows: Sequence[TokenRow],
    tmp_path: Path,
    name: str,
    parameters: dict[str, Scalar],
) -> None:
    from peft import PeftModel

    made, plain = build(name, parameters), build("rm", {})
    for folder, found in (("made", made), ("plain", plain)):
        save_adapter(found["model"], tmp_path / folder)
    stored = []
    for folder in ("made", "plain"):
        with safe_open(tmp_path / folder / "adapter_model.safetensors", framework="pt") as weights:
            stored.append(set(weights.keys()))
    assert stored[0] == stored[1]
    trained = table_scores(made["model"], rows, max_tokens=512)
    for load in (PeftModel.from_pretrained, load_adapter):
        again = load(load_scorer(find_base(str(base_folder)), FP32), tmp_path / "made").eval()
        torch.testing.assert_close(table_scores(again, rows, max_tokens=512)["chosen"], trained["chosen"])


def test_the_bias_expert_learns_at_its_own_rate(build: Callable[..., dict[str, Any]]) -> None:
    """AdamW's first step moves each weight by about the learning rate, whatever the gradient."""
    once = SETTINGS.model_copy(update={"batch_size": 14, "warmup": 0.0, "schedule": "constant"})
    built = [build("poe_rm", {"noise": 0.0, "bias_rate": rate}, once) for rate in (1.0, 3.0)]
    assert [step["learning_rate"] for one in built for step in one["steps"]] == [1e-2, 1e-2]  # the reward model's
    heads = [one["weights"] for one in built]
    start = build("poe_rm", {"noise": 0.0, "bias_rate": 1e-9}, once)["weights"]
    slow, fast = (weights["companion.head.weight"] - start["companion.head.weight"] for weights in heads)
    torch.testing.assert_close(slow.abs(), torch.full_like(slow, 1e-2), rtol=1e-2, atol=0)
    torch.testing.assert_close(fast, 3 * slow, rtol=1e-2, atol=1e-5)
    for key in start:
        if not key.startswith("companion."):
            assert torch.equal(heads[0][key], heads[1][key]), key


def test_noise_hides_content_and_leaves_the_length(scorer: Callable[..., Any]) -> None:
    model = scorer()
    sequences = [((5, 6), (7, 8, 9)), ((5, 6), (7,)), ((5, 6), (9, 8, 7))]

    def bias(declared: BiasExpert) -> torch.Tensor:
        attach(model, declared, seed=3)
        companion = companion_of(model)
        assert companion is not None
        record = companion.record(model, [*sequences, *sequences])
        assert isinstance(record, BiasExpertScores)
        return record.bias_chosen.detach()

    assert torch.equal(bias(BiasExpert(noise=0.0)), bias(BiasExpert(noise=0.0)))
    assert not torch.equal(bias(BiasExpert(noise=1.0)), bias(BiasExpert(noise=0.5)))
    counted = bias(BiasExpert(length_only=True))
    assert counted[0] == counted[2] != counted[1]


def test_companions_leave_the_scores_as_they_are(scorer: Callable[..., Any], rows: Sequence[TokenRow]) -> None:
    model = scorer().eval()
    plain = ScoreFeed(rows, None).record(model, [3, 1])
    for declared in (BiasExpert(), BiasExpert(length_only=True), Adversary(0.1), LengthHead()):
        attach(model, declared, seed=0)
        feed = ScoreFeed(rows, None)
        feed.begin(model, [3, 1], 512)
        record = feed.record(model, [3, 1])
        torch.testing.assert_close(record.chosen, plain.chosen)
        torch.testing.assert_close(record.rejected, plain.rejected)
        assert record.chosen_tokens.tolist() == [len(rows[index].chosen or ()) for index in (3, 1)]


def test_the_batch_of_two_heads_is_the_records_own(scorer: Callable[..., Any], rows: Sequence[TokenRow]) -> None:
    model = scorer().eval()
    attach(model, LengthHead(), seed=0)
    feed = ScoreFeed(rows, None)
    batch = [4, 0, 9]
    feed.begin(model, batch, 64)
    record = feed.record(model, batch)
    assert isinstance(record, LengthHeadScores)
    torch.testing.assert_close(record.batch_scores, torch.cat([record.chosen, record.rejected]).detach())
    torch.testing.assert_close(
        record.batch_length_scores, torch.cat([record.length_chosen, record.length_rejected]).detach()
    )
    assert record.batch_tokens.tolist() == [*record.chosen_tokens.tolist(), *record.rejected_tokens.tolist()]
    heads = head_weight(model).flatten(), model.companion.head.weight.flatten()
    expected = heads[0] @ heads[1] / (heads[0].norm() * heads[1].norm())
    torch.testing.assert_close(record.head_cosine, expected)


def test_the_attack_is_the_steepest_step_of_its_size(scorer: Callable[..., Any]) -> None:
    """Against the plain gradient, row by row and unpadded; a tiny step changes the score by ε‖e‖·‖g‖."""
    model = scorer().eval()
    sequences = [((5, 6), (7, 8, 9)), ((11,), (12,)), ((5, 7, 8, 9), (3, 4))]
    directions = [1.0, -1.0, 1.0]
    epsilon = 1e-3
    clean, attacked = attacked_scores(model, sequences, directions, epsilon=epsilon)
    torch.testing.assert_close(clean, scores(model, sequences))
    inner = model.get_base_model()
    for row, (prompt, answer) in enumerate(sequences):
        embeddings = inner.get_input_embeddings()(torch.tensor([[*prompt, *answer]])).detach().requires_grad_()
        value = inner(inputs_embeds=embeddings).logits[0, 0]
        (gradient,) = torch.autograd.grad(value, embeddings)
        step = directions[row] * epsilon * embeddings.norm() * gradient / gradient.norm()
        torch.testing.assert_close(attacked[row], inner(inputs_embeds=embeddings + step).logits[0, 0])
        change = epsilon * embeddings.detach().norm() * gradient.norm()
        found = float((attacked[row] - clean[row]).detach())
        assert found == pytest.approx(directions[row] * float(change), rel=0.05)


def test_the_attack_needs_no_gradient_of_the_caller(scorer: Callable[..., Any]) -> None:
    model = scorer().eval()
    with_gradient = attacked_scores(model, [((5, 6), (7, 8))], [-1.0], epsilon=0.2)
    with torch.no_grad():
        without = attacked_scores(model, [((5, 6), (7, 8))], [-1.0], epsilon=0.2)
    for one, other in zip(with_gradient, without, strict=True):
        assert one.requires_grad
        assert not other.requires_grad
        torch.testing.assert_close(one.detach(), other)
