"""Recipes: what they are given, what is made of what they log, and how their mistakes are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from align_bench.api import Answer, AnswerJob, Job, Pair, PairJob, Prompt, PromptJob, Recipe, recipe
from align_bench.data.batches import effective_batches, mismatched
from align_bench.errors import DataError, PluginError
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy
from align_bench.models.precision import Precision
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train.job import Reward, TrainingJob
from align_bench.train.recipe import train_by_recipe

pytestmark = pytest.mark.usefixtures("few_figures")

FP32 = Precision("fp32", "float32", "cpu")
SETTINGS = Train(batch_size=2, epochs=2)
ROWS = [
    TokenRow(0, (5, 6), (7, 8, 9), (10,)),
    TokenRow(1, (11,), (12,), (13, 14, 15, 16)),
    TokenRow(2, (5, 7), (3, 4), (4, 4)),
]


@pytest.fixture
def execute(base_folder: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs a function as a recipe; returns its model and log."""

    def run(
        function: Callable[..., None],
        data: Any = "pairs",
        rows: Sequence[TokenRow] = ROWS,
        precision: Precision = FP32,
        reward: Reward | None = None,
        **more: Any,
    ) -> Any:
        model = add_adapter(load_policy(find_base(str(base_folder)), FP32), Lora(r=2), seed=0)
        job = TrainingJob(
            model=model,
            rows=rows,
            algorithm=declared(function, data),
            parameters={},
            learning_rate=1e-2,
            settings=SETTINGS,
            seed=3,
            **more,
        )
        return model, train_by_recipe(job, tokenizer, precision, tmp_path, reward)

    return run


def declared(function: Callable[..., None], data: Any) -> Recipe:
    function.__doc__ = "A recipe of the tests."
    return recipe(data=data, paper="none", learning_rate=1e-3)(function)


def test_a_recipe_gets_the_pairs_and_the_order_of_the_training_loop(execute: Callable[..., Any]) -> None:
    jobs: list[PairJob] = []

    def keep(job: PairJob) -> None:
        jobs.append(job)
        job.model.train()
        for step, _ in enumerate(job.batches):
            job.log({"loss": 1.0 / (1 + step), "learning_rate": 0.5})

    updates: list[tuple[int, int, str]] = []
    model, log = execute(keep, update=lambda *told: updates.append(told))
    (job,) = jobs
    assert job.model is model
    assert not model.training, "it is left in evaluation mode"
    assert job.examples == [
        Pair((5, 6), (7, 8, 9), (10,)),
        Pair((11,), (12,), (13, 14, 15, 16)),
        Pair((5, 7), (3, 4), (4, 4)),
    ]
    assert job.lengths == [10, 10, 8]
    assert job.batches == effective_batches(3, 2, epochs=2, seed=3)
    assert (job.learning_rate, job.seed, job.device, job.bf16, job.settings) == (1e-2, 3, "cpu", False, SETTINGS)
    assert [entry["step"] for entry in log.steps] == [1, 2, 3, 4]
    assert [entry["loss"] for entry in log.steps] == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert all(entry["learning_rate"] == 0.5 and entry["seconds"] >= 0 for entry in log.steps)
    assert log.tokens == 2 * (8 + 7 + 8)
    assert updates[-1] == (4, 4, "loss 0.250")


def test_single_answers_come_with_their_mismatched_ones(execute: Callable[..., Any]) -> None:
    found: list[Answer] = []

    def keep(job: AnswerJob) -> None:
        found.extend(job.examples)
        for _ in job.batches:
            job.log({"loss": 1.0})

    execute(keep, data="unpaired")
    assert mismatched(ROWS) == [1, 2, 0]
    assert found[:3] == [
        Answer((5, 6), (7, 8, 9), True, (12,)),
        Answer((5, 6), (10,), False, (13, 14, 15, 16)),
        Answer((11,), (12,), True, (3, 4)),
    ]
    assert len(found) == 6


def test_rollouts_start_from_prompts_and_a_reward(execute: Callable[..., Any]) -> None:
    def answer(job: PromptJob, *, reward: str = "gold") -> None:
        assert job.examples == [Prompt((5, 6)), Prompt((11,)), Prompt((5, 7))]
        assert job.lengths == [2, 1, 2]
        for step, batch in enumerate(job.batches):
            job.log({"loss": 0.0, "reward": job.reward(batch[0], (9,)), "tokens": 10 * (1 + step)})

    _, log = execute(answer, data="rollouts", reward=lambda rows, ids: [ROWS.index(rows[0]) + len(ids[0])])
    assert [step["reward"] for step in log.steps] == [1 + b[0] for b in effective_batches(3, 2, epochs=2, seed=3)]
    assert log.tokens == 40


def test_half_precision_is_told(execute: Callable[..., Any]) -> None:
    def keep(job: Job) -> None:
        assert job.bf16
        for _ in job.batches:
            job.log({"loss": 1.0})

    execute(keep, precision=Precision("nf4", "bfloat16", "cpu"))


def test_another_number_of_steps_is_refused(execute: Callable[..., Any]) -> None:
    def once(job: Job) -> None:
        job.log({"loss": 1.0})

    with pytest.raises(PluginError, match="the recipe once logged 1 steps, expected 4"):
        execute(once)


@pytest.mark.parametrize("numbers", [{"loss": float("nan")}, {}, {"loss": 1.0, "gradient_norm": float("inf")}])
def test_what_is_no_number_is_refused(execute: Callable[..., Any], numbers: dict[str, float]) -> None:
    def diverge(job: Job) -> None:
        job.log(numbers)

    with pytest.raises(PluginError, match=r"the recipe diverge logged .* at step 1, expected a number"):
        execute(diverge)


def test_what_it_raises_is_told_with_its_name(execute: Callable[..., Any]) -> None:
    def unlucky(job: Job) -> None:
        raise ZeroDivisionError("no luck")

    with pytest.raises(PluginError, match="the recipe unlucky raised ZeroDivisionError: no luck"):
        execute(unlucky)


def test_rows_that_do_not_fit_are_refused(execute: Callable[..., Any]) -> None:
    def never(job: Job) -> None:
        raise AssertionError("it is not reached")

    with pytest.raises(DataError, match="row 7 of the data has one answer"):
        execute(never, rows=[TokenRow(7, (1,), (2,), None)])
