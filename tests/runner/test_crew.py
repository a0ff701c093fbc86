"""Workers as a run sees them: who is given which stage, what is shown, and what becomes of a dead worker's stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

from align_bench.errors import MissingResultError, ModelError
from align_bench.models.base import find_base
from align_bench.models.precision import Precision
from align_bench.records import Json, Update
from align_bench.runner.crew import MOST_STILLBORN, Crew
from align_bench.runner.results import Results
from align_bench.runner.walk import walk
from align_bench.runner.worker import Done, Lost, Message, Ready, Said, Started, Stopped, Task, Updated
from align_bench.stages.models import Frozen, ModelKey, Policy
from align_bench.stages.stage import Desk, Made, Stage
from align_bench.store.keys import Address, content_key
from align_bench.store.store import Artefact, Store


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(Stage[None]):
    """A stage that nobody runs."""

    after: tuple[Stage[object], ...] = ()
    wanted: tuple[ModelKey, ...] = ()
    kind = "step"
    label = "step"

    @cached_property
    def address(self) -> Address:
        return Address("step", content_key(self.owner))

    def needs(self) -> tuple[Stage[object], ...]:
        return self.after

    def identity(self) -> dict[str, Json]:
        raise NotImplementedError

    def models(self) -> tuple[ModelKey, ...]:
        return self.wanted

    def run(self, desk: Desk, folder: Path) -> Made:
        raise NotImplementedError

    def load(self, artefact: Artefact) -> None:
        raise NotImplementedError


@dataclass
class Scripted:
    """A transport whose workers do what a script says: for each task of an owner, in turn, the messages it ends in."""

    script: dict[str, list[list[Message]]]
    most: int = 2
    stillborn: int = 0
    given: list[tuple[int, str]] = field(default_factory=list)
    closed: bool = False
    _said: list[tuple[int, Message]] = field(default_factory=list)
    _hired: int = 0

    def hire(self) -> int:
        self._hired += 1
        first = Lost("it ended with exit code 1") if self._hired <= self.stillborn else Ready()
        self._said.append((self._hired, first))
        return self._hired

    def give(self, worker: int, task: Task) -> None:
        owner = task.stage.owner
        self.given.append((worker, owner))
        said = self.script[owner].pop(0) if owner in self.script else [Done(True, 1.0)]
        self._said += [(worker, message) for message in said]

    def hear(self) -> Iterable[tuple[int, Message]]:
        heard, self._said = self._said, []
        return heard

    def close(self) -> None:
        self.closed = True


@dataclass
class Shown:
    """Records what is shown."""

    lines: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        self.events.append(f"{cell} begins")
        try:
            yield lambda done, total, note="": self.events.append(f"{cell} {done}/{total} {note}")
        except BaseException as error:
            self.events.append(f"{cell} ends by {type(error).__name__}")
            raise
        self.events.append(f"{cell} ends")

    def log(self, text: str) -> None:
        self.lines.append(text)


def walked(
    stages: Sequence[Stage[object]], transport: Scripted, folder: Path
) -> tuple[list[str], Shown, Results, list[str]]:
    """The owners of the stages that were made, what was shown, and the owners of those that failed."""
    results, shown = Results(Store(folder)), Shown()
    crew = Crew(transport, results, shown)
    made: list[str] = []
    try:
        walk(stages, results, crew, shown, lambda stage: made.append(stage.owner))
    finally:
        crew.close()
    return made, shown, results, [stage.owner for stage in stages if results.failure(stage)]


LOST = Lost("it was killed by SIGKILL")


def test_a_lost_worker_s_stage_is_made_by_another_one_and_nothing_else_again(tmp_path: Path) -> None:
    first, second = Step(owner="a"), Step(owner="b")
    last = Step(owner="c", after=(first, second))
    transport = Scripted(
        {"a": [[Started("a", "step"), LOST, Said("late")], [Started("a", "step"), Stopped(False), Done(True, 1.0)]]}
    )
    made, shown, _, failed = walked([last], transport, tmp_path)
    assert made == ["b", "a", "c"]
    assert failed == []
    assert [owner for _, owner in transport.given] == ["a", "b", "a", "c"]
    assert len({worker for worker, owner in transport.given if owner == "a"}) == 2
    assert shown.events == ["a begins", "a ends by _LostError", "a begins", "a ends"]
    assert shown.lines == [
        "a: step: its worker was lost (it was killed by SIGKILL); another one goes on from the last checkpoint"
    ]
    assert transport.closed


def test_a_stage_that_two_workers_die_of_fails_and_the_others_go_on(tmp_path: Path) -> None:
    first, other = Step(owner="a"), Step(owner="b")
    needs = Step(owner="c", after=(first,))
    transport = Scripted({"a": [[LOST], [LOST]]})
    made, _, results, failed = walked([first, other, needs], transport, tmp_path)
    assert (made, failed) == (["b"], ["a"])
    failure = results.failure(first)
    assert failure is not None
    assert "2 workers that made it were lost, the last one: it was killed by SIGKILL" in failure.reason
    assert not failure.permanent
    assert [owner for _, owner in transport.given] == ["a", "b", "a"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter(Step):
    """A training that nobody runs."""

    kind = "adapter"
    label = "train"


def test_what_is_never_trained_since_its_start_failed_is_said(tmp_path: Path) -> None:
    sft = Adapter(owner="sft")
    dpo = Adapter(owner="dpo", after=(sft,))
    simpo, kto = Adapter(owner="simpo", after=(dpo,)), Adapter(owner="kto")
    made, shown, _, failed = walked([sft, dpo, simpo, kto], Scripted({"sft": [[LOST], [LOST]]}), tmp_path)
    assert (made, failed) == (["kto"], ["sft"])
    assert [line for line in shown.lines if "not trained" in line] == [
        "dpo, simpo: not trained, since sft: train failed"
    ]


def test_workers_that_never_start_end_the_run_in_words(tmp_path: Path) -> None:
    transport = Scripted({}, stillborn=MOST_STILLBORN - 1)
    assert walked([Step(owner="a")], transport, tmp_path)[0] == ["a"]
    transport = Scripted({}, stillborn=MOST_STILLBORN)
    with pytest.raises(ModelError, match="no worker can be started: of the last one, it ended with exit code 1"):
        walked([Step(owner="a")], transport, tmp_path)
    assert transport.closed


def test_what_ends_a_run_in_a_worker_ends_it_here_and_closes_what_is_shown(tmp_path: Path) -> None:
    error = MissingResultError("a: step: was damaged", fix="again")
    transport = Scripted({"a": [[Done(False, 1.0, error)]], "b": [[Started("b", "step"), Updated(1, 2, "loss 3")]]})
    results, shown = Results(Store(tmp_path)), Shown()
    crew = Crew(transport, results, shown)
    with pytest.raises(MissingResultError, match="was damaged"):
        walk([Step(owner="b"), Step(owner="a")], results, crew, shown, lambda stage: None)
    crew.close()
    assert shown.events == ["b begins", "b 1/2 loss 3", "b ends by KeyboardInterrupt"]


def test_what_several_workers_say_is_shown_once(tmp_path: Path) -> None:
    said: list[Message] = [Said("loaded tiny"), Done(True, 1.0)]
    transport = Scripted({"a": [said], "b": [said]})
    assert walked([Step(owner="a"), Step(owner="b")], transport, tmp_path)[1].lines == ["loaded tiny"]


def test_a_worker_is_given_what_its_model_makes(tmp_path: Path) -> None:
    base = find_base("embedded/tiny")
    one, other = (Policy(Frozen(base, Precision(storage, "float32", "cpu"))) for storage in ("fp32", "bf16"))
    first = [Step(owner="one", wanted=(one,)), Step(owner="other", wanted=(other,))]
    then = [
        Step(owner=f"{which}-{number}", wanted=(model,), after=tuple(first))
        for number in range(2)
        for which, model in (("other", other), ("one", one))
    ]
    transport = Scripted({})
    walked([*first, *then], transport, tmp_path)
    workers = {owner: worker for worker, owner in transport.given}
    assert workers["one"] != workers["other"]
    assert all(workers[owner] == workers[owner.partition("-")[0]] for owner in workers)
