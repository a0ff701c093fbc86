"""What the turns of both sides come to: equal losses first, then medians, ranges and ratios beside the targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import truediv
from statistics import median
from typing import Any

Numbers = Sequence[float]
METHODS = ("rm", "dpo", "kto", "simpo", "orpo")
ONLINE = ("online", "grpo")  # RLOO with PPO beside it, and GRPO
TRAINED = (*METHODS, *ONLINE)  # their first turn is of steps to compare
# Relative differences that rounding explains. bf16 keeps three digits, and a loss is of log-probabilities of hundreds
# of nats.
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.08}


@dataclass(frozen=True, slots=True)
class Target:
    """How many times faster or smaller than TRL: the gate must be reached, the goal is what is aimed at."""

    gate: float
    goal: float

    def verdict(self, ratio: float) -> str:
        """`goal`, `gate`, or `below` both."""
        return "goal" if ratio >= self.goal else "gate" if ratio >= self.gate else "below"


STEP = {
    "rm": Target(1.8, 4.5),
    "dpo": Target(3, 8),
    "kto": Target(4, 9),
    "simpo": Target(2.5, 6),
    "orpo": Target(2.2, 6),
}
FIVE_METHODS = Target(3, 8)
EVALUATE = Target(6, 12)
SORTED_LOOP = Target(1.6, 3)
MEMORY = {**dict.fromkeys(METHODS, Target(3, 5)), "rm": Target(1.8, 5)}
MEMORY_CHECKPOINTING = {**dict.fromkeys(METHODS, Target(2.3, 3.5)), "rm": Target(1.8, 3.5)}
GENERATION = Target(2, 4)
SUITE = Target(4, 10)
ONLINE_STEP = Target(3, 3)
PER_TOKENS = "s per 1,000 tokens"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of repeats."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def spread(values: Iterable[float]) -> Spread:
    """The spread of repeats, of which there is at least one."""
    found = sorted(values)
    return Spread(median(found), found[0], found[-1])


def ratios(theirs: Numbers, ours: Numbers) -> Spread:
    """How many times less ours took, repeat by repeat: each is of the same rows, measured one after the other."""
    return spread(their / our for their, our in zip(theirs, ours, strict=True))


class UnequalError(Exception):
    """The two sides did not do the same work, so that their times cannot be compared."""


def check_training(method: str, compute: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Rows are the same, and so are losses and gradient norms of the first steps.

    Of ORPO the first step's log-odds ratio is compared: by design TRL's likelihood term covers the prompt, too.

    Returns:
        The greatest relative difference, by what was compared.

    Raises:
        UnequalError: beyond `TOLERANCE`, or on other rows.
    """
    if ours["rows"] != theirs["rows"]:
        raise UnequalError(f"{method}: the two sides read other rows")
    if method == "orpo":  # after a step on another loss, the adapters are others
        found = {"log_odds_ratio": _difference(ours["log_odds_ratio"][:1], theirs["log_odds_ratio"][:1])}
    else:
        found = {name: _difference(ours[name], theirs[name]) for name in ("loss", "gradient_norm")}
    return _tolerated(found, method, compute, ours, theirs)


def check_online(part: str, compute: str, sides: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """On the same given answers rewards and gradient norms are TRL's, where the method of both is the same.

    Their losses are sums of advantages, which are 0 but for the KL penalty, and say nothing.

    Returns:
        The greatest relative difference, by what was compared.

    Raises:
        UnequalError: beyond `TOLERANCE`, or on other rows.
    """
    if "ours" not in sides:  # TRL has no PPO
        return {}
    ours, theirs = sides["ours"], sides["trl"]
    if ours["rows"] != theirs["rows"]:
        raise UnequalError(f"{part}: the two sides read other rows")
    found = {name: _difference(ours[name], theirs[name]) for name in ("reward", "gradient_norm")}
    return _tolerated(found, part, compute, ours, theirs)


def _tolerated(
    found: dict[str, float], what: str, compute: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, float]:
    """The differences that were found, where none is beyond the tolerance; else `UnequalError`."""
    for name, difference in found.items():
        if not difference <= TOLERANCE[compute]:
            raise UnequalError(
                f"{what} in {compute}: {name} {ours[name]}, TRL's {theirs[name]}; "
                f"expected equal to {TOLERANCE[compute]:g}"
            )
    return found


def check_scoring(compute: str, sides: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Log-probabilities equal the plain loop's, and the DPO loss made of them equals TRL's.

    Raises:
        UnequalError: beyond `TOLERANCE`.
    """
    ours, naive, theirs = (sides[name] for name in ("ours", "naive", "trl"))
    found = {
        "log-probabilities": max(_difference(ours[name], naive[name]) for name in ("chosen", "rejected")),
        "loss": _difference([ours["loss"]], [theirs["loss"]]),
    }
    for name, difference in found.items():
        if not difference <= TOLERANCE[compute]:
            raise UnequalError(f"scoring in {compute}: {name} differ by {difference:.3g}, relative")
    return found


def check_generation(compute: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Most greedy answers are the same; padding moves near ties, in bf16 many.

    Raises:
        UnequalError: in fp32, when less than nine in ten are.
    """
    pairs = list(zip(ours["answers"], theirs["answers"], strict=True))
    same = sum(one == other for one, other in pairs) / len(pairs)
    if compute == "float32" and same < 0.9:
        raise UnequalError(f"generation: {same:.0%} of the greedy answers are the same in fp32")
    return {"same answers": same}


def check_suite(compute: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """The base's accuracy by mean log-probability is the same.

    Raises:
        UnequalError: in fp32, when it is another.
    """
    found = {name: abs(ours["accuracies"][name] - value) for name, value in theirs["accuracies"].items()}
    if compute == "float32" and found["base"] > 1e-9:
        raise UnequalError(f"suite: the base's accuracy is {ours['accuracies']['base']}, by the scripts another")
    return {f"accuracy of {name}": difference for name, difference in found.items()}


def _difference(ours: Numbers, theirs: Numbers) -> float:
    """The greatest relative difference; infinite where a number is none."""
    pairs = list(zip(ours, theirs, strict=True))
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        return math.inf
    return max(abs(one - other) / max(abs(other), 1e-6) for one, other in pairs)


Row = tuple[str, ...]
TIMES = ("what", "align-bench", "TRL", "times faster", "gate", "goal", "reached")
SUITE_STAGES = ("what", "align-bench, s", "share", "TRL, s", "share", "times faster")
MEMORIES = ("what", "align-bench, MB", "TRL, MB", "times smaller", "gate", "goal", "reached")


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a page: where and how it was measured, a table for each precision and allocator, what to know."""
    where, settings = result["environment"], result["settings"]
    lines = [
        "# align-bench against TRL",
        "",
        f"`{result['command']}`",
        "",
        f"{where['processor']}, {where['threads']} threads, device {where['device']}; "
        + ", ".join(f"{name} {version}" for name, version in where["libraries"].items())
        + f"; commit {where['commit']}.",
        "",
        f"Base `{settings['base']}`, rows of `{settings['train']}`; LoRA r = 16 on all linear layers; "
        f"{settings['pairs_per_step']} pairs a step, at most {settings['max_length']} tokens a sequence; "
        f"{settings['repeats']} repeats after a warm-up (of the whole suite "
        f"{settings['suite_repeats']}), the sides taking turns.",
    ]
    for precision, allocator in dict.fromkeys((part["precision"], part["allocator"]) for part in result["parts"]):
        parts = {
            part["part"]: part
            for part in result["parts"]
            if (part["precision"], part["allocator"]) == (precision, allocator)
        }
        computes = ", ".join(sorted({part["compute"] for part in parts.values()}))
        loads = [load for part in parts.values() for load in part["load"]]
        lines += ["", f"## {precision} (computes in {computes}), {allocator} allocator", ""]
        lines += _table(TIMES, times(parts))
        if memory := memories(parts):
            lines += ["", *_table(MEMORIES, memory)]
        if rows := suite_stages(parts):
            lines += ["", "### Where a suite's time goes", "", *_table(SUITE_STAGES, rows), "", STAGES_NOTE]
        lines += ["", f"Load average of the machine meanwhile: {min(loads):.1f}–{max(loads):.1f}. Equality seen:", ""]
        lines += [f"- {name}: {_equality(part)}" for name, part in parts.items()]
    if result["failures"]:
        lines += ["", "Without a result:", "", *(f"- {failure}" for failure in result["failures"])]
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = (
    "Seconds and ratios are medians with their range over the repeats; a ratio is made repeat by repeat, of the same "
    "rows. Tokens are those of prompts and answers, padding excluded, each answer with a prompt of its own, for both "
    "sides. Memory is the peak of the process (resident set; on CUDA what torch allocated), Python and libraries "
    "included.",
    "",
    "TRL's trainers run as `algorithms/_trl.py` runs them: on the layers of transformers and peft as these wrote them "
    "(the naive loop too), no gradient checkpointing unless said, the reference computed in every step; "
    "`precompute_ref_log_probs` is not used. A DPO or KTO step of align-bench reads stored reference "
    "log-probabilities, which a run computes once; here its steps are charged with the base's pass over their rows "
    "(KTO's over mismatched answers too), as TRL's are, and a row of their own shows the step alone, which is no "
    "comparison of like with like. In `five methods` "
    "the pass over the answers, which DPO and KTO share, is charged once (the longer one of the two), and KTO's pass "
    "over mismatched answers as well. KTO's steps take as many answers as the others'. ORPO's "
    "likelihood term differs by design: TRL's covers the prompt; its log-odds ratio is compared. Scoring with `both "
    "passes` measures the policy and the reference, as TRL's evaluate does; a run stores the base's, and measures the "
    "policy alone. The naive loop has full logits of eight sequences at a time, sorted by length.",
    "",
    "The whole suite is a judge and five methods, each trained; their validation pairs; answers of the base and of "
    "each policy; how far these drifted; the judge's scores of them; and two audits by edited answers. TRL's side does "
    "that script by script: the base loaded for each, plain loops over eight sequences in the order given. Ours stores "
    "all, computes the statistics and writes the report within its time.",
)


STAGES_NOTE = (
    "Medians of the repeats, and the share of the whole; ratios are made repeat by repeat. TRL's trainers compute the "
    "reference within their steps, so that ours is counted with the training, too. Loading is that of bases, and of "
    "adapters onto them, which the scripts hold from their training on. Other is all that is no stage of a model: "
    "rows, tokens, the plan, and files between stages."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Repeats of the same work on both sides.

    Attributes:
        what: the work.
        ours, theirs: what each repeat took, in the unit.
        unit: of both.
        target: how many times less ours is to take; None where that is no comparison of like with like.
        rates: tokens per second of each side, as words; empty where tokens say nothing.
    """

    what: str
    ours: Numbers
    theirs: Numbers
    unit: str
    target: Target | None
    rates: tuple[str, ...] = ()

    @property
    def ratios(self) -> Spread:
        """How many times less ours took."""
        return ratios(self.theirs, self.ours)

    def row(self) -> Row:
        """Its row of the table."""
        cells = [f"{spread(side)} {self.unit}" for side in (self.ours, self.theirs)]
        if self.rates:
            cells = [f"{cell}, {rate}" for cell, rate in zip(cells, self.rates, strict=True)]
        found, aim = self.ratios, self.target
        aims = ("", "", "") if aim is None else (f"{aim.gate:g}", f"{aim.goal:g}", aim.verdict(found.median))
        return (self.what, *cells, str(found), *aims)


def times(parts: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of the table of times."""
    return [one.row() for one in comparisons(parts)]


def comparisons(parts: Mapping[str, Mapping[str, Any]]) -> list[Comparison]:
    """What parts under one precision and one allocator come to."""
    rows: list[Comparison] = []
    for method in METHODS:
        if method in parts:
            rows += _training(method, parts[method]["sides"])
    if all(method in parts for method in METHODS):
        rows.append(_five([parts[method]["sides"] for method in METHODS]))
    if "scoring" in parts:
        rows += _scoring(parts["scoring"]["sides"])
    if "generation" in parts:
        sides = parts["generation"]["sides"]
        rows.append(_time("generation", sides["ours"], sides["trl"], GENERATION))
    if "suite" in parts:
        sides = parts["suite"]["sides"]
        rows.append(
            Comparison("whole suite", sides["ours"]["seconds"], sides["trl"]["seconds"], "s", SUITE),
        )
    if "online" in parts:
        rows += _online(parts["online"]["sides"])
    if "grpo" in parts:
        ours, theirs = (_by_token(parts["grpo"]["sides"][name]) for name in ("ours", "trl"))
        rows.append(Comparison("GRPO, against TRL's GRPO", ours, theirs, PER_TOKENS, ONLINE_STEP))
    return rows


def _training(method: str, sides: Mapping[str, Any]) -> list[Comparison]:
    """A step as TRL's does it: where TRL's computes the reference in every step, with ours; then what is left of it."""
    ours, theirs = sides["ours"], sides["trl"]
    if "reference_seconds" not in ours:
        return [_time(f"{method}, a step", ours, theirs, STEP[method])]
    whole = {**ours, "seconds": with_reference(ours)}
    return [
        _time(f"{method}, a step with its reference pass", whole, theirs, STEP[method]),
        Comparison(f"{method}, reference stored; TRL's computes it", ours["seconds"], theirs["seconds"], "s", None),
    ]


def with_reference(side: Mapping[str, Any]) -> list[float]:
    """Seconds of each step, the passes of the base over its rows included."""
    return [sum(parts) for parts in zip(side["seconds"], _reference(side), _mismatched(side), strict=True)]


def _reference(side: Mapping[str, Any]) -> list[float]:
    return side.get("reference_seconds") or [0.0] * len(side["seconds"])


def _mismatched(side: Mapping[str, Any]) -> list[float]:
    return side.get("mismatched_seconds") or [0.0] * len(side["seconds"])


def _five(methods: Sequence[Mapping[str, Any]]) -> Comparison:
    """Steps of all methods; the base's pass over the answers, which they share, once: the longest that was measured."""
    repeats = min(len(sides[name]["seconds"]) for sides in methods for name in ("ours", "trl"))
    own = [sides["ours"] for sides in methods]
    ours = [
        sum(side["seconds"][place] + _mismatched(side)[place] for side in own)
        + max(_reference(side)[place] for side in own)
        for place in range(repeats)
    ]
    theirs = [sum(sides["trl"]["seconds"][place] for sides in methods) for place in range(repeats)]
    return Comparison("five methods, with reference passes", ours, theirs, "s", FIVE_METHODS)


def _scoring(sides: Mapping[str, Any]) -> list[Comparison]:
    ours, naive, theirs = (sides[name] for name in ("ours", "naive", "trl"))
    return [
        Comparison(
            "scoring, both passes, against TRL's evaluate", ours["both_seconds"], theirs["seconds"], "s", EVALUATE
        ),
        Comparison(
            "scoring, both passes, against a naive sorted loop",
            ours["both_seconds"],
            naive["both_seconds"],
            "s",
            SORTED_LOOP,
        ),
        Comparison(
            "scoring, the policy alone; TRL's measures the reference too",
            ours["policy_seconds"],
            theirs["seconds"],
            "s",
            None,
        ),
        _time(
            "scoring, the policy alone, against a naive sorted loop",
            {**ours, "seconds": ours["policy_seconds"]},
            {**naive, "seconds": naive["policy_seconds"]},
            None,
        ),
    ]


def _online(sides: Mapping[str, Any]) -> list[Comparison]:
    """By the token, for what is sampled differs; PPO beside RLOO is another method, with a critic to train."""
    ours, ppo, theirs = (_by_token(sides[name]) for name in ("ours", "ours, ppo", "trl"))
    return [
        Comparison("RLOO, against TRL's RLOO", ours, theirs, PER_TOKENS, ONLINE_STEP),
        Comparison("PPO, against TRL's RLOO, another method", ppo, theirs, PER_TOKENS, None),
    ]


def _by_token(side: Mapping[str, Any]) -> list[float]:
    return [1000 * seconds / tokens for seconds, tokens in zip(side["seconds"], side["tokens"], strict=True)]


def _time(what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], target: Target | None) -> Comparison:
    """With tokens per second beside the seconds."""
    rates = (_per_second(ours), _per_second(theirs))
    return Comparison(what, ours["seconds"], theirs["seconds"], "s", target, rates)


def memories(parts: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of the table of peak memory."""
    rows = []
    for name in METHODS:
        if name not in parts:
            continue
        sides = parts[name]["sides"]
        rows.append(_memory(f"{name}, a step", sides["ours"], sides["trl"], MEMORY[name]))
        if "trl, checkpointing" in sides:
            rival = sides["trl, checkpointing"]
            what = f"{name}, TRL with gradient checkpointing"
            rows.append(_memory(what, sides["ours"], rival, MEMORY_CHECKPOINTING[name]))
    for name in ("scoring", "generation", "suite", *ONLINE):
        if name in parts:
            rows.append(_memory(name, parts[name]["sides"]["ours"], parts[name]["sides"]["trl"], None))
    return rows


def suite_stages(parts: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of the table of a suite's stages; none where they were not timed."""
    sides = parts["suite"]["sides"] if "suite" in parts else {}
    if not all("stages" in sides.get(name, ()) for name in ("ours", "trl")):
        return []
    taken = {name: _by_stage(sides[name]["stages"]) for name in ("ours", "trl")}
    return [_stage(what, seconds, taken["trl"][what], sides) for what, seconds in taken["ours"].items()]


def _by_stage(repeats: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """What a row shows → seconds of each repeat."""
    found = {name: [repeat[name] for repeat in repeats] for name in repeats[0]}
    reference, training = found.pop("reference"), found.pop("training")
    both = [sum(pair) for pair in zip(reference, training, strict=True)]
    return {"training and its reference": both, "of it the reference": reference, **found}


def _stage(what: str, ours: Numbers, theirs: Numbers, sides: Mapping[str, Any]) -> Row:
    cells = [
        cell
        for name, seconds in (("ours", ours), ("trl", theirs))
        for cell in (_short(median(seconds)), f"{median(map(truediv, seconds, sides[name]['seconds'])):.0%}")
    ]
    if not all(theirs):  # it has no such stage
        return (what, *cells[:2], "", "", "")
    return (what, *cells, str(ratios(theirs, ours)) if all(ours) else "")


def _memory(what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], target: Target | None) -> Row:
    ratio = theirs["peak_bytes"] / ours["peak_bytes"]
    aims = ("", "", "") if target is None else (f"{target.gate:g}", f"{target.goal:g}", target.verdict(ratio))
    return (what, *(f"{side['peak_bytes'] / 1e6:,.0f}" for side in (ours, theirs)), _short(ratio), *aims)


def _table(headings: Row, rows: Sequence[Row]) -> list[str]:
    return [_line(headings), _line(("---",) * len(headings)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _equality(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in part["equal"].items()) or "answers are sampled"


def _per_second(side: Mapping[str, Any]) -> str:
    rates = [tokens / seconds for tokens, seconds in zip(side["tokens"], side["seconds"], strict=True)]
    return f"{median(rates):,.0f} tokens/s"


def _short(value: float) -> str:
    """Three significant digits, and no exponent."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}"
