"""Measure align-bench against TRL at real sizes on one GPU, in one command that needs nothing but the repository.

The bases have the shapes of Llama-3.1-8B, Qwen3-1.7B and Qwen2.5-0.5B, weights drawn at random, and rows of random ids
with up to 1,024 tokens of prompt and answer; LoRA r = 16 on all linear layers, in bf16 and in NF4. `tests/test_cuda.py`
runs first. TRL takes part twice: as it comes, and at its best (fused optimizer, precomputed reference, and Liger
kernels and padding-free batches where their packages are installed). Losses are asserted to be equal before anything is
timed.

Parts are measured in the order of their worth, and every part is written when it is done: a second call goes on with
what is left. Without a GPU, `--tiny` runs the same code on a shape of a few thousand weights, and its page says so.

Examples:
    python benchmarks/gpu.py                    # eight minutes' worth of parts; again: the next ones
    python benchmarks/gpu.py --budget 30 --shapes Llama-3.1-8B --precision bf16
    python benchmarks/gpu.py --graphs --shapes Qwen2.5-0.5B    # our training passes as CUDA graphs
    python benchmarks/gpu.py --tiny --parts dpo
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import gpu_sides
import history
import torch
import vs_trl
import vs_trl_sides
import vs_trl_table as table
from vs_trl import Side, SideError, console

from align_bench.planning.hardware import GPUS
from align_bench.runner.environment import environment
from align_bench.store.files import make_folder, write_atomically

HERE = Path(__file__).parent
NOT_RUN = "not run on a GPU"
ON_A_CPU = f"**{NOT_RUN}**: a check of this benchmark on a CPU, whose numbers mean nothing"
AS_IT_COMES, AT_ITS_BEST = "TRL as it comes", "TRL at its best"
PARTS = ("dpo", "simpo", "rm", "kto", "orpo", "scoring", "generation", "online")  # in order of worth
# Who plays in each part, by lane; a lane is a process that has one base in memory, ours or transformers' own.
LANES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(table.METHODS, ("ours", "trl", vs_trl_sides.BEST)),
    "scoring": ("ours", "trl", "naive"),
    "generation": ("ours", "trl"),
    "online": ("ours, ppo", "trl"),
}
# At the best of TRL, by shape.
GATES: Mapping[str, float] = {"Llama-3.1-8B": 1.5, "Qwen3-1.7B": 2.0, "Qwen2.5-0.5B": 3.0}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a shape's work is one turn."""

    pairs: int
    max_length: int = 1024
    prompts: int = 32
    new_tokens: int = 64
    scored_pairs: int = 32


SIZES: Mapping[str, Size] = {
    "Llama-3.1-8B": Size(pairs=4),
    "Qwen3-1.7B": Size(pairs=8),
    "Qwen2.5-0.5B": Size(pairs=16),
    "tiny": Size(pairs=2, max_length=64, prompts=3, new_tokens=3, scored_pairs=3),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that share lanes: those of one shape under one precision."""

    shape: str
    precision: str
    parts: tuple[str, ...]


class Budget:
    """Minutes that are left; no part begins without any."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def seconds(self) -> float:
        """What is left, 0 at least."""
        return max(0.0, self._end - time.monotonic())


class Results:
    """The result's file, written after every part.

    Attributes:
        content: as it is written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        where = environment().model_dump()
        if path.is_file():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content["settings"] != settings:
                raise SystemExit(f"{path} has other settings: {self.content['settings']}, now {dict(settings)}")
            before, now = (_made_by(one) for one in (self.content["environment"], where))
            if before != now:
                raise SystemExit(f"{path} was made by {before}, now {now}; move it away, and all is measured anew")
            return
        self.content = {
            "command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]]),
            "environment": where,
            "settings": dict(settings),
            "tests": None,
            "parts": [],
            "failures": [],
        }

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU made it."""
        return bool(self.content["environment"]["device"] != "cpu")

    def done(self, shape: str, precision: str) -> set[str]:
        """Parts that need no further try: measured, or failed."""
        tried = [*self.content["parts"], *self.content["failures"]]
        return {one["part"] for one in tried if (one["shape"], one["precision"]) == (shape, precision)}

    def write(self) -> None:
        """Both files."""
        write_atomically(self.path, json.dumps(self.content, indent=1))
        write_atomically(self.path.with_suffix(".md"), markdown(self.content))


def _made_by(where: Mapping[str, Any]) -> str:
    """The code and the device; a file of results that is not committed yet is no change of the code."""
    return f"commit {str(where['commit']).removesuffix('-dirty')} on {where['device']}"


def draw(shape: str, folder: Path) -> None:
    """Write a base of this shape; on a GPU by a process of its own, which leaves no memory taken there."""
    if torch.cuda.is_available():
        subprocess.run([sys.executable, str(HERE / "gpu_sides.py"), "--draw", shape, str(folder)], check=True)
    else:
        gpu_sides.draw(shape, folder)


def run_tests(results: Results, budget: Budget) -> None:
    """`tests/test_cuda.py`, once; where there is no GPU it skips itself, and that is what is noted."""
    if results.content["tests"] is not None or not budget.seconds:
        return
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-skip", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    try:
        ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=budget.seconds)
    except subprocess.TimeoutExpired:
        console.print("tests/test_cuda.py took longer than the budget", highlight=False)
        return
    last = (ran.stdout.strip().splitlines() or ["no output"])[-1]
    results.content["tests"] = {"passed": ran.returncode == 0, "last_line": last if results.on_gpu else NOT_RUN}
    results.write()


def measure(group: Group, folder: Path, settings: Mapping[str, Any], results: Results, budget: Budget) -> None:
    """All parts of a group, as far as the budget goes; a part that fails ends its lanes, and new ones go on."""
    left = list(group.parts)
    while left and budget.seconds:
        with lanes(group, left, folder, settings) as running:
            try:
                ready = [lane.heard() for lane in running]
                while left and budget.seconds:
                    console.print(f"{group.shape}, {group.precision}: {left[0]}", highlight=False)
                    found = played(left[0], running, ready[0], settings["repeats"])
                    place = {"shape": group.shape, "precision": group.precision, "part": left[0]}
                    results.content["parts"].append({**place, "best": ready[0]["best"], **found})
                    results.write()
                    left.pop(0)
            except (SideError, table.UnequalError) as error:
                console.print(f"[red]failed:[/] {error}", highlight=False)
                place = {"shape": group.shape, "precision": group.precision, "part": left.pop(0)}
                results.content["failures"].append({**place, "why": str(error)})
                results.write()


@contextmanager
def lanes(group: Group, parts: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Iterator[list[Side]]:
    """As many processes as the widest of the parts needs, each with its role in every part."""
    size = SIZES[group.shape]
    shared = {
        **settings,
        "base": str(folder),
        "precision": group.precision,
        "vocabulary": gpu_sides.SHAPES[group.shape]["vocab_size"],
        "pairs_per_step": size.pairs,
        "max_length": size.max_length,
        "prompts": size.prompts,
        "new_tokens": size.new_tokens,
        "scored_pairs": size.scored_pairs,
        "train": "drawn",
        "val": "drawn",
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(vs_trl.side({**shared, "side": side, "roles": roles}, {}, HERE / "gpu_sides.py"))
            for side, roles in zip(("ours", "trl", "trl, too"), roles_of(parts), strict=False)
        ]


def roles_of(parts: Sequence[str]) -> list[list[tuple[str, str]]]:
    """For each lane that is needed, its parts in order with the role in them."""
    count = max(len(LANES[part]) for part in parts)
    return [[(part, LANES[part][lane]) for part in parts if lane < len(LANES[part])] for lane in range(count)]


def played(part: str, running: Sequence[Side], ready: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """One part, the lanes taking turns.

    Raises:
        SideError: a lane failed.
        UnequalError: they did not do the same work.
    """
    roles, trained = LANES[part], part in table.TRAINED
    heard: dict[str, list[dict[str, Any]]] = {role: [] for role in roles}
    equal: dict[str, float] = {}
    for number in range(1 + trained + repeats):
        for role, lane in zip(roles, running, strict=False):
            heard[role].append(lane.turn())
        if number == (0 if trained else 1):
            last = {role: turns[-1] for role, turns in heard.items()}
            equal = vs_trl.equality_of(part, ready["compute"], last)
            if vs_trl_sides.BEST in last:
                best = table.check_training(part, ready["compute"], last["ours"], last[vs_trl_sides.BEST])
                equal |= {f"{name}, TRL at its best": value for name, value in best.items()}
        console.print(f"  turn {number}: {vs_trl.seconds_of(heard)}", highlight=False)
    kept = {role: vs_trl.kept_of(turns[1 + trained :]) for role, turns in heard.items()}
    return {"compute": ready["compute"], "device": ready["device"], "equal": equal, "sides": kept}


# The page.

HEADINGS = (
    "part",
    "align-bench, tokens/s",
    "TRL, tokens/s",
    "TRL at its best",
    "times TRL",
    "times TRL at its best",
    "gate",
    "memory, GB: align-bench / TRL / best",
    "MFU: align-bench / best",
)


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a page; what no GPU has made says so."""
    where, settings = result["environment"], result["settings"]
    gpu = where["device"] != "cpu"
    tests = result["tests"]
    lines = [
        "# align-bench against TRL on one GPU",
        "",
        f"`{result['command']}`",
        "",
        f"{where['device'] if gpu else ON_A_CPU}; "
        + ", ".join(f"{name} {version}" for name, version in where["libraries"].items())
        + f"; commit {where['commit']}.",
        "",
        "Weights drawn at random in the shapes named, rows of random ids, LoRA r = 16 on all linear layers; medians of "
        f"{settings['repeats']} repeats after a warm-up, the sides taking turns.",
        "",
        f"`tests/test_cuda.py`: {'not run' if tests is None else tests['last_line']}.",
    ]
    if settings["graphs"]:
        lines += ["", "align-bench trains and answers with `cuda_graphs: true`."]
    device = next((one for one in GPUS.values() if one.is_named(where["device"])), None)
    for precision in settings["precision"]:
        for shape in settings["shapes"]:
            own = [one for one in result["parts"] if (one["shape"], one["precision"]) == (shape, precision)]
            found = {one["part"]: one for one in own}
            size = SIZES[shape]
            lines += [
                "",
                f"## {shape}, {precision}",
                "",
                f"{size.pairs} pairs per step, ≤ {size.max_length} tokens.",
                "",
            ]
            if own and (best := [name for name, on in own[0]["best"].items() if on]):
                lines += [f"TRL at its best: {', '.join(f'`{name}`' for name in best)}.", ""]
            peak = None if device is None or not own else (device.bf16 or device.fp32)
            lines += [_cells(HEADINGS), _cells(("---",) * len(HEADINGS))]
            lines += [
                _cells(_row(part, found[part], shape, peak) if part in found else (part, NOT_RUN, *[""] * 7))
                for part in settings["parts"]
            ]
    if result["failures"]:
        lines += ["", "Without a result:", ""]
        lines += [f"- {one['shape']}, {one['precision']}, {one['part']}: {one['why']}" for one in result["failures"]]
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = (
    "Tokens are those of prompts and answers, padding excluded, each answer with a prompt of its own. Against TRL",
    "as it comes, steps of DPO and KTO are charged with the base's passes over their rows, as TRL's compute them in",
    "every step; TRL at its best has them computed before, and so the step alone is held against it. Online, PPO",
    "stands beside TRL's RLOO, another method without a critic.",
    "",
    "MFU is 4N operations per trained token (2N where nothing is trained), N the weights of all matrices with the",
    "head, over the device's dense bf16 peak, of tokens as above: a shared prompt counts for each of its answers.",
)


def _row(part: str, found: Mapping[str, Any], shape: str, peak: float | None) -> tuple[str, ...]:
    ours, theirs, best = _sides(part, found["sides"])
    ratios = ratios_of(part, found["sides"])
    rates = [_rate(charged(part, ours)), _rate(theirs), "" if best is None else _rate(best)]
    gate = f"{GATES[shape]:g}" if best is not None and shape in GATES else ""
    memory = " / ".join("–" if one is None else f"{one['peak_bytes'] / 1e9:.2f}" for one in (ours, theirs, best))
    operations = (4 if part in table.METHODS else 2) * gpu_sides.parameters_in_matrices(shape)
    on_gpu = found["device"] != "cpu"
    uses = [_mfu(one, operations, peak) for one in (ours, best) if one is not None] if on_gpu else [NOT_RUN]
    return (part, *rates, str(ratios[AS_IT_COMES]), str(ratios.get(AT_ITS_BEST, "")), gate, memory, " / ".join(uses))


def ratios_of(part: str, sides: Mapping[str, Any]) -> dict[str, table.Spread]:
    """How many times less ours takes, per token, than TRL as it comes, and at its best where that took part."""
    ours, theirs, best = _sides(part, sides)
    found = {AS_IT_COMES: table.ratios(_by_token(theirs), _by_token(charged(part, ours)))}
    if best is not None:
        found[AT_ITS_BEST] = table.ratios(_by_token(best), _by_token(ours))
    return found


def charged(part: str, ours: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our side with all that TRL as it comes does in its time: the base's passes over the same rows, too."""
    if part == "scoring":
        return {**ours, "seconds": ours["both_seconds"]}
    return {**ours, "seconds": table.with_reference(ours)} if "reference_seconds" in ours else ours


def _sides(
    part: str, sides: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]:
    """Ours, TRL's, and TRL's at its best where that took part."""
    return sides[LANES[part][0]], sides["trl"], sides.get(vs_trl_sides.BEST)


def rows_of(result: Mapping[str, Any], source: str) -> list[history.Row]:
    """Its rows of the log of performance, one for each shape and precision."""
    where = result["environment"]
    groups = dict.fromkeys((one["shape"], one["precision"]) for one in result["parts"])
    found = []
    for shape, precision in groups:
        own = [one for one in result["parts"] if (one["shape"], one["precision"]) == (shape, precision)]
        times = {
            f"{one['part']}, {against}": ratio
            for one in own
            for against, ratio in ratios_of(one["part"], one["sides"]).items()
        }
        setting = {
            "precision": precision,
            "compute": sorted({one["compute"] for one in own}),
            "allocator": "stock",
            "base": f"{shape}, weights drawn at random",
            "pairs_per_step": SIZES[shape].pairs,
            "max_length": SIZES[shape].max_length,
            "repeats": result["settings"]["repeats"],
            **({"graphs": True} if result["settings"]["graphs"] else {}),
        }
        parts = {one["part"]: {**one["sides"], "ours": one["sides"][LANES[one["part"]][0]]} for one in own}
        found.append(history.row(where, source, setting, times, parts))
    return found


def _by_token(side: Mapping[str, Any]) -> list[float]:
    """Seconds per token, so that sides that sampled different answers can be compared."""
    return [seconds / tokens for seconds, tokens in zip(side["seconds"], side["tokens"], strict=True)]


def _rate(side: Mapping[str, Any]) -> str:
    return f"{1 / median(_by_token(side)):,.0f}"


def _mfu(side: Mapping[str, Any], operations: int, peak: float | None) -> str:
    return "n/a" if peak is None else f"{operations / median(_by_token(side)) / peak:.0%}"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    real = [shape for shape in SIZES if shape != "tiny"]
    parser.add_argument("--budget", type=float, default=8, metavar="MINUTES", help="begin no part after so long")
    parser.add_argument("--shapes", nargs="+", choices=real, default=real)
    parser.add_argument("--precision", nargs="+", choices=("bf16", "nf4", "fp32"), default=["bf16", "nf4"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3, help="timed turns of each side, after a warm-up")
    parser.add_argument(
        "--graphs", action="store_true", help="cuda_graphs: true where ours trains and answers; give more --repeats"
    )
    parser.add_argument("--no-tests", action="store_true", help="leave tests/test_cuda.py out")
    parser.add_argument("--tiny", action="store_true", help="a shape of a few thousand weights in fp32 on the CPU")
    parser.add_argument("--out", type=Path, help="the result; one of today's in benchmarks/results if not given")
    given = parser.parse_args()
    if given.tiny:
        given.shapes, given.precision, given.repeats = ["tiny"], ["fp32"], 1
    elif not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs the same code on the CPU")
    return given


def main() -> int:
    """Measure what is missing, as far as the budget goes."""
    given = arguments()
    kind = f"{'-graphs' if given.graphs else ''}{'-tiny' if given.tiny else ''}"
    name = f"{datetime.now(UTC):%Y-%m-%d}-gpu-sizes{kind}.json"
    path = given.out or HERE / "results" / name
    make_folder(path.parent)
    settings = {
        "shapes": given.shapes,
        "precision": given.precision,
        "parts": given.parts,
        "repeats": given.repeats,
        "device": "cpu" if given.tiny else "cuda",
        "checkpointing": False,
        "graphs": given.graphs,
    }
    results, budget = Results(path, settings), Budget(given.budget)
    if not given.no_tests:
        run_tests(results, budget)
    left = 0
    with tempfile.TemporaryDirectory() as scratch:
        for precision in given.precision:
            for shape in given.shapes:
                missing = tuple(part for part in given.parts if part not in results.done(shape, precision))
                if not missing or not budget.seconds:
                    left += len(missing)
                    continue
                folder = Path(scratch) / shape
                if not folder.is_dir():
                    draw(shape, folder)
                measure(Group(shape, precision, missing), folder, settings, results, budget)
                left += len([part for part in missing if part not in results.done(shape, precision)])
    results.write()
    console.print(markdown(results.content), markup=False, highlight=False)
    if left:
        console.print(f"out of time; {left} parts are left: the same command with --out {path} goes on")
    if results.on_gpu and path.parent.resolve() == HERE / "results":
        history.add(rows_of(results.content, path.name))
    return 1 if results.content["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
