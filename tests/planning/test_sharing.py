"""Which trainings several processes share, as a plan and a run say it, and how many cells are trained at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from align_bench.planning.forecast import Forecast
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.hardware import parse_hardware
from align_bench.planning.inputs import prepare
from align_bench.planning.sharing import shared_trainings
from align_bench.plugins.registry import load_registry
from align_bench.runner.results import Results
from align_bench.store.store import Store
from align_bench.suite.load import load_suite


@pytest.fixture
def graph(small_suite: dict[str, Any], tmp_path: Path) -> Any:
    def make(processes: int) -> Graph:
        train = {**small_suite["train"], "processes": processes}
        methods = ["rm", "dpo", "kto", "rloo", "trl_dpo"]
        path = tmp_path / f"{processes}.yaml"
        path.write_text(yaml.safe_dump({**small_suite, "judge": None, "methods": methods, "train": train}), "utf-8")
        return make_graph(prepare(load_suite(str(path)), load_registry()), Results(Store(tmp_path / "runs")))

    return make


def test_a_suite_says_which_methods_several_processes_train(graph: Any) -> None:
    assert shared_trainings(graph(1)) == []
    assert shared_trainings(graph(3)) == [
        "train.processes: trains rm, dpo, kto in 3 processes that share each batch and rloo, trl_dpo in one process: "
        "methods that write answers and trainers of other libraries share nothing"
    ]


def test_processes_that_would_wait_are_told(graph: Any, small_suite: dict[str, Any]) -> None:
    batch = small_suite["train"]["batch_size"]
    assert len(shared_trainings(graph(batch))) == 1
    assert shared_trainings(graph(batch + 2))[1:] == [
        f"train.processes: 2 of {batch + 2} have nothing to do in a batch of {batch}"
    ]


def test_only_what_several_processes_train_has_their_number_in_its_key(graph: Any) -> None:
    alone, together = graph(1), graph(2)
    for one, other in zip(alone.cells, together.cells, strict=True):
        assert one.id == other.id
        if one.adapter is None or other.adapter is None:
            continue
        shared = one.algorithm in ("rm", "dpo", "kto")
        assert (one.adapter.processes, other.adapter.processes) == (1, 2 if shared else 1)
        assert other.adapter.identity() == one.adapter.identity() | ({"processes": 2} if shared else {})
        assert "processes" not in str(one.adapter.identity())


@pytest.mark.parametrize(("hardware", "processes", "workers"), [("h100x8", 1, 8), ("h100x8", 3, 2), ("h100", 2, 1)])
def test_so_many_cells_are_forecast_at_a_time(hardware: str, processes: int, workers: int) -> None:
    suite = SimpleNamespace(train=SimpleNamespace(processes=processes))
    shapes: Any = SimpleNamespace(prepared=SimpleNamespace(suite=suite))
    nothing: Any = None
    assert Forecast(nothing, nothing, parse_hardware(hardware), shapes).workers == workers
