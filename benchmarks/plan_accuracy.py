"""How near `align-bench plan --hardware cpu` comes: peak memory, and time after a calibration.

python benchmarks/plan_accuracy.py --out benchmarks/results/plan_accuracy
python benchmarks/plan_accuracy.py --model SMOLLM2_135M --batch-size 8 --new-tokens 24 --memory-steps 1 --steps 8 \
    --rows 192 --out benchmarks/results/plan_accuracy_smollm2

The first line is of the embedded model, the second one of a model in a folder; both with pairs of the embedded set.

For each precision a child process runs a suite of a few optimizer steps. The peaks that its artefacts recorded are held
against those planned before it ran. What it took per token is the calibration: with these rates a longer suite is
planned, which another child then runs. Both gates are of issue 21: memory within 25%, time within 30%.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from align_bench.cli.hardware_view import forecast
from align_bench.planning.forecast import Forecast
from align_bench.planning.hardware import parse_hardware
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.stages.generate import Generate
from align_bench.stages.train import Trained
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

PRECISIONS = ("nf4", "bf16", "fp32")
TIMED = PRECISIONS[-1]  # its calibration ends right before the longer suite begins: other work comes and goes
COMMON = (
    "methods=[rm: {learning_rate: 1e-3}, dpo: {learning_rate: 5e-4}]",
    "tune=null",
    "judge=gold",
    "data.test=null",
)
MEMORY_GATE, TIME_GATE = 0.25, 0.30
FEWEST_PROMPTS = 16


@dataclass(frozen=True, slots=True)
class Compared:
    """A planned figure and the measured one.

    Attributes:
        precision: how the base was stored.
        what: the cell and the stage, or the kind of stages.
        planned, measured: bytes, or seconds.
    """

    precision: str
    what: str
    planned: float
    measured: float

    @property
    def off(self) -> float:
        """The difference as a share of the measured figure."""
        return self.planned / self.measured - 1


@dataclass(frozen=True, slots=True)
class About:
    """What was measured.

    Attributes:
        model: its name.
        machine: in words.
        steps: optimizer steps of a method in the calibration.
        rows: pairs of the longer suite.
    """

    model: str
    machine: str
    steps: int
    rows: int


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="files are written beside this name, with .json and .md")
    parser.add_argument("--machine", default=f"{len(os.sched_getaffinity(0))} CPU cores, {_amx()}")
    parser.add_argument("--model", default="embedded/tiny", help="a base, as a suite names it")
    parser.add_argument("--steps", type=int, default=10, help="of the calibration")
    parser.add_argument("--memory-steps", type=int, help="in the other precisions; as many by default")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs per step")
    parser.add_argument("--new-tokens", type=int, default=64, help="of the longest answer")
    parser.add_argument("--rows", type=int, default=1500, help="of the longer suite")
    given = parser.parse_args()
    common = (
        *COMMON,
        f"base={given.model}",
        f"train.batch_size={given.batch_size}",
        "train.max_length=128",
        f"generate.max_new_tokens={given.new_tokens}",
    )
    memory: list[Compared] = []
    with tempfile.TemporaryDirectory() as made:
        for precision in PRECISIONS:
            steps = given.steps if precision == TIMED else given.memory_steps or given.steps
            runs, short = Path(made, precision), [*common, *_overrides(precision, given.batch_size * steps)]
            planned = _forecast(short, runs)
            _run(short, runs)
            memory += _peaks(precision, planned, Store(runs))
            print(*memory, sep="\n", flush=True)
        longer = [*common, *_overrides(TIMED, given.rows)]
        planned, fresh = _forecast(longer, Path(made, TIMED)), Path(made, "longer")
        _run(longer, fresh)
        times = _seconds(TIMED, planned, Store(fresh))
    about = About(_called(given.model), given.machine, given.steps, given.rows)
    page = _page(about, memory, times)
    print(page)
    if given.out:
        record = {
            **asdict(about),
            "load_average": [round(one, 1) for one in os.getloadavg()],
            "memory_bytes": [asdict(one) | {"off": round(one.off, 3)} for one in memory],
            "seconds": [asdict(one) | {"off": round(one.off, 3)} for one in times],
        }
        given.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        given.out.with_suffix(".md").write_text(page, encoding="utf-8")


def _overrides(precision: str, rows: int) -> list[str]:
    """A suite of so many pairs, a third of them to validate on; few prompts at a time are slower per token."""
    prompts = max(FEWEST_PROMPTS, rows // 6)
    sizes = [f"data.train.rows={rows}", f"data.val.rows={max(prompts, rows // 3)}", f"generate.prompts={prompts}"]
    return [f"precision={precision}", *sizes]


def _forecast(overrides: Sequence[str], runs: Path) -> Forecast:
    hardware = parse_hardware("cpu")
    prepared = prepare(load_suite("assignment", overrides), load_registry(), hardware.device.precision)
    return forecast(prepared, runs, hardware)


def _run(overrides: Sequence[str], runs: Path) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "align_bench", "run", "assignment", *settings, "--runs", str(runs)]
    command += ["--reports", str(runs / "reports"), "--quiet", "--format", "json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _peaks(precision: str, planned: Forecast, store: Store) -> list[Compared]:
    """Of each training, and of each policy's answers."""
    graph, found = planned.graph, []
    for cell, expected in zip((graph.base, *graph.judges, *graph.cells), planned.cells, strict=True):
        assert expected.peak is not None
        for kind, peak in ((Trained, expected.peak.training), (Generate, expected.peak.answering)):
            for stage in cell.all(kind):
                artefact = store.get(stage.address)
                assert artefact is not None, "the run has made it"
                what = f"{cell.id}: {stage.label}"
                found.append(Compared(precision, what, peak, artefact.cost.peak_bytes))
    return found


def _seconds(precision: str, planned: Forecast, store: Store) -> list[Compared]:
    """Of all stages that bring tokens through a model, by kind and together."""
    expected, measured = defaultdict[str, float](float), defaultdict[str, float](float)
    for stage in planned.graph.stages:
        artefact = store.get(stage.address)
        if artefact is not None and stage.estimate(planned.estimate.size).tokens:
            expected[stage.kind] += planned.seconds(stage)
            measured[stage.kind] += artefact.cost.seconds
    kinds = [Compared(precision, kind, expected[kind], measured[kind]) for kind in sorted(measured)]
    return [*kinds, Compared(precision, "whole suite", sum(expected.values()), sum(measured.values()))]


def _called(model: str) -> str:
    """A model's name for a page: of a folder, its last part."""
    return "the embedded model" if model.startswith("embedded/") else Path(model).name


def _page(about: About, memory: Sequence[Compared], times: Sequence[Compared]) -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    worst, whole = max(memory, key=lambda one: abs(one.off)), times[-1]
    lines = [
        "# How near a plan comes",
        "",
        f"{about.model[0].upper()}{about.model[1:]} on {about.machine}, at a load of {os.getloadavg()[0]:.1f}; "
        f"{libraries}. Made by "
        "`python benchmarks/plan_accuracy.py`.",
        "",
        f"Memory at the peak: the farthest is {worst.what} in {worst.precision}, {worst.off:+.0%}; gate "
        f"±{MEMORY_GATE:.0%}: {'met' if abs(worst.off) <= MEMORY_GATE else 'not met'}.",
        "",
        "| precision | stage | planned, MB | measured, MB | off |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {one.precision} | {one.what} | {one.planned / 1e6:,.0f} | {one.measured / 1e6:,.0f} | {one.off:+.0%} |"
            for one in memory
        ),
        "",
        f"Time of a suite of {about.rows:,} pairs, after a calibration of {about.steps} steps per method: "
        f"{whole.off:+.0%}; gate ±{TIME_GATE:.0%}: {'met' if abs(whole.off) <= TIME_GATE else 'not met'}.",
        "",
        "| precision | kind of stages | planned, s | measured, s | off |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {one.precision} | {one.what} | {one.planned:,.1f} | {one.measured:,.1f} | {one.off:+.0%} |"
            for one in times
        ),
        "",
    ]
    return "\n".join(lines)


def _amx() -> str:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if "amx_tile" in flags:
        return "with AMX"
    return "AVX-512 but no AMX" if "avx512bw" in flags else "neither AMX nor AVX-512"


if __name__ == "__main__":
    main()
