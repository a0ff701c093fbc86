"""What a suite's `tune` tries: points of each method's declared ranges."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.api import Algorithm
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
