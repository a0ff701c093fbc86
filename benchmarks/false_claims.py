"""How often the statistics claim what is not so: simulated comparisons whose truth is known.

Scores are `difficulty of the prompt + effect of the seed + noise of the answer`, the noise with standard deviation 1
and the seed's effect with a twentieth of that. The tests are the package's own. A rate near 5% is nominal; that of the
paired t between checkpoints of identical methods is not, which is why it is no claim about methods.

Example:
    python benchmarks/false_claims.py --repetitions 1000 --output benchmarks/results/false_claims
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from align_bench.metrics.accuracy import share
from align_bench.runner.environment import environment
from align_bench.stats.bootstrap import bca_means
from align_bench.stats.equivalence import prompt_spread, tost_methods, tost_paired
from align_bench.stats.paired import holm, mcnemar_exact, paired_t, wilcoxon_p
from align_bench.stats.power import detectable_effect
from align_bench.stats.seeds import crossed

SEED_NOISE = 0.05
ALPHA = 0.05
Matrix = npt.NDArray[np.float64]
Claims = dict[str, bool]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulated truth.

    Attributes:
        name: what is true.
        wanted: what a right test would do.
        once: one repetition: test → whether it made the claim.
        repeats: simulated this many times as often as the others.
    """

    name: str
    wanted: str
    once: Callable[[np.random.Generator], Claims]
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a test made its claim, with Wilson's 95% interval."""

    scenario: str
    wanted: str
    test: str
    rate: float
    low: float
    high: float
    repetitions: int


def main() -> None:
    """Simulate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="writes OUTPUT.json and OUTPUT.md")
    arguments = parser.parse_args()
    start = time.perf_counter()
    rates = [
        rate
        for number, scenario in enumerate(scenarios(arguments.prompts))
        for rate in measured(
            scenario, scenario.repeats * arguments.repetitions, np.random.default_rng([arguments.seed, number])
        )
    ]
    Console().print(table(rates))
    if arguments.output is not None:
        save(arguments.output, rates, arguments, time.perf_counter() - start)


def scenarios(prompts: int) -> Iterator[Scenario]:
    """Every simulated truth.

    Args:
        prompts: prompts of each comparison.
    """
    for shared in (0.0, 0.5, 0.8):
        yield Scenario(
            f"two identical methods, one seed each; checkpoints share {shared:.0%} of the noise",
            "no claim about methods",
            partial(between_checkpoints, prompts=prompts, shared=shared),
        )
    for seeds in (3, 5):
        yield Scenario(
            f"two identical methods, {seeds} seeds each",
            "5%",
            partial(between_methods, prompts=prompts, seeds=seeds),
            repeats=5,
        )
    yield Scenario(
        "two methods, 3 seeds each, equal over all prompts; on each they differ by as much as answers do",
        "5%",
        lambda rng: between_methods(rng, prompts, 3, own_taste=1.0),
    )
    yield Scenario("a method that is the base again, 3 seeds", "5%", lambda rng: against_the_base(rng, prompts, 3))
    yield Scenario(
        "two equal checkpoints, 4 pairs a prompt that share half their noise",
        "5%",
        lambda rng: clustered(rng, prompts // 4),
    )
    yield Scenario("seven equal checkpoints, 21 tests, any claim", "5%", lambda rng: family(rng, prompts))
    yield Scenario(
        "two checkpoints that differ by just the margin of equivalence (dz 0.1)",
        "5%",
        lambda rng: equivalent(rng, prompts, 0.1),
    )
    yield Scenario("two equal checkpoints", "often: equivalence is true", lambda rng: equivalent(rng, prompts, 0.0))
    effect = detectable_effect(prompts)
    assert effect is not None
    yield Scenario(
        f"two checkpoints that differ by the smallest detectable dz, {effect:.3f}",
        "80%",
        lambda rng: {"paired t": rejects(paired_t(*_pair(rng, prompts, effect)).p)},
    )


def measured(scenario: Scenario, repetitions: int, rng: np.random.Generator) -> list[Rate]:
    """How often each test of a scenario makes its claim."""
    claims = [scenario.once(rng) for _ in track(range(repetitions), scenario.name[:60], console=Console(stderr=True))]
    found = []
    for test in claims[0]:
        made = share(sum(claim[test] for claim in claims), repetitions)
        assert made.value is not None
        assert made.low is not None
        assert made.high is not None
        wanted = "no claim about methods" if test.startswith("checkpoint") else scenario.wanted
        found.append(Rate(scenario.name, wanted, test, made.value, made.low, made.high, repetitions))
    return found


def scores(
    rng: np.random.Generator, seeds: int, prompts: int, own: Matrix | float = 0.0, shared: float = 0.0
) -> Matrix:
    """Scores of one method, a row a seed; the difficulty of prompts, which pairing removes, is left out.

    Args:
        own: what the method adds on each prompt.
        shared: share of the noise's variance that all seeds have in common (drawn by the caller as part of `own`).
    """
    noise = math.sqrt(1 - shared) * rng.normal(size=(seeds, prompts))
    return own + SEED_NOISE * rng.normal(size=(seeds, 1)) + noise


def between_checkpoints(rng: np.random.Generator, prompts: int, shared: float) -> Claims:
    """One checkpoint of each of two identical methods."""
    common = math.sqrt(shared) * rng.normal(size=prompts)
    a, b = (scores(rng, 1, prompts, common, shared)[0] for _ in range(2))
    low, high = bca_means((a - b)[:, None])[0]
    return {
        "checkpoint: paired t": rejects(paired_t(a, b).p),
        "checkpoint: Wilcoxon": rejects(wilcoxon_p(a, b)),
        "checkpoint: BCa excludes 0": not low <= 0 <= high,
    }


def between_methods(rng: np.random.Generator, prompts: int, seeds: int, own_taste: float = 0.0) -> Claims:
    """Several checkpoints of each of two methods that are equal over all prompts."""
    a, b = (scores(rng, seeds, prompts, own_taste * rng.normal(size=prompts)) for _ in range(2))
    return {
        "checkpoint: paired t of the first seeds": rejects(paired_t(a[0], b[0]).p),
        "method: crossed t (seeds × prompts)": rejects(crossed(a, b).tested().p),
    }


def against_the_base(rng: np.random.Generator, prompts: int, seeds: int) -> Claims:
    """Checkpoints of a method that learnt nothing against the base, which answered once."""
    a, base = scores(rng, seeds, prompts), rng.normal(size=(1, prompts))
    return {
        "checkpoint: paired t of the first seed": rejects(paired_t(a[0], base[0]).p),
        "method: crossed t (seeds × prompts)": rejects(crossed(a, base, b_trained=False).tested().p),
    }


def clustered(rng: np.random.Generator, prompts: int) -> Claims:
    """Right or wrong on four pairs a prompt, whose differences have a common part."""
    clusters = np.repeat(np.arange(prompts), 4)
    a, b = (
        (
            math.sqrt(0.5) * rng.normal(size=prompts)[clusters] + math.sqrt(0.5) * rng.normal(size=4 * prompts) > 0
        ).astype(np.float64)
        for _ in range(2)
    )
    return {
        "exact McNemar, pairs taken as independent": rejects(mcnemar_exact(a, b).p),
        "clustered t": rejects(paired_t(a, b, clusters.tolist()).p),
    }


def family(rng: np.random.Generator, prompts: int) -> Claims:
    """Every pair of seven equal checkpoints, without noise of seeds."""
    every = rng.normal(size=(7, prompts))
    p_values = [paired_t(every[a], every[b]).p for a in range(7) for b in range(a)]
    return {
        "paired t, any of 21 below 5%": any(map(rejects, p_values)),
        "paired t, any of 21 below 5% after Holm": any(map(rejects, holm(p_values))),
    }


def equivalent(rng: np.random.Generator, prompts: int, dz: float) -> Claims:
    """Whether equivalence within ±0.1 standard deviations of the differences is claimed."""
    a, b = _pair(rng, prompts, dz)
    spread = prompt_spread(a[None], b[None])
    assert spread is not None
    by_seed = [np.stack([_pair(rng, prompts, dz)[side] for _ in range(3)]) for side in (0, 1)]
    over_seeds = prompt_spread(by_seed[0], by_seed[1])
    assert over_seeds is not None
    methods = crossed(by_seed[0], by_seed[1])
    return {
        "TOST between checkpoints": rejects(tost_paired(a, b, 0.1 * spread)),
        "TOST between methods, 3 seeds without noise of their own": rejects(tost_methods(methods, 0.1 * over_seeds)),
    }


def rejects(p: float | None) -> bool:
    """Whether a p-value is below 5%."""
    return p is not None and p < ALPHA


def _pair(rng: np.random.Generator, prompts: int, dz: float) -> tuple[Matrix, Matrix]:
    """Two checkpoints whose difference has the mean dz × its standard deviation, √2."""
    return rng.normal(size=prompts) + dz * math.sqrt(2), rng.normal(size=prompts)


def table(rates: list[Rate]) -> Table:
    """The rates for the terminal."""
    shown = Table("truth", "test", "claims", "95% interval", "wanted")
    for rate in rates:
        shown.add_row(rate.scenario, rate.test, f"{rate.rate:.1%}", f"{rate.low:.1%} – {rate.high:.1%}", rate.wanted)
    return shown


def save(output: Path, rates: list[Rate], arguments: argparse.Namespace, seconds: float) -> None:
    """Write the rates with the command that made them, as JSON and as Markdown."""
    command = f"python benchmarks/false_claims.py {' '.join(sys.argv[1:])}".strip()
    settings = {"repetitions": arguments.repetitions, "prompts": arguments.prompts, "seed": arguments.seed}
    facts = {"command": command, "settings": settings, "seconds": round(seconds), "environment": environment()}
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {**facts, "rates": [asdict(rate) for rate in rates]}
    output.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# How often the statistics claim what is not so\n",
        f"Made by `{command}`; {arguments.prompts:,} prompts a comparison; noise "
        f"of seeds {SEED_NOISE:.0%} of that of answers.\n",
        "| truth | test | claims | 95% interval | of | wanted |",
        "|:---|:---|---:|---:|---:|:---|",
        *(
            f"| {rate.scenario} | {rate.test} | {rate.rate:.1%} | {rate.low:.1%} – {rate.high:.1%} "
            f"| {rate.repetitions:,} | {rate.wanted} |"
            for rate in rates
        ),
    ]
    output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
