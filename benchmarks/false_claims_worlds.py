"""Simulated suites whose truth is known: what is drawn, and what an endless number of prompts and seeds would show."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
Noise = Literal["normal", "lognormal", "t3"]
POPULATION = 200_000
# Of pairs: the mean margin of a reward model, and how much of a margin comes of a standard deviation of words.
SKILL, LENGTH_BIAS = 0.5, 0.3
FEWEST_WORDS, MOST_WORDS = 5, 34


@dataclass(frozen=True, slots=True)
class World:
    """What is true of a simulated suite, and its size.

    A score is the prompt's difficulty + the method's taste for the prompt + the method's effect + the seed's effect +
    the noise of the answer; the noise has standard deviation 1, and so has the difficulty. Methods are identical but
    for the first one's gain.

    Attributes:
        methods, seeds, prompts: how many; each method has these seeds.
        seed_noise: standard deviation of the seeds' effects.
        taste: that of a method's taste.
        noise: the distribution of the noise, scaled to mean 0 and standard deviation 1.
        step: scores are rounded to its multiples, so that many are tied; 0: they are not.
        binary: scores are 1 above 0, else 0.
        samples: answers to each prompt. They share half the variance of their noise, unless there is one.
        pairs: mean number of pairs per prompt, from 1 to 2 × pairs − 1; they share half as well. 0: answers, no pairs.
        gain: the first method's effect, in standard deviations of the difference of two checkpoints on one prompt.
        base: whether the base is there, a checkpoint of effect 0 without a seed.
        declared: whether the suite declares the noise of its seeds.
    """

    methods: int = 2
    seeds: int = 3
    prompts: int = 100
    seed_noise: float = 0.1
    taste: float = 0.0
    noise: Noise = "normal"
    step: float = 0.0
    binary: bool = False
    samples: int = 1
    pairs: int = 0
    gain: float = 0.0
    base: bool = False
    declared: bool = False

    @property
    def central(self) -> bool:
        """Whether it is worth counting what one checkpoint's numbers do: they do not depend on methods and seeds."""
        central = World()
        return not (self.gain or self.base) and all(
            getattr(self, name) == getattr(central, name) for name in ("methods", "seeds", "seed_noise")
        )

    @property
    def effects(self) -> Vector:
        """Each method's effect; the base's last, where it is there."""
        found = np.zeros(self.methods + self.base)
        found[0] = self.gain * self.spread
        return found

    @property
    def spread(self) -> float:
        """Standard deviation of the difference between two checkpoints of different methods on one prompt."""
        return math.sqrt(2 * (1 + self.taste**2))

    @property
    def law(self) -> World:
        """What the distribution of a single score depends on; the rest is as of a world by default."""
        kept = ("taste", "noise", "step", "binary")
        split = self.samples > 1 or self.pairs > 1
        return World(
            **{name: getattr(self, name) for name in kept}, samples=1 + split, pairs=int(self.pairs > 0), seed_noise=0
        )

    def __str__(self) -> str:
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        facts = [
            f"{self.methods} methods × {seeds}" if self.methods > 1 else f"1 method × {seeds}",
            *(["and the base"] if self.base else []),
            f"{self.prompts} prompts",
            f"seed noise {self.seed_noise:.0%}{' (declared)' if self.declared else ''}",
            *([f"dz {self.gain:g}"] if self.gain else []),
            *([f"taste {self.taste:g}"] if self.taste else []),
            *(
                [{"lognormal": "lognormal noise", "t3": "noise of t with 3 df"}[self.noise]]
                if self.noise != "normal"
                else []
            ),
            *([f"rounded to {self.step:g}"] if self.step else []),
            *(["right or wrong"] if self.binary else []),
            *([f"{self.samples} samples"] if self.samples > 1 else []),
            *([f"1 to {2 * self.pairs - 1} pairs per prompt" if self.pairs > 1 else "pairs"] if self.pairs else []),
        ]
        return ", ".join(facts).replace(", and", " and")


@dataclass(frozen=True, slots=True)
class Draw:
    """One simulated suite's scores.

    Attributes:
        shifts: each method's checkpoints' effects, shape [methods, seeds]; the base's is 0.
        scores: a table per method, the base's last, each of shape [seeds, units].
        latent: the same before they were rounded or made binary.
        prompts: the prompt of each unit (a sample, or a pair).
        words: of pairs: the words of the chosen and of the rejected answer, shape [2, units].
    """

    shifts: Vector
    scores: list[Vector]
    latent: list[Vector]
    prompts: Places
    words: Vector


def drawn(world: World, rng: np.random.Generator) -> Draw:
    """The scores of a suite.

    Args:
        world: what is true of it.
        rng: where they are drawn from.
    """
    prompts = _units(world, rng)
    difficulty = rng.normal(size=world.prompts)[prompts]
    words = _words(rng, len(prompts)) if world.pairs else np.zeros((2, 0))
    if world.pairs:
        difficulty = difficulty + SKILL + LENGTH_BIAS * _scaled_words(words)
    shifts = world.effects[: world.methods, None] + world.seed_noise * rng.normal(size=(world.methods, world.seeds))
    levels = [*shifts, *([np.zeros(1)] if world.base else [])]
    latent = [difficulty + _own(world, rng, len(own), prompts) + own[:, None] for own in levels]
    return Draw(shifts, [measured(world, own) for own in latent], latent, prompts, words)


def measured(world: World, latent: Vector) -> Vector:
    """Scores as they are seen: rounded, or right or wrong, as the world has it."""
    rounded = np.round(latent / world.step) * world.step if world.step else latent
    return right(rounded) if world.binary else rounded


def right(margins: Vector) -> Vector:
    """1 above 0, ½ at 0, else 0."""
    found: Vector = (np.sign(margins) + 1) / 2
    return found


def noise(rng: np.random.Generator, kind: Noise, size: int | tuple[int, ...]) -> Vector:
    """Noise of mean 0 and standard deviation 1."""
    if kind == "lognormal":
        return (rng.lognormal(size=size) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    return rng.standard_t(3, size=size) / math.sqrt(3) if kind == "t3" else rng.normal(size=size)


@dataclass(frozen=True, slots=True)
class Population:
    """Very many prompts, each with an answer (or pair) of a checkpoint of each of two methods, without their effects.

    Attributes:
        a, b: the two checkpoints' scores.
        seeds: a standard normal seed's effect of each.
        words: of pairs.
    """

    a: Vector
    b: Vector
    seeds: Vector
    words: Vector


@dataclass(frozen=True, slots=True)
class Level:
    """A checkpoint, or a method, whose seeds vary.

    Attributes:
        shift: its effect.
        spread: standard deviation over seeds; 0 of a checkpoint.
    """

    shift: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What the intervals of a world's suites are meant to cover."""

    world: World

    def mean(self, level: Level) -> float:
        """The mean score (or, of pairs, margin)."""
        if self.world.binary:
            return self.share(level)
        return level.shift + (SKILL if self.world.pairs else 0.0)

    def mean_or_share(self, level: Level) -> float:
        """What comparisons are of: the share of pairs that are right, or the mean score."""
        return self.share(level) if self.world.pairs else self.mean(level)

    def share(self, level: Level) -> float:
        """The share of scores (before they were rounded) above 0; of pairs, of margins, ties as ½."""
        if self.world.step and self.world.pairs:
            return float(right(self._margins(level)[1]).mean())
        return _above(_sorted(self.world.law, level.spread), -level.shift)

    def share_where_longer(self, level: Level, side: int) -> float:
        """Of pairs: the same where the chosen answer is the longer one (side 1) or the shorter one (−1)."""
        found, margins = self._margins(level)
        return float(right(margins)[np.sign(found.words[0] - found.words[1]) == side].mean())

    def share_under_attack(self, level: Level, attack: float) -> float:
        """Of pairs: the same of margins from which the attack takes noise of this mean and standard deviation."""
        found, margins = self._margins(level)
        return float(right(margins - attack * (1 + found.seeds[1])).mean())

    def ties(self, level: Level) -> float:
        """Of pairs: the share of margins that are 0."""
        return float((self._margins(level)[1] == 0).mean())

    def _margins(self, level: Level) -> tuple[Population, Vector]:
        found = population(self.world.law)
        margins = found.a + level.shift + level.spread * found.seeds[0]
        return found, np.round(margins / self.world.step) * self.world.step if self.world.step else margins

    def win(self, a: Level, b: Level) -> float:
        """How often an answer of a scores above one of b to the same prompt, a tie as ½."""
        law = self.world.law
        if not (law.step or law.binary):
            return _above(_sorted_differences(law, a.spread, b.spread), b.shift - a.shift)
        found = population(law)
        left, right_side = (
            measured(law, own + level.shift + level.spread * seeds)
            for own, level, seeds in zip((found.a, found.b), (a, b), found.seeds, strict=True)
        )
        won = float(right(left - right_side).mean())
        return 0.5 if a == b else won

    def std(self, level: Level) -> float:
        """The standard deviation of scores; of pairs, of both answers' rewards."""
        law = self.world.law
        if self.world.pairs:
            return math.sqrt(1 + (_margin_variance(law) + (level.shift + SKILL) ** 2) / 4)
        if law.binary:
            return math.sqrt(self.share(level) * (1 - self.share(level)))
        return math.sqrt(2 + law.taste**2 + law.step**2 / 12)

    def length_correlation(self) -> float:
        """Of pairs: the partial correlation of rewards with words, given which answer is the chosen one."""
        return LENGTH_BIAS / 2 / math.sqrt(1 + _margin_variance(self.world.law) / 4)


@lru_cache(maxsize=4)
def population(law: World) -> Population:
    """The population of a law (`World.law`), from a generator of its own."""
    rng = np.random.default_rng(12345)
    one = replace(law, samples=1, pairs=0, prompts=POPULATION)
    prompts = np.arange(POPULATION)
    words = _words(rng, POPULATION) if law.pairs else np.zeros((2, 0))
    shared = rng.normal(size=POPULATION)
    if law.pairs:
        shared = shared + SKILL + LENGTH_BIAS * _scaled_words(words)
    a, b = (shared + _own(replace(one, samples=law.samples), rng, 1, prompts)[0] for _ in range(2))
    return Population(a, b, rng.normal(size=(2, POPULATION)), words)


def _units(world: World, rng: np.random.Generator) -> Places:
    if world.pairs:
        sizes = rng.integers(1, 2 * world.pairs, size=world.prompts)
        return np.repeat(np.arange(world.prompts), sizes)
    return np.repeat(np.arange(world.prompts), world.samples)


def _own(world: World, rng: np.random.Generator, seeds: int, prompts: Places) -> Vector:
    """A method's taste and the noise of its checkpoints, shape [seeds, units]."""
    count = int(prompts[-1]) + 1
    taste = world.taste * rng.normal(size=count)[prompts]
    if world.samples == 1 and world.pairs <= 1:
        return taste + noise(rng, world.noise, (seeds, len(prompts)))
    common = noise(rng, world.noise, (seeds, count))[:, prompts]
    return taste + math.sqrt(0.5) * (common + noise(rng, world.noise, (seeds, len(prompts))))


def _words(rng: np.random.Generator, units: int) -> Vector:
    return rng.integers(FEWEST_WORDS, MOST_WORDS + 1, size=(2, units)).astype(np.float64)


def _scaled_words(words: Vector) -> Vector:
    """Words of the chosen answer less those of the rejected one, in standard deviations of words."""
    spread = math.sqrt(((MOST_WORDS - FEWEST_WORDS + 1) ** 2 - 1) / 12)
    differences: Vector = (words[0] - words[1]) / spread
    return differences


def _margin_variance(law: World) -> float:
    return 2 + law.taste**2 + 2 * LENGTH_BIAS**2 + law.step**2 / 12


@lru_cache(maxsize=8)
def _sorted(law: World, spread: float) -> Vector:
    found = population(law)
    return np.sort(np.concatenate([found.a + spread * found.seeds[0], found.b + spread * found.seeds[1]]))


@lru_cache(maxsize=8)
def _sorted_differences(law: World, spread_a: float, spread_b: float) -> Vector:
    found = population(law)
    differences = found.a - found.b + spread_a * found.seeds[0] - spread_b * found.seeds[1]
    return np.sort(np.concatenate([differences, -differences]))


def _above(ordered: Vector, bound: float) -> float:
    return float(1 - np.searchsorted(ordered, bound) / len(ordered))
