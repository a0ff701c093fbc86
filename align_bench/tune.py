"""What a suite's `tune` tries: points of the declared ranges, on rows held out of train. Pure: no torch, no I/O."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from align_bench.api import Algorithm
from align_bench.errors import DataError
from align_bench.records import TokenRow
from align_bench.suite.models import Tune


def points(algorithm: Algorithm, given: Mapping[str, Any], tune: Tune) -> list[dict[str, Any]]:
    """The hyper-parameters of a method's trials: the given ones, then points of its declared ranges.

    A random point depends on the seed, the method and its own number only, so more trials keep the earlier ones. A
    grid has the fewest equal steps on every range that make enough points; where they make more, a seeded draw of them.

    Args:
        algorithm: the method.
        given: all its hyper-parameters, `learning_rate` included.
        tune: how many, and how they are sought.

    Returns:
        `tune.trials` points, each with all hyper-parameters; none for a method without ranges or without training.
    """
    ranges = algorithm.searched
    if not ranges:
        return []
    shares = {"random": _random, "grid": _grid}[tune.search](
        tune.trials - 1, len(ranges), f"{tune.seed}/{algorithm.name}"
    )
    drawn = [
        {name: _typed(algorithm, name, span.at(share)) for (name, span), share in zip(ranges.items(), own, strict=True)}
        for own in shares
    ]
    return [dict(given), *({**given, **point} for point in drawn)]


def cut(
    rows: Sequence[TokenRow], apart: Collection[tuple[int, ...]], tune: Tune
) -> tuple[list[TokenRow], list[TokenRow]]:
    """Cut training rows by prompt: those that trials train on, and the pairs that they are measured on.

    Args:
        rows: the tokenised training rows.
        apart: prompts that are never held out, which are those of val.
        tune: which share of the other prompts is held out, and the seed that picks them.

    Returns:
        Rows to train on, and held-out rows with both answers. No prompt is in both.

    Raises:
        DataError: when one of them would be empty.
    """
    known = set(apart)
    prompts = [prompt for prompt in dict.fromkeys(row.prompt for row in rows) if prompt not in known]
    random.Random(f"tune/{tune.seed}").shuffle(prompts)
    held = set(prompts[: max(1, round(tune.holdout * len(prompts)))])
    kept = [row for row in rows if row.prompt not in held]
    pairs = [row for row in rows if row.prompt in held and row.chosen is not None and row.rejected is not None]
    if not kept or not pairs:
        raise DataError(
            f"tune.holdout={tune.holdout:g} of {len(prompts)} prompts of data.train that are not in data.val leaves "
            f"{len(kept)} rows to train on and {len(pairs)} pairs to measure on, expected some of both",
            fix="use more training pairs or another tune.holdout, or leave tune out",
        )
    return kept, pairs


def best(scores: Sequence[float | None]) -> int:
    """The number of the highest score, the earlier one of equals; 0 when none is defined."""
    defined = [(score, -number) for number, score in enumerate(scores) if score is not None]
    return -max(defined)[1] if defined else 0


def _random(count: int, axes: int, seed: str) -> list[list[float]]:
    """Points of the unit cube, each from a generator of its own."""
    generators = [random.Random(f"tune/{seed}/{number}") for number in range(count)]
    return [[generator.random() for _ in range(axes)] for generator in generators]


def _grid(count: int, axes: int, seed: str) -> list[list[float]]:
    """Points of a regular grid over the unit cube, its ends included."""
    steps = 2
    while steps**axes < count:
        steps += 1
    numbers = random.Random(f"tune/{seed}").sample(range(steps**axes), count)
    return [[number // steps**axis % steps / (steps - 1) for axis in range(axes)] for number in numbers]


def _typed(algorithm: Algorithm, name: str, value: float) -> float:
    whole = name in algorithm.parameters and algorithm.parameters[name].type is int
    return round(value) if whole else value
