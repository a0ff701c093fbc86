"""TRL's trainers as methods: after as many steps from the same start they are where ours are, in fp32.

`test_trl_parity` compares losses and gradients of one batch; here whole trainings run, with their order of rows,
schedule, optimizer and clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from align_bench.api import Algorithm, OfflineAlgorithm, Recipe
from align_bench.data.batches import effective_batches
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import mismatched_logps, table_logps, table_scores
from align_bench.models.base import Base, find_base
from align_bench.models.load import add_adapter, load_policy, load_scorer, load_tokenizer
from align_bench.models.precision import Precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train
from align_bench.train.recipe import train_by_recipe
from tests.checkpointed import checkpointed_layers

FP32 = Precision("fp32", "float32", "cpu")
LORA = Lora(r=4, alpha=8)
MAX_LENGTH = 56
# Ten rows make two whole batches and half a one an epoch, and each batch one micro-batch.
SETTINGS = Train(batch_size=4, epochs=2, max_length=MAX_LENGTH, warmup=0.3, weight_decay=0.1, max_grad_norm=0.5)
PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "rm": {"centering": 0.05},
    "dpo": {"beta": 0.3},
    "kto": {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.7},
    "simpo": {"beta": 2.0, "gamma": 0.8},
    "orpo": {"lambda_": 0.5},
}


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        steps: its log.
        val: log-probabilities or scores of the validation pairs, by side.
        model: the trained model.
    """

    steps: Sequence[Mapping[str, float]]
    val: Mapping[str, Tensor]
    model: Any

    def column(self, name: str) -> list[float]:
        return [step[name] for step in self.steps]

    def accuracy(self) -> float:
        return float((self.val["chosen"] > self.val["rejected"]).float().mean())


Run = Callable[..., Trained]
A = TypeVar("A", bound=Algorithm)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return find_base(str(base_folder))


@pytest.fixture(scope="module")
def rows(base: Base) -> Sequence[TokenRow]:
    """Ten pairs, some of them with a truncated answer."""
    table = tokenize(
        load_tokenizer(base), read(DataSource("embedded/planted", "train", rows=10)), max_length=MAX_LENGTH
    )
    assert table.counts["kept"] == 10
    assert 0 < table.counts["truncated"] < 10
    return table.rows


@pytest.fixture(scope="module")
def val(base: Base) -> Sequence[TokenRow]:
    return tokenize(load_tokenizer(base), read(DataSource("embedded/planted", "val", rows=30)), max_length=128).rows


@pytest.fixture
def run(base: Base, rows: Sequence[TokenRow], val: Sequence[TokenRow], tmp_path: Path) -> Run:
    """Trains one method on the rows from the same start."""

    def run(name: str, rows: Sequence[TokenRow] = rows, settings: Train = SETTINGS, tokenizer: Any = None) -> Trained:
        algorithm = load_registry()[name].algorithm
        scalar = algorithm.kind == "reward"
        frozen = load_scorer(base, FP32, seed=5) if scalar else load_policy(base, FP32)
        model = add_adapter(frozen, LORA, seed=0)
        parameters = algorithm.resolve(PARAMETERS[name.removeprefix("trl_")])

        def job(of: A) -> TrainingJob[A]:
            return TrainingJob(
                model=model,
                rows=rows,
                algorithm=of,
                parameters=parameters,
                learning_rate=2e-2,
                settings=settings,
                seed=5,
            )

        if isinstance(algorithm, Recipe):
            log = train_by_recipe(job(algorithm), tokenizer or load_tokenizer(base), FP32, tmp_path)
        else:
            assert isinstance(algorithm, OfflineAlgorithm)
            reference: dict[str, Tensor] = {}
            if algorithm.reference:
                plain = load_policy(base, FP32)
                reference = table_logps(plain, rows, max_tokens=4096) | mismatched_logps(plain, rows, max_tokens=4096)
            log = train(job(algorithm), reference or None)
        measure = table_scores if scalar else table_logps
        return Trained(log.steps, measure(model, val, max_tokens=4096), model)

    return run


def assert_agree(ours: Trained, theirs: Trained, *, metrics: Sequence[str] = ()) -> None:
    """Losses and validation pairs agree, after a training that moved both."""
    assert len(ours.steps) == len(theirs.steps) >= 6
    assert max(ours.column("loss")) > 1.05 * min(ours.column("loss"))
    for name in ("loss", "learning_rate", "gradient_norm", *metrics):
        assert theirs.column(name) == pytest.approx(ours.column(name), rel=1e-3, abs=1e-5), name
    for side in ("chosen", "rejected"):
        torch.testing.assert_close(theirs.val[side], ours.val[side], rtol=1e-3, atol=1e-3)
    assert theirs.accuracy() == ours.accuracy()


@pytest.mark.parametrize("name", ["rm", "dpo", "kto", "simpo"])
def test_trl_ends_where_ours_does(run: Run, name: str) -> None:
    # At π = ref margins are rounding errors, and TRL counts a tie as wrong: DPO's accuracies may differ in two steps.
    metrics = {"kto": (), "dpo": ("margin",)}.get(name, ("margin", "accuracy"))
    assert_agree(run(name), run(f"trl_{name}"), metrics=metrics)


@pytest.mark.parametrize("name", ["rm", "dpo", "simpo"])
def test_trl_ends_there_over_micro_batches(run: Run, name: str) -> None:
    small = SETTINGS.model_copy(update={"micro_batch_tokens": 4 * MAX_LENGTH})
    assert_agree(run(name), run(f"trl_{name}", settings=small))


def test_trl_ends_there_with_layers_that_compute_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointed = checkpointed_layers(monkeypatch)
    again = run("trl_simpo", settings=SETTINGS.model_copy(update={"activation_checkpointing": True}))
    assert checkpointed() > 0
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again.model.modules())
    assert_agree(run("simpo"), again)


def test_drift_of_kto_is_that_of_a_micro_batch(run: Run) -> None:
    """So over several they part, by design."""
    small = SETTINGS.model_copy(update={"micro_batch_tokens": 2 * MAX_LENGTH})
    ours, theirs = run("kto", settings=small), run("trl_kto", settings=small)
    assert theirs.steps[0]["loss"] == pytest.approx(ours.steps[0]["loss"], rel=1e-5), "there is no drift yet"
    assert theirs.column("loss") != pytest.approx(ours.column("loss"), rel=1e-3)


def test_orpo_agrees_where_both_likelihood_terms_are_one(run: Run, rows: Sequence[TokenRow]) -> None:
    """Prompts of one token, which nothing predicts, and chosen answers of equal length."""
    bare = [TokenRow(row.pair, row.prompt[-1:], (row.chosen or ())[:5], (row.rejected or ())[:9]) for row in rows]
    assert_agree(run("orpo", bare), run("trl_orpo", bare), metrics=("margin", "accuracy", "log_odds_ratio"))


def test_orpo_differs_in_its_likelihood_term_alone(run: Run) -> None:
    ours, theirs = run("orpo").steps[0], run("trl_orpo").steps[0]
    assert theirs["log_odds_ratio"] == pytest.approx(ours["log_odds_ratio"], rel=1e-4)
    assert theirs["loss"] != pytest.approx(ours["loss"], rel=1e-3)


def test_the_end_of_an_answer_is_found_where_it_is_the_pad_token_too(run: Run, base: Base) -> None:
    tokenizer = load_tokenizer(base)
    tokenizer.pad_token = tokenizer.eos_token
    assert_agree(run("rm"), run("trl_rm", tokenizer=tokenizer))


@pytest.mark.parametrize("name", ["trl_dpo", "trl_rm"])
def test_nothing_is_left_behind(run: Run, name: str) -> None:
    from accelerate.state import AcceleratorState

    model = run(name).model
    assert list(model.peft_config) == ["default"]
    assert "forward" not in vars(model.get_base_model())
    assert not model.training
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("lora_A.default" in name for name in trained)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert not AcceleratorState._shared_state


@pytest.fixture
def answer(base: Base, rows: Sequence[TokenRow], tmp_path: Path) -> Callable[..., Sequence[Mapping[str, float]]]:
    """Trains an online method on a reward; returns its log."""

    def answer(name: str, reward: Callable[[int, Sequence[int]], float], settings: Train, **parameters: Any) -> Any:
        algorithm = load_registry()[name].algorithm
        assert isinstance(algorithm, Recipe)
        job = TrainingJob(
            model=add_adapter(load_policy(base, FP32), LORA, seed=0),
            rows=rows,
            algorithm=algorithm,
            parameters=algorithm.resolve({"generations": 4, "max_new_tokens": 6} | parameters),
            learning_rate=0.1,
            settings=settings,
            seed=5,
        )

        def judged(asked: Sequence[TokenRow], ids: Sequence[Sequence[int]]) -> list[float]:
            return [reward(rows.index(asked[0]), ids[0])]

        return train_by_recipe(job, load_tokenizer(base), FP32, tmp_path, judged).steps

    return answer


@pytest.mark.parametrize("name", ["trl_rloo", "trl_grpo"])
@pytest.mark.parametrize("tokens", [8192, 4 * (MAX_LENGTH + 6)], ids=["whole", "micro-batches"])
def test_online_answers_every_prompt_of_a_step_k_times(answer: Callable[..., Any], name: str, tokens: int) -> None:
    asked: list[int] = []
    given: list[float] = []

    def reward(place: int, ids: Sequence[int]) -> float:
        assert 1 <= len(ids) <= 6
        asked.append(place)
        given.append(float(len(given) % 3))
        return given[-1]

    steps = answer(name, reward, SETTINGS.model_copy(update={"epochs": 1, "micro_batch_tokens": tokens}))
    planned = effective_batches(10, 4, epochs=1, seed=5)
    planned[-1] = planned[-1] * 2  # half a batch goes round twice
    assert asked == [place for batch in planned for place in batch for _ in range(4)]
    means = [sum(given[start : start + 16]) / 16 for start in range(0, 48, 16)]
    assert [step["reward"] for step in steps] == pytest.approx(means)


@pytest.mark.parametrize("name", ["trl_rloo", "trl_grpo"])
def test_online_learns_what_is_rewarded(answer: Callable[..., Any], name: str) -> None:
    def low(place: int, ids: Sequence[int]) -> float:
        return sum(token < 200 for token in ids) / len(ids)

    settings = Train(batch_size=4, epochs=4, schedule="constant")
    rewards = [step["reward"] for step in answer(name, low, settings, beta=0.0)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
