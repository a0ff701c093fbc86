"""Cells that several processes train: the results of one, a loss that fails in words, and nothing that is left over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from align_bench.errors import ModelError
from align_bench.runner import helpers as helpers_module
from align_bench.runner.execution import Execution
from align_bench.runner.helpers import Helpers
from align_bench.runner.results import Results
from align_bench.runner.worker import Assist, Here, Lost
from align_bench.stages.train import Train
from align_bench.store.store import Store
from align_bench.train.group import ALONE, Group
from tests.commands import StartCommand
from tests.runner.test_jobs import Killer, events, eventually, gone, walked, written
from tests.runner.test_run import Recorder

TRAIN = {"batch_size": 8, "max_length": 128, "epochs": 4, "checkpoint_minutes": 1e-6}
FAILS = '''
import torch.distributed
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-3, reward="s")
def fails(logps: PairLogps) -> Loss:
    """A loss that fails in the second process only."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
        raise ValueError("on purpose")
    return Loss(logps.rejected - logps.chosen, logps.chosen, logps.rejected)
'''


def helpers() -> list[psutil.Process]:
    """The processes that help this one, which still run."""
    servers = [one for one in psutil.Process().children() if "forkserver" in " ".join(one.cmdline())]
    return [helper for server in servers for helper in server.children() if helper.status() != psutil.STATUS_ZOMBIE]


def kill_helper() -> list[int]:
    (helper,) = helpers()
    helper.kill()
    return [helper.pid]


def trained(results: Results, stages: Any, owner: str) -> Any:
    (stage,) = [stage for stage in stages if isinstance(stage, Train) and stage.owner == owner]
    return results.artefact(stage), stage


def test_a_cell_of_two_processes_is_that_of_one_and_outlives_a_kill(
    small_suite: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "suite", small_suite, methods=["simpo", "fails"], train={**TRAIN, "processes": 2})
    (tmp_path / "suite" / "algorithms" / "fails.py").write_text(FAILS, encoding="utf-8")
    killer = Killer("simpo: train", kill_helper)
    results, stages = walked(path, tmp_path / "two", killer, Execution())
    assert killer.killed
    assert helpers() == []
    assert {stage.owner for stage in stages if not results.has(stage)} == {"simpo", "fails"}
    told = "\n".join(killer.logged)
    assert (
        "simpo: train failed: of 2 processes that train together, number 2 was lost: it was killed by SIGKILL" in told
    )
    assert "fails: train failed: the loss of fails raised ValueError: on purpose" in told
    (failing,) = [stage for stage in stages if isinstance(stage, Train) and stage.owner == "fails"]
    failure = Results(Store(tmp_path / "two")).failure(failing)
    assert failure is not None, "a loss that raises is not tried again"
    assert 'raise ValueError("on purpose")' in failure.traceback

    again = Killer("simpo: train", kill_helper)
    again.killed = [0]  # nobody
    results, stages = walked(path, tmp_path / "two", again, Execution())
    assert again.seen[0] > 1, "the training began anew instead of going on from its checkpoint"
    assert helpers() == []

    alone = written(tmp_path / "other", small_suite, methods=["simpo"], train=TRAIN)
    others, its = walked(alone, tmp_path / "one", Recorder(), Execution())
    (found, stage), (expected, plain) = trained(results, stages, "simpo"), trained(others, its, "simpo")
    assert stage.address != plain.address
    assert stage.identity() == plain.identity() | {"processes": 2}
    assert stage.load(found)[-1]["loss"] == pytest.approx(plain.load(expected)[-1]["loss"], rel=1e-4)
    weights = [load_file(one.folder / "adapter_model.safetensors") for one in (found, expected)]
    assert_close(*weights, rtol=1e-3, atol=1e-5)
    assert found.cost.tokens == expected.cost.tokens


@pytest.mark.parametrize(
    ("since", "expected"), [(Lost("it was killed by SIGKILL"), "was lost: it was killed"), (None, "")]
)
def test_one_that_is_lost_just_before_they_meet_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, since: Lost | None, expected: str
) -> None:
    said: list[Here | Lost] = [Here()] if since is None else [Here(), since]

    class Workers:
        def hire(self) -> int:
            return 7

        def give(self, worker: int, task: Assist) -> None:
            assert (worker, task.rank) == (7, 1)

        def hear(self, within: float = 1.0) -> list[tuple[int, Here | Lost]]:
            return [(7, said.pop(0))] if said else []

    @contextmanager
    def met(rank: int, size: int, meeting: Path, waits: timedelta) -> Iterator[Group]:
        assert waits <= timedelta(minutes=1), "one that is lost while they meet would be waited for that long"
        yield ALONE

    monkeypatch.setattr(helpers_module, "met", met)
    stage: Any = SimpleNamespace(processes=2, address=None)
    workers: Any = Workers()
    group = Helpers(stage, workers, tmp_path / "meeting").group
    if since is None:
        assert group() is ALONE
    else:
        with pytest.raises(ModelError, match=expected):
            group()


def test_nothing_runs_on_after_an_interrupt(
    small_suite: dict[str, Any], tmp_path: Path, start_command: StartCommand
) -> None:
    """Of a command whose helper starts anew, as a user's does."""
    long = {"batch_size": 8, "max_length": 128, "epochs": 9000, "processes": 2}
    suite = written(tmp_path / "suite", small_suite, methods=["simpo"], train=long)
    log = tmp_path / "events.jsonl"
    run = start_command("run", str(suite), "--json-log", str(log), cwd=tmp_path, spawns=True)
    eventually(lambda: any(one["event"] == "progress" and one["cell"] == "simpo" for one in events(log)))
    helping = psutil.Process(run.pid).children(recursive=True)
    assert helping
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it: to all of them
    assert run.wait() == 128 + signal.SIGINT
    eventually(lambda: gone(helping))
    assert "Traceback" not in run.said
    assert "go on where it stopped" in run.said
