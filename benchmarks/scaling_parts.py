"""What `benchmarks/scaling.py` measures at one size, each in a process of its own.

Pairs are questions of the embedded set, numbered so that no two prompts are the same, with answers as that set has
them. Preparing what is measured is left out of the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.records import TokenRow

STEPS = 200
BATCH_PAIRS = 2
_WRITTEN_AT_ONCE = 10_000
_SHORT_STEPS = 12  # of lengths and vocabularies
TINY = Path(__file__).parent.parent / "align_bench/models/tiny"


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        size: of what grows.
        seconds: on the clock.
        processor_seconds: of all threads of the process.
        peak_bytes: the process's peak resident memory, preparing included.
        start_bytes: what it took before the measured work began.
        counts: what else was counted.
    """

    size: int
    seconds: float
    processor_seconds: float
    peak_bytes: int
    start_bytes: int
    counts: dict[str, int]


class Clock:
    """Times the measured work of this process: from its making until `stop`."""

    def __init__(self) -> None:
        self.start_bytes = peak_bytes()
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def stop(self, size: int, **counts: int) -> Point:
        """What was measured."""
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        # Linux counts pages on each core and adds them up now and then, so that a later reading can be a little lower.
        peak = max(self.start_bytes, peak_bytes())
        return Point(size, round(wall, 3), round(processor, 3), peak, self.start_bytes, counts)


def peak_bytes() -> int:
    """The most memory that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_pairs(path: Path, count: int) -> None:
    """So many pairs as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    from align_bench.data.planted import planted_questions, write_answer

    rng = random.Random(0)
    questions = cycle(planted_questions())
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("prompt", "chosen", "rejected")])
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for start in range(0, count, _WRITTEN_AT_ONCE):
            columns: dict[str, list[str]] = {name: [] for name in schema.names}
            for number, question in enumerate(islice(questions, min(_WRITTEN_AT_ONCE, count - start)), start):
                columns["prompt"].append(f"{number}. {question.prompt}")
                for side, correct in (("chosen", True), ("rejected", False)):
                    columns[side].append(write_answer(question, correct=correct, padded=rng.random() < 0.5, rng=rng))
            file.write_table(pyarrow.table(columns, schema))


def prepared(folder: Path, **keys: Any) -> Prepared:
    """A small suite, with other values of some of its keys."""
    from align_bench.planning.inputs import prepare
    from align_bench.plugins.registry import load_registry
    from align_bench.suite.load import load_suite

    suite: dict[str, Any] = {
        "name": "scaling",
        "base": "embedded/tiny",
        "precision": "fp32",
        "data": {"train": {"path": "embedded/planted", "rows": 32}, "val": {"path": "embedded/planted", "rows": 8}},
        "judge": "gold",
        "train": {"batch_size": BATCH_PAIRS, "max_length": 256},
        "methods": ["simpo"],
        **keys,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scaling.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return prepare(load_suite(str(path)), load_registry())


def _of_rows(size: int, folder: Path) -> Prepared:
    """A suite whose training table has so many pairs."""
    own = folder / f"rows-{size}"
    pairs = own / "pairs.parquet"
    if not pairs.exists():
        own.mkdir(parents=True, exist_ok=True)
        write_pairs(own / "part.parquet", size)
        (own / "part.parquet").rename(pairs)
    train = {"path": str(pairs)}
    return prepared(own, data={"train": train, "val": {"path": "embedded/planted", "rows": 8}})


def tokenising(size: int, folder: Path) -> Point:
    """Pairs in a Parquet file → the stored token table."""
    from align_bench.planning.graph import make_graph
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.executor import InProcess
    from align_bench.runner.progress import NoProgress
    from align_bench.runner.results import Results
    from align_bench.runner.walk import walk
    from align_bench.store.store import Store

    _of_rows(size, folder)  # writes the file
    runs = folder / f"rows-{size}" / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    clock = Clock()
    found, results, progress = _of_rows(size, folder), Results(Store(runs)), NoProgress()
    table = make_graph(found, results).tables["train"]
    walk([table], results, InProcess(results, LocalDesk(results, progress), progress), progress, _nothing)
    stored = results.artefact(table)
    return clock.stop(size, stored_bytes=sum(one.stat().st_size for one in stored.folder.iterdir()))


def training(size: int, folder: Path) -> Point:
    """`STEPS` optimizer steps of SimPO, whose batches are drawn from the whole table."""
    from align_bench.api import OfflineAlgorithm
    from align_bench.models.load import add_adapter
    from align_bench.planning.graph import make_graph
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.progress import NoProgress
    from align_bench.runner.results import Results
    from align_bench.store.store import Store
    from align_bench.train.loop import train

    found, results = _of_rows(size, folder), Results(Store(folder / f"rows-{size}" / "runs"))
    graph = make_graph(found, results)
    if not results.has(graph.tables["train"]):
        in_child("tokenising", size, folder)
    desk = LocalDesk(results, NoProgress())
    clock = Clock()
    (cell,) = graph.cells
    stage = cell.adapter
    assert stage is not None
    model = add_adapter(desk.untrained(stage.frozen, scalar=False, seed=0), stage.lora, seed=0)
    job = replace(stage.job(model, desk, OfflineAlgorithm), checkpoint=None, update=_until(STEPS))
    with contextlib.suppress(_EnoughError):
        train(job)
    return clock.stop(size, steps=min(STEPS, size // BATCH_PAIRS))


def length(size: int, folder: Path) -> Point:
    """A few steps on rows of so many tokens."""
    return _steps(size, folder, tokens=size, vocabulary=900)


def vocabulary(size: int, folder: Path) -> Point:
    """A few steps with a vocabulary of so many tokens."""
    return _steps(size, folder, tokens=256, vocabulary=size)


def _steps(size: int, folder: Path, *, tokens: int, vocabulary: int) -> Point:
    from transformers import AutoConfig, AutoModelForCausalLM

    from align_bench.api import OfflineAlgorithm
    from align_bench.models.base import find_base
    from align_bench.models.flops import counted
    from align_bench.models.load import add_adapter, load_policy
    from align_bench.models.precision import resolve_precision
    from align_bench.plugins.registry import load_registry
    from align_bench.suite.models import Lora, Train
    from align_bench.train.job import TrainingJob
    from align_bench.train.loop import train

    made = folder / f"model-{vocabulary}"
    if not made.exists():
        config = AutoConfig.from_pretrained(TINY)
        config.vocab_size, config.max_position_embeddings = vocabulary, 1 << 14
        AutoModelForCausalLM.from_config(config).save_pretrained(made)
    model = add_adapter(load_policy(find_base(str(made)), resolve_precision("fp32", "cpu")), Lora(), seed=0)
    algorithm = load_registry()["simpo"].algorithm
    assert isinstance(algorithm, OfflineAlgorithm)
    rng = random.Random(0)
    job = TrainingJob(
        model=model,
        rows=[_row(number, tokens, vocabulary, rng) for number in range(BATCH_PAIRS * _SHORT_STEPS)],
        algorithm=algorithm,
        parameters=algorithm.resolve({}),
        learning_rate=1e-4,
        settings=Train(batch_size=BATCH_PAIRS, max_length=tokens),
        seed=0,
    )
    clock = Clock()
    with counted() as tally:
        train(job)
    assert tally.flops is not None, "all passes of this architecture are counted"
    return clock.stop(size, megaflops=int(tally.flops / 1e6))


def _row(number: int, tokens: int, vocabulary: int, rng: random.Random) -> TokenRow:
    """A prompt of half the tokens, and two answers that fill the other half."""
    from align_bench.records import TokenRow

    prompt, chosen, rejected = (tuple(rng.choices(range(vocabulary), k=tokens // 2)) for _ in range(3))
    return TokenRow(number, prompt, chosen, rejected)


def plan_methods(size: int, folder: Path) -> Point:
    """The graph, the estimate and the tables of `align-bench plan`, with so many methods."""
    return _planned(size, folder, methods=_methods(size))


def plan_seeds(size: int, folder: Path) -> Point:
    """The same of two methods with so many seeds."""
    return _planned(size, folder, methods=_methods(2), seeds=list(range(size)))


def _methods(count: int) -> list[Any]:
    """So many points of methods that read a reference and of such that read none."""
    return [{name: {"beta": [0.5 + 0.01 * place for place in range(number)]}} for name, number in _split(count)]


def _split(count: int) -> list[tuple[str, int]]:
    return [(name, number) for name, number in (("dpo", (count + 1) // 2), ("simpo", count // 2)) if number]


def _planned(size: int, folder: Path, **keys: Any) -> Point:
    from rich.console import Console

    from align_bench.cli.plan_view import plan_tables

    own = folder / f"plan-{os.getpid()}"
    list(plan_tables(prepared(own), own / "runs"))  # imports
    clock = Clock()
    found = prepared(own, **keys)
    with (own / "shown").open("w", encoding="utf-8") as file:
        console = Console(file=file, width=200)
        for shown in plan_tables(found, own / "runs"):
            console.print(shown)
    return clock.stop(size)


def report_methods(size: int, folder: Path) -> Point:
    """A report of so many policies, 200 pairs and 100 prompts each; every two of them are compared."""
    return _reported(size, folder, policies=size, seeds=1, pairs=200, prompts=100)


def report_seeds(size: int, folder: Path) -> Point:
    """A report of two policies with so many seeds, 200 pairs and 100 prompts each."""
    return _reported(size, folder, policies=2, seeds=size, pairs=200, prompts=100)


def report_examples(size: int, folder: Path) -> Point:
    """A report of so many scored examples: pairs under the base, a reward model and two policies, and answers.

    Half of them are pairs, half are answers; each of three models answers as many prompts.
    """
    return _reported(size, folder, policies=2, rewards=1, seeds=1, pairs=size // 8, prompts=size // 6)


def _reported(
    size: int, folder: Path, *, policies: int, seeds: int, pairs: int, prompts: int, rewards: int = 0
) -> Point:
    import report_speed

    from align_bench.report.build import build_report
    from align_bench.report.export import ReportRows, write_report
    from align_bench.runner.environment import environment

    shape = report_speed.Size(rewards, policies, seeds, pairs, prompts, steps=20)
    rng, header = random.Random(0), report_speed.header(environment())
    cells = report_speed.outcomes(shape)
    rows = ReportRows(
        scores=list(report_speed.scores(cells, shape, rng)),
        generations=list(report_speed.generations(cells, shape, rng)),
        training=list(report_speed.training(cells, shape, rng)),
        pairs=list(report_speed.pairs(shape, rng)),
    )
    clock = Clock()
    report = build_report(header, cells, rows.scores, rows.generations, rows.audits, rows.pairs)
    write_report(folder / f"report-{os.getpid()}", report, rows)
    return clock.stop(size, scores=len(rows.scores), answers=len(rows.generations), comparisons=len(report.comparisons))


class _EnoughError(Exception):
    """So many steps were made."""


def _until(steps: int) -> Callable[..., None]:
    def update(done: int, total: int, text: str = "") -> None:
        if done >= steps:
            raise _EnoughError

    return update


def _nothing(stage: object) -> None:
    """Nothing is done with a stage that was made."""


PARTS: dict[str, Callable[[int, Path], Point]] = {
    "tokenising": tokenising,
    "training": training,
    "length": length,
    "vocabulary": vocabulary,
    "plan methods": plan_methods,
    "plan seeds": plan_seeds,
    "report methods": report_methods,
    "report seeds": report_seeds,
    "report examples": report_examples,
}


def in_child(part: str, size: int, folder: Path) -> Point:
    """One measurement in a process of its own, on one thread.

    Raises:
        CalledProcessError: it failed; what it said has been shown.
    """
    command = [sys.executable, __file__, part, str(size), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return Point(**json.loads(said.splitlines()[-1]))


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(PARTS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3])))))
