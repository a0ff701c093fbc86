"""What `false_claims.py` found, as JSON and as a page: the worst first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from false_claims_tally import LEAST, MOST, WANTED, Asked, Rate, Value, gate

from align_bench.runner.environment import environment

NAMED = 5  # how many of the worst the summary names
TITLES: dict[Asked, str] = {
    "claims": "False claims",
    "covers": "Coverage of 95% intervals",
    "finds": "Power",
    "says": "What is said, and is no error",
}


@dataclass(frozen=True, slots=True)
class Found:
    """All that was counted."""

    rates: list[Rate]
    values: list[Value]

    def of(self, asked: Asked) -> list[Rate]:
        """The rates of one question, the worst first."""
        return sorted((rate for rate in self.rates if rate.asked == asked), key=_badness)


def save(output: Path, found: Found, command: str, settings: Mapping[str, int], seconds: float) -> None:
    """Write OUTPUT.json and OUTPUT.md."""
    content = {
        "command": command,
        "settings": dict(settings),
        "seconds": round(seconds),
        "environment": environment().model_dump(),
        "summary": summary(found),
        "gate": None if (result := gate(found.rates)) is None else asdict(result),
        "rates": [asdict(rate) for rate in found.rates],
        "values": [asdict(value) for value in found.values],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(page(found, command, seconds), encoding="utf-8")


def page(found: Found, command: str, seconds: float) -> str:
    """The page: a summary, then every rate of every cell."""
    lines = [
        "# How often reports claim what is not so\n",
        f"Made by `{command}` in {seconds / 60:.0f} minutes. In brackets: 95% Monte Carlo intervals. `statistics`: the "
        "package's statistics on simulated scores; `report`: rows with a known truth through `build_report`. Noise of "
        "seeds is in standard deviations of an answer's noise, which is that of a method's score on one prompt. "
        f"Coverage is marked `below` or `above` where it is outside {LEAST:.0%}–{MOST:.0%} by more than Monte Carlo "
        "error, `within error` where 95% is in its Monte Carlo interval, `below, said` where the report marks enough "
        "of those that miss as wanting more data for the others to be at most 7%.\n",
        *(f"* {line}" for line in summary(found)),
    ]
    if kinds := list(_kinds(found.of("covers"))):
        lines += ["\n## Each kind of interval, by its worst cell\n", *kinds]
    for asked, title in TITLES.items():
        if rates := found.of(asked):
            lines += [f"\n## {title}\n", *_table(asked, rates)]
    if found.values:
        lines += ["\n## Estimates without an interval\n", *_values(found.values)]
    return "\n".join(lines) + "\n"


def summary(found: Found) -> list[str]:
    """The worst and the best, in about ten lines."""
    return [
        *_gate(found),
        *_false(found),
        *_coverage(found.of("covers")),
        *_said(found),
        *_power(found.of("finds")),
        *(
            f"The {one.what} of {one.cell} is {one.mean:.3f} on average ± {1.96 * one.error:.3f}; it is "
            f"{one.truth:.3f} in truth."
            for one in found.values
            if one.part == "statistics"
        ),
    ]


def _gate(found: Found) -> Iterator[str]:
    result = gate(found.rates)
    if result is None:
        return
    worst = result.worst
    yield (
        f"Gate, method-level claims between identical methods: {'passed' if result.passed else 'FAILED'}. In "
        f"{result.cells} rates the one least likely to be 5% is {_shown(worst)} in {_where(worst)} (Holm-adjusted p "
        f"{result.p_holm:.2g})."
    )


def _false(found: Found) -> Iterator[str]:
    for part in ("statistics", "report"):
        family = sorted((one for one in found.rates if one.family and one.part == part), key=lambda one: -one.rate)
        if family:
            worst, best = family[0], family[-1]
            yield (
                f"Any false claim about identical methods in a suite ({part}): at worst {_shown(worst)} in "
                f"{worst.cell}, at best {_shown(best)} in {best.cell}."
            )
    often = [one for one in found.of("claims") if one.mark]
    named = "; ".join(f"{_shown(one)} {one.what} in {_where(one)}" for one in often[:NAMED])
    yield f"False claims of any kind more often than 5% by more than Monte Carlo error: {len(often)}. {named}".strip()


def _coverage(rates: Sequence[Rate]) -> Iterator[str]:
    if not rates:
        return
    for part in ("statistics", "report"):
        own = [one for one in rates if one.part == part]
        good = sum(LEAST <= one.rate <= MOST for one in own)
        count = {
            mark: sum(one.mark == mark for one in own) for mark in ("within error", "below", "below, said", "above")
        }
        yield (
            f"Coverage of 95% intervals ({part}): {good} of {len(own)} rates are in {LEAST:.0%}–{MOST:.0%}, "
            f"{count['within error']} outside but within Monte Carlo error, {count['below']} below, "
            f"{count['below, said']} below where the report says so, "
            f"{count['above']} above."
        )
    low = [one for one in rates if one.mark == "below"]
    if low:
        named = "; ".join(f"{_shown(one)} {one.what} in {one.cell}" for one in low[:NAMED])
        yield f"Lowest coverage that the report does not say: {named}."
    best = min(rates, key=lambda one: (abs(one.rate - 0.95), one.high - one.low))
    yield f"Best coverage: {_shown(best)} {best.what} in {_where(best)}."


def _said(found: Found) -> Iterator[str]:
    one_seed = [one for one in found.of("says") if " 1 seed," in one.cell]
    if one_seed:
        most, least = one_seed[0], one_seed[-1]
        yield (
            "One seed and identical methods; some checkpoint is called higher than another one, which is true of these "
            f"checkpoints and says nothing of methods: from {_shown(least)} in {least.cell} to {_shown(most)} in "
            f"{most.cell}."
        )


def _power(rates: Sequence[Rate]) -> Iterator[str]:
    found = [f"{one.rate:.0%} in {one.cell}" for one in rates if one.part == "statistics" and "dz" in one.cell]
    if found:
        yield f"A difference between methods is found: {'; '.join(sorted(found))}."


def _kinds(rates: Sequence[Rate]) -> Iterator[str]:
    kinds: dict[tuple[str, str], list[Rate]] = {}
    for rate in rates:
        kinds.setdefault((rate.what, rate.part), []).append(rate)
    yield "| interval | part | cells | in 93–97% | worst | in | best |"
    yield "|:---|:---|---:|---:|---:|:---|---:|"
    for (what, part), own in kinds.items():
        inside = sum(LEAST <= one.rate <= MOST for one in own)
        best = min(own, key=lambda one: abs(one.rate - 0.95))
        yield (
            f"| {what} | {part} | {len(own)} | {inside} | {_shown(own[0])} {own[0].mark} | {own[0].cell} "
            f"| {_shown(best)} |"
        )


def _table(asked: Asked, rates: Sequence[Rate]) -> Iterator[str]:
    yield f"Wanted: {WANTED[asked]}.\n"
    yield "| rate | 95% interval | mark | what | truth | part | of | suites | marked by the report |"
    yield "|---:|---:|:---|:---|:---|:---|---:|---:|---:|"
    for one in rates:
        yield (
            f"| {one.rate:.1%} | {one.low:.1%} – {one.high:.1%} | {one.mark} | {one.what} | {one.cell} | {one.part} "
            f"| {one.answers:,} | {one.suites:,} | {f'{one.warned:.0%}' if one.warned else ''} |"
        )


def _values(values: Sequence[Value]) -> Iterator[str]:
    yield "| what | truth | mean of the estimates | its error | truth of it | part | suites |"
    yield "|:---|:---|---:|---:|---:|:---|---:|"
    for one in values:
        yield (
            f"| {one.what} | {one.cell} | {one.mean:.4f} | ± {1.96 * one.error:.4f} | {one.truth:.4f} | {one.part} "
            f"| {one.suites:,} |"
        )


def _badness(rate: Rate) -> tuple[float, ...]:
    """Low for what stands first: marked ones, then by how far it is from what is wanted."""
    order: Callable[[Rate], tuple[float, ...]] = {
        "covers": lambda one: (
            ("below", "below, said", "above", "within error", "").index(one.mark),
            -abs(one.rate - 0.95),
        ),
        "claims": lambda one: (float(not one.mark), -one.rate),
        "finds": lambda one: (one.rate,),
        "says": lambda one: (-one.rate,),
    }[rate.asked]
    return order(rate)


def _shown(rate: Rate) -> str:
    return f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _where(rate: Rate) -> str:
    return f"{rate.cell} ({rate.part})"
