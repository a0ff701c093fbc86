"""The packaged suite `parity`, on a tiny base: TRL's methods end where ours do, as its comments say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from align_bench.models.micro_batches import ENOUGH_ELSEWHERE
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Update, no_update
from align_bench.report.schema import Result
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

pytestmark = pytest.mark.usefixtures("few_figures")

AGREEING = ["rm", "dpo", "kto", "simpo"]
Ran = tuple[dict[str, Result], dict[str, list[Mapping[str, float]]]]


class Unseen:
    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        yield no_update

    def log(self, text: str) -> None:
        """Nobody listens."""


@pytest.fixture(scope="module")
def ran(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The report's results and the training logs, by cell."""
    smaller = {
        "base": str(base_folder),
        "data.train.rows": 16,
        "data.val.rows": 20,
        "train.batch_size": 8,
        "train.max_length": 128,
        "generate.prompts": 2,
        "generate.max_new_tokens": 4,
    }
    suite = load_suite("parity", [f"{key}={value}" for key, value in smaller.items()])
    root = tmp_path_factory.mktemp("parity")
    prepared = prepare(suite, load_registry())
    report = run(prepared, Unseen(), Folders(root / "runs", root / "reports"), command="align-bench run parity")
    results = Results(Store(root / "runs"))
    cells = make_graph(prepared, results).cells
    logs = {str(cell.id): list(results.load(cell.adapter)) for cell in cells if cell.adapter is not None}
    return {result.name: result for result in report.results}, logs


def test_every_method_stands_beside_trls_with_equal_parameters() -> None:
    grids = {method.name: method.grid for method in load_suite("parity").methods}
    ours = [name for name in grids if not name.startswith("trl_")]
    assert set(ours) == {*AGREEING, "orpo"}
    assert all(grids[f"trl_{name}"] == grids[name] for name in ours)
    assert len(grids) == 2 * len(ours)


def test_a_micro_batch_holds_a_whole_batch() -> None:
    """Else KTO's drift would be another, and the mean over a step's rows a mean of means."""
    suite = load_suite("parity")
    assert 2 * suite.train.max_length * suite.train.batch_size <= ENOUGH_ELSEWHERE
    assert suite.train.micro_batch_tokens is None
    assert (suite.data.train.rows or 0) % suite.train.batch_size == 0


@pytest.mark.parametrize("name", AGREEING)
def test_losses_and_validation_accuracies_agree(ran: Ran, name: str) -> None:
    results, logs = ran
    ours, theirs = logs[name], logs[f"trl_{name}"]
    assert len(ours) == len(theirs) >= 2
    assert [step["loss"] for step in theirs] == pytest.approx([step["loss"] for step in ours], rel=1e-3)
    compared = ["accuracy"] if name == "rm" else ["accuracy_logp_mean", "accuracy_logratio"]
    for metric in compared:
        found = [getattr(results[cell].metrics, metric).value for cell in (name, f"trl_{name}")]
        assert found[0] == found[1] is not None


def test_orpo_is_done_and_parts(ran: Ran) -> None:
    results, logs = ran
    assert results["trl_orpo"].status == results["orpo"].status == "done"
    assert logs["trl_orpo"][0]["log_odds_ratio"] == pytest.approx(logs["orpo"][0]["log_odds_ratio"], rel=1e-3)
    assert logs["trl_orpo"][-1]["loss"] != pytest.approx(logs["orpo"][-1]["loss"], rel=1e-3)
