"""Through the whole report: rows with a known truth, `build_report`, and what its numbers and its verdict say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from false_claims_tally import Question, Tally
from false_claims_worlds import Draw, Level, Truth, World, drawn, right

from align_bench.records import CellId, Estimate, Generation, Kind, MetricKey, Outcome
from align_bench.report.build import build_report
from align_bench.report.claims import Claim
from align_bench.report.rows import AttackedScores, ScoreRow
from align_bench.report.schema import BaseFacts, Environment, Header, JudgeFacts, Metrics, Report, SuiteFacts
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import GOLD

BASE = CellId("base")
JUDGE = "judge"
UNFINISHED, LOG_RATIO = 0.2, 3.0
KL_PER_TOKEN = 0.5
ATTACK = 0.5  # what the attack takes off a margin, and the standard deviation of what it adds
FIRST_ANSWER, WORDS = 3, 9  # an answer has 3 to 11 words of 4 letters


@dataclass(frozen=True, slots=True)
class Suite:
    """The rows of a simulated suite and its truth.

    Attributes:
        outcomes, scores, generations: the rows.
        truth: of its world.
        methods, checkpoints: their effects. With one seed a method and its checkpoint have the same id.
        rich: whether answers have all that they can have.
    """

    outcomes: list[Outcome]
    scores: list[ScoreRow]
    generations: list[Generation]
    truth: Truth
    methods: dict[CellId, Level]
    checkpoints: dict[CellId, Level]
    rich: bool

    def level(self, cell: CellId, level: str) -> Level:
        """The effect of a checkpoint, or of a method."""
        return (self.methods if level == "method" else self.checkpoints)[cell]


def through_report(world: World, rng: np.random.Generator, rich: bool = False) -> Tally:
    """Simulate a suite, build its report, and count what it says.

    Args:
        world: what is true.
        rng: where the suite is drawn from.
        rich: give answers lengths of their own, log-probabilities and gold's verdicts, so that every kind of interval
            is there; otherwise only what the judge (or gold) says.
    """
    suite = simulated(world, rng, rich)
    declared = world.seed_noise / world.spread if world.declared else None
    report = build_report(header(declared), suite.outcomes, suite.scores, suite.generations)
    return counted(report, suite)


def simulated(world: World, rng: np.random.Generator, rich: bool = False) -> Suite:
    """The rows of a suite: of policies that answer prompts, or of reward models that score pairs."""
    draw = drawn(world, rng)
    methods = [CellId(f"m{number}") for number in range(world.methods)]
    cells = [
        [CellId(own.name, seed=seed if world.seeds > 1 else None) for seed in range(world.seeds)] for own in methods
    ]
    of_methods = {
        method: Level(float(effect), world.seed_noise) for method, effect in zip(methods, world.effects, strict=False)
    }
    checkpoints = {
        cell: Level(float(shift))
        for own, shifts in zip(cells, draw.shifts, strict=True)
        for cell, shift in zip(own, shifts, strict=True)
    }
    kind: Kind = "reward" if world.pairs else "policy"
    outcomes = [Outcome(cell, cell.name, kind, {}, cell.seed or 0, "done") for own in cells for cell in own]
    if world.base:
        cells.append([BASE])
        of_methods[BASE] = checkpoints[BASE] = Level(0.0)
        outcomes.insert(0, Outcome(BASE, "base", "base", {}, 0, "done"))
    flat = [
        (cell, scores, latent)
        for own, table, latents in zip(cells, draw.scores, draw.latent, strict=True)
        for cell, scores, latent in zip(own, table, latents, strict=True)
    ]
    rows = [row for cell, scores, _ in flat for row in _pairs(cell, scores, draw, rng)] if world.pairs else []
    answers = (
        []
        if world.pairs
        else [row for cell, scores, latent in flat for row in _answers(world, cell, scores, latent, draw, rng, rich)]
    )
    return Suite(outcomes, rows, answers, Truth(world), of_methods, checkpoints, rich)


def _answers(
    world: World,
    cell: CellId,
    scores: np.ndarray,
    latent: np.ndarray,
    draw: Draw,
    rng: np.random.Generator,
    rich: bool,
) -> Iterator[Generation]:
    units = len(scores)
    words = rng.integers(FIRST_ANSWER, FIRST_ANSWER + WORDS, size=units) if rich else np.full(units, FIRST_ANSWER)
    kl = rng.gamma(2.0, KL_PER_TOKEN / 2, size=units) * (words + 1)
    ratio, ended = LOG_RATIO + 2 * rng.normal(size=units), rng.random(units) >= UNFINISHED
    sampled = {GOLD if world.binary else JUDGE: scores}
    if rich and not world.binary:
        sampled[GOLD] = right(latent)
    drifts = rich and cell != BASE
    for unit in range(units):
        yield Generation(
            cell=str(cell),
            algorithm=cell.name,
            seed=cell.seed or 0,
            prompt_id=int(draw.prompts[unit]),
            sample=unit % world.samples,
            prompt="?",
            text=" ".join(["word"] * int(words[unit])),
            tokens=int(words[unit]) + 1,
            finished=bool(ended[unit]) or not rich,
            scores={judge: float(own[unit]) for judge, own in sampled.items()},
            logp=float(ratio[unit]) - 10 if drifts else None,
            ref_logp=-10.0 if drifts else None,
            kl=float(kl[unit]) if drifts else None,
        )


def _pairs(cell: CellId, margins: np.ndarray, draw: Draw, rng: np.random.Generator) -> Iterator[ScoreRow]:
    units, prompts = len(margins), draw.prompts
    repeated = len(set(prompts.tolist())) < units
    common = rng.normal(size=int(prompts[-1]) + 1)[prompts]
    level = np.sqrt(0.5) * (common + rng.normal(size=units)) if repeated else common
    attacked = margins - ATTACK * (1 + rng.normal(size=units))
    for unit in range(units):
        half, under = margins[unit] / 2, attacked[unit] / 2
        # Both in turn, so that a margin of 0 is a tie to the last bit.
        yield ScoreRow(
            cell=str(cell),
            algorithm=cell.name,
            seed=cell.seed or 0,
            pair=unit,
            prompt_id=int(prompts[unit]),
            chosen_reward=float(level[unit] + half),
            rejected_reward=float(level[unit] - half),
            chosen_words=int(draw.words[0, unit]),
            rejected_words=int(draw.words[1, unit]),
            chosen_tokens=int(draw.words[0, unit]) + 1,
            rejected_tokens=int(draw.words[1, unit]) + 1,
            attacked=(AttackedScores(0.1, float(under), float(-under)),),
        )


def header(seed_noise: float | None = None) -> Header:
    """What was run: nothing.

    Args:
        seed_noise: what the suite declares, in standard deviations of the difference of two checkpoints on one prompt.
    """
    environment = Environment(
        align_bench="", commit=None, python="", system="", processor="", threads=1, device="cpu", libraries={}
    )
    return Header(
        command="",
        suite=SuiteFacts(
            name="simulated", state="", settings={"report": {"seed_noise": seed_noise}} if seed_noise else {}
        ),
        base=BaseFacts(name="none", digest="", precision=""),
        data={},
        judges=[JudgeFacts(name=JUDGE, cells=[], status="done", rewarded=[])],
        environment=environment,
    )


def counted(report: Report, suite: Suite) -> Tally:
    """What a report says of a suite."""
    tally = Tally()
    for result in report.results:
        truths = _of_pairs if suite.truth.world.pairs else _of_answers
        for what, estimate, truth in truths(result.metrics, suite, result.cell):
            tally.estimated(what, estimate, truth)
    _count_comparisons(report, suite, tally)
    _count_claims(report, suite, tally)
    _count_words(report, suite, tally)
    for found in report.policies.win_rates:
        truth = suite.truth.win(suite.level(found.a, found.level), suite.level(found.b, found.level))
        tally.estimated(f"win rates between {found.level}s", found.rate, truth)
    for gain in report.policies.gold_against_judge:
        level = suite.checkpoints[gain.cell]
        tally.estimated("gain by the judge", gain.judge_gain, suite.truth.mean(level))
        truth = suite.truth.share(level) - suite.truth.share(suite.checkpoints[BASE])
        tally.estimated("gain by gold", gain.gold_gain, truth)
    for ranking in report.rankings:
        for row in ranking.methods if not suite.truth.world.gain else ():
            if ranking.level == "method":
                tally.covers("ranks of identical methods", row.low, row.high, (len(ranking.methods) + 1) / 2)
    if suite.truth.world.pairs:
        longer = report.baselines.longer_wins
        tally.estimated("longer wins", longer, 0.5)
    return tally


def _of_answers(found: Metrics, suite: Suite, cell: CellId) -> Iterator[tuple[str, Estimate, float]]:
    truth, level, base = suite.truth, suite.checkpoints[cell], suite.checkpoints.get(BASE)
    yield "judge_reward_mean", found.judge_reward_mean, truth.mean(level)
    yield "judge_reward_std", found.judge_reward_std, truth.std(level)
    yield "gold_accuracy", found.gold_accuracy, truth.share(level)
    if base is not None and cell != BASE:
        won, gain = truth.win(level, base), truth.mean(level) - truth.mean(base)
        yield "win_rate_vs_base", found.win_rate_vs_base, won
        yield "win_rate_length_controlled", found.win_rate_length_controlled, won
        yield "judge_gain", found.judge_gain, gain
        yield "judge_gain_within_length", found.judge_gain_within_length, gain
        yield "judge_gain_between_length", found.judge_gain_between_length, 0.0
    if suite.rich:
        words = FIRST_ANSWER + (WORDS - 1) / 2
        yield "length_words", found.length_words, words
        yield "length_characters", found.length_characters, 5 * words - 1
        yield "length_tokens", found.length_tokens, words + 1
        yield "unfinished_share", found.unfinished_share, UNFINISHED
        yield "kl", found.kl, KL_PER_TOKEN * (words + 1)
        yield "kl_per_token", found.kl_per_token, KL_PER_TOKEN
        yield "log_ratio", found.log_ratio, LOG_RATIO


def _of_pairs(found: Metrics, suite: Suite, cell: CellId) -> Iterator[tuple[str, Estimate, float]]:
    truth, level = suite.truth, suite.checkpoints[cell]
    yield "accuracy", found.accuracy, truth.share(level)
    yield "accuracy_chosen_longer", found.accuracy_chosen_longer, truth.share_where_longer(level, 1)
    yield "accuracy_chosen_shorter", found.accuracy_chosen_shorter, truth.share_where_longer(level, -1)
    if truth.world.step:  # otherwise nothing is tied, which Wilson's interval covers always
        yield "tie_rate", found.tie_rate, truth.ties(level)
    for attacked in found.attacked:
        yield "accuracy under attack", attacked.accuracy, truth.share_under_attack(level, ATTACK)
    yield "reward_mean", found.reward_mean, 0.0
    yield "margin", found.margin, truth.mean(level)
    yield "reward_std", found.reward_std, truth.std(level)
    yield "length_correlation_given_label", found.length_correlation_given_label, truth.length_correlation()


def _count_comparisons(report: Report, suite: Suite, tally: Tally) -> None:
    """Whether the intervals of differences cover; those adjusted for their family, whether all of them do at once."""
    together: dict[str, list[bool]] = {}
    for found in report.comparisons:
        truth, what = difference(suite, found.a, found.b, found.metric, found.level), f"{found.level}s, {found.metric}"
        if "Bonferroni" not in found.test:
            tally.covers(f"difference of {what}, {found.test}", found.low, found.high, truth)
        elif found.low is not None and found.high is not None:
            together.setdefault(what, []).append(found.low <= truth <= found.high)
        tally.covers(f"difference of {what}, BCa", found.bootstrap_low, found.bootstrap_high, truth)
        if found.method_low is not None and found.method_high is not None:
            methods = difference(suite, found.a.method, found.b.method, found.metric, "method")
            few = f"methods of few seeds, {found.metric}"
            together.setdefault(few, []).append(found.method_low <= methods <= found.method_high)
    for what, covered in together.items():
        tally.add(Question("covers", f"all differences of {what} at once"), all(covered))


def _count_claims(report: Report, suite: Suite, tally: Tally) -> None:
    """What the report claims, level by level and metric by metric."""
    families: dict[tuple[str, MetricKey], list[Claim]] = {}
    for claim in report.claims:
        families.setdefault((claim.level, claim.metric), []).append(claim)
    for (level, metric), family in families.items():
        tested = [claim for claim in family if claim.decision != "undefined"]
        if not tested:
            continue
        truths = {claim: difference(suite, claim.a, claim.b, metric, level) for claim in tested}
        higher = [claim for claim in tested if claim.decision == "higher"]
        wrong = any(truths[claim] <= 0 for claim in higher)
        what = f"some {level} is called higher than another one, {metric}"
        if any(truths.values()):
            tally.add(Question("claims", f"{what}, and is not"), wrong)
            tally.add(Question("finds" if level == "method" else "says", what), bool(higher))
            equal = [claim for claim in tested if claim.decision == "equivalent" and claim.margin is not None]
            tally.add(
                Question("claims", f"some {level}s are called equivalent that differ by more, {metric}"),
                any(abs(truths[claim]) > claim.margin for claim in equal if claim.margin is not None),
            )
        else:
            tally.add(Question("claims", f"{what}: all are equal", level == "method"), wrong)
        if any(claim.method_low is not None for claim in tested):
            shown = [claim for claim in higher if claim.between_methods]
            equal_methods = not suite.truth.world.gain
            what = f"a difference between methods is shown by one seed each, {metric}"
            tally.add(Question("claims" if equal_methods else "finds", what, equal_methods), bool(shown))


def _count_words(report: Report, suite: Suite, tally: Tally) -> None:
    """Whether the verdict's sentences say what the records claim, and no more."""
    said = [line for line in report.verdict if line.startswith("Higher on ")]
    of_methods = [line for line in said if "these checkpoints" not in line]
    claimed = any(claim.level == "method" and claim.decision == "higher" for claim in report.claims)
    tally.add(Question("claims", "the verdict's words on methods differ from its records"), bool(of_methods) != claimed)
    if suite.truth.world.seeds < MIN_SEEDS:
        tally.add(Question("says", "the verdict says Higher of checkpoints"), len(said) > len(of_methods))
        tally.add(Question("claims", "the verdict says Higher of methods without three seeds"), bool(of_methods))
        warned = any(line.startswith("Claims about checkpoints only") for line in report.verdict)
        tally.add(Question("claims", "the verdict does not say that it is about checkpoints"), not warned)


def difference(suite: Suite, a: CellId, b: CellId, metric: MetricKey, level: str) -> float:
    """The true difference between two checkpoints or methods."""
    left, right_level = suite.level(a, level), suite.level(b, level)
    if metric.name == "length_correlation_given_label" or left.shift == right_level.shift:
        return 0.0  # identical but for seeds
    of = suite.truth.share if metric.name in ("accuracy", "gold_accuracy") else suite.truth.mean
    return of(left) - of(right_level)
