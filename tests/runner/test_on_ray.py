"""Runs on a Ray cluster of several nodes on this machine: the results of one process, whatever becomes of a node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from align_bench.errors import ModelError, PluginError, SuiteError
from align_bench.runner import on_ray
from align_bench.runner.execution import Execution
from align_bench.runner.on_ray import Resources
from align_bench.runner.worker import Setup
from tests.runner.test_jobs import Killer, digests, trains, walked, written
from tests.runner.test_run import Recorder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, and two nodes of one CPU each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    small = {"object_store_memory": 80_000_000}
    found = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1, **small)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def kill_nodes(cluster: Any) -> list[int]:
    """Kill the nodes whose workers train; the process ids of their raylets."""
    found = []
    for node in list(cluster.worker_nodes):
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        if any(map(trains, raylet.children())):
            found.append(raylet.pid)
            cluster.remove_node(node, allow_graceful=False)
    return found


def test_a_killed_node_costs_no_finished_work_and_changes_no_result(
    small_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = {"batch_size": 8, "max_length": 128, "epochs": 60, "checkpoint_minutes": 1e-3}
    path = written(tmp_path / "suite", small_suite, methods=["simpo", "fails"], train=train)
    alone, stages = walked(path, tmp_path / "one", Recorder(), Execution())
    killer = Killer("simpo: train", lambda: kill_nodes(cluster))
    execution = Execution(executor="ray", ray_address=cluster.address)
    together, _ = walked(path, tmp_path / "two", killer, execution)
    assert len(killer.killed) == 1
    assert killer.logged[0] == "up to 2 workers on a Ray cluster of 3 nodes"
    assert {stage.owner for stage in stages if not together.has(stage)} == {"fails"}
    assert digests(together, stages) == digests(alone, stages)
    assert killer.seen[3] > 1, "the training began anew instead of going on from its checkpoint"
    assert [line for line in killer.logged if line.startswith("simpo: train: its worker was lost")]
    assert [line for line in killer.logged if line.startswith("simpo: done in")]
    again = {stage for stage in killer.stages if killer.stages.count(stage) > 1}
    assert again <= {"simpo: train", "fails: train"}, "finished work was made again"
    assert not pytest.importorskip("ray").is_initialized()


def test_what_a_node_has_room_for() -> None:
    node = {"CPU": 8.0, "GPU": 4.0, "memory": 10e9}
    assert Resources(1, 0, 0).workers_on(node) == 8
    assert Resources(1, 0, 4_000_000_000).workers_on(node) == 2
    assert Resources(1, 1, 0).workers_on(node) == 4
    assert Resources(3, 1, 0).workers_on(node) == 2
    assert Resources(1, 1, 0).workers_on({"CPU": 8.0}) == 0


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PluginError, match="ray is not installed") as told:
        on_ray.RayWorkers(None, Setup(Path("runs"), 1), Resources(1, 0, 0), None)
    assert told.value.fix == "pip install 'align-bench[ray]'"


def test_an_address_without_ray_is_told() -> None:
    with pytest.raises(SuiteError, match="a Ray address is given, but the executor is local"):
        Execution(ray_address="localhost:6379")


def test_a_cluster_that_is_not_there_is_told() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ModelError, match="no Ray cluster can be used at auto"):
        on_ray.RayWorkers(None, Setup(Path("runs"), 1), Resources(1, 0, 0), "auto")
