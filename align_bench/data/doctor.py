"""What is wrong with preference rows, counted: duplicates, contradictions, shared prompts, one-sided labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from align_bench.data.advice import ADVICE, LONGER, NAMES
from align_bench.data.check_rows import with_prompts_of
from align_bench.data.near import near_groups
from align_bench.data.scripts import NONE, script_of

if TYPE_CHECKING:
    from align_bench.data.check_rows import Sides
    from align_bench.data.summary import Summary
    from align_bench.records import Message, Preference, PreferenceSet

UNBALANCED = 0.8  # of labels on one side
FEW_ROWS = 0.01  # in a script beside the main one
SHOWN_ROWS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: its name.
        rows: in how many rows it was found.
        of: among how many it could have been.
        first: numbers of the first rows, as the source counts them from 0.
        advice: what to do about it, one sentence; None where nothing is wrong.
    """

    what: str
    rows: int
    of: int
    first: tuple[int, ...] = ()
    advice: str | None = None

    @property
    def share(self) -> float | None:
        """Of the rows; None where there are none."""
        return self.rows / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that say again, or otherwise, what other rows say. Each tuple holds numbers of rows.

    Attributes:
        duplicates: rows whose prompt, answers and label are an earlier row's.
        near_duplicates: further rows whose prompt, chosen and rejected answer are each near an earlier row's.
        contradictions: rows whose very prompt and answers have the other label elsewhere.
        prompts: rows whose prompt is an earlier row's.
        near_prompts: further rows whose prompt is near an earlier row's.
    """

    duplicates: tuple[int, ...]
    near_duplicates: tuple[int, ...]
    contradictions: tuple[int, ...]
    prompts: tuple[int, ...]
    near_prompts: tuple[int, ...]


def find_repeats(rows: Sequence[Preference]) -> Repeats:
    """Compare every row with all others, in linear time."""
    prompts = near_groups([_text(row.prompt) for row in rows])
    answers = near_groups([answer or "" for row in rows for answer in (row.chosen, row.rejected)])
    near = [
        (prompts[place], row.chosen is None, answers[2 * place], row.rejected is None, answers[2 * place + 1])
        for place, row in enumerate(rows)
    ]
    exact = _repeated([(row.prompt, row.chosen, row.rejected) for row in rows])
    exact_prompts = _repeated([row.prompt for row in rows])
    labels: dict[Hashable, set[bool]] = {}
    for row in rows:
        labels.setdefault(_unlabelled(row), set()).add(_side(row))
    return Repeats(
        duplicates=tuple(rows[place].pair for place in exact),
        near_duplicates=tuple(rows[place].pair for place in _repeated(near) if place not in exact),
        contradictions=tuple(row.pair for row in rows if len(labels[_unlabelled(row)]) > 1),
        prompts=tuple(rows[place].pair for place in exact_prompts),
        near_prompts=tuple(rows[place].pair for place in _repeated(prompts) if place not in exact_prompts),
    )


def _repeated(values: Sequence[Hashable]) -> dict[int, None]:
    """Places of values that came before, in order."""
    first: dict[Hashable, int] = {}
    return dict.fromkeys(place for place, value in enumerate(values) if first.setdefault(value, place) != place)


def _text(prompt: Sequence[Message]) -> str:
    return "\n".join(turn.content for turn in prompt)


def _unlabelled(row: Preference) -> Hashable:
    """A row without what its label says."""
    if row.chosen is None or row.rejected is None:
        return row.prompt, row.chosen if row.rejected is None else row.rejected
    return row.prompt, *sorted((row.chosen, row.rejected))


def _side(row: Preference) -> bool:
    if row.chosen is None or row.rejected is None:
        return row.rejected is None
    return row.chosen < row.rejected


def scripts(rows: Sequence[Preference]) -> dict[str, int]:
    """Script of most letters → rows, the most frequent one first."""
    counts = Counter(
        script_of(chain((turn.content for turn in row.prompt), filter(None, (row.chosen, row.rejected))))
        for row in rows
    )
    return dict(counts.most_common())


def examine(
    found: PreferenceSet,
    summary: Summary,
    *,
    sides: Sides | None = None,
    against: Mapping[str, PreferenceSet] | None = None,
    tokens: Mapping[str, int] | None = None,
    max_length: int | None = None,
) -> list[Finding]:
    """Look for all that can be wrong with a set; a finding for each thing, also where nothing was found.

    Args:
        found: the set.
        summary: its numbers, from `summary.summarise`.
        sides: how its labels fall, from `check_rows.label_sides`.
        against: name → another set that should share no prompt with it.
        tokens: what became of its rows as tokens, from `chat.tokenize`.
        max_length: with which they were tokenised.
    """
    rows = found.rows
    return [
        *_repeats(rows),
        *(finding for name, other in (against or {}).items() for finding in _shared(rows, name, other.rows)),
        *([] if sides is None else [_sides(sides, unpaired=any(row.rejected is None for row in rows))]),
        _longer(summary),
        *_other_scripts(rows),
        *_tokens(tokens or {}, len(rows), max_length),
    ]


def _repeats(rows: Sequence[Preference]) -> Iterator[Finding]:
    found = find_repeats(rows)
    for what, name in NAMES.items():
        pairs: tuple[int, ...] = getattr(found, what)
        yield Finding(name, len(pairs), len(rows), pairs[:SHOWN_ROWS], ADVICE.get(what) if pairs else None)


def _shared(rows: Sequence[Preference], name: str, others: Sequence[Preference]) -> Iterator[Finding]:
    exact = [row.pair for row in with_prompts_of(rows, others)]
    groups = near_groups([_text(row.prompt) for row in (*others, *rows)])
    known = set(groups[: len(others)])
    alike = [row.pair for row, group in zip(rows, groups[len(others) :], strict=True) if group in known]
    near = sorted(set(alike) - set(exact))
    looked_for = [
        (f"prompts of {name}", exact, ADVICE["shared"]),
        (f"near prompts of {name}", near, "look at some; where they ask the same, keep them in one of the two"),
    ]
    for what, pairs, advice in looked_for:
        yield Finding(what, len(pairs), len(rows), tuple(pairs[:SHOWN_ROWS]), advice if pairs else None)


def _sides(sides: Sides, *, unpaired: bool) -> Finding:
    share = sides.first / sides.labels if sides.labels else 0.5
    what = "labels: desirable" if unpaired else "labels: first answer preferred"
    advice = None
    if max(share, 1 - share) > UNBALANCED:
        advice = (
            "the rarer label is hardly learned: give more rows of it"
            if unpaired
            else "check which column holds the preference, and shuffle the answers before they are labelled"
        )
    return Finding(what, sides.first, sides.labels, (), advice)


def _longer(summary: Summary) -> Finding:
    """Of the pairs whose answers differ in their number of words."""
    differ = summary.pairs - summary.equally_long_pairs
    share = summary.longer_pairs / differ if differ else 0.5
    advice = None
    if max(share, 1 - share) > LONGER:
        kind = "longer" if share > 0.5 else "shorter"
        advice = f"the {kind} answer wins: read results at equal length, or train a debiased reward model"
    return Finding("longer answer preferred", summary.longer_pairs, differ, (), advice)


def _other_scripts(rows: Sequence[Preference]) -> Iterator[Finding]:
    found = scripts(rows)
    (main, _), *others = [pair for pair in found.items() if pair[0] != NONE] or [(NONE, 0)]
    few = [name for name, count in others if count >= FEW_ROWS * len(rows)]
    advice = f"check that the base writes {' and '.join((main, *few))}, or keep one of them" if few else None
    if main != NONE:
        other = sum(count for _, count in others)
        yield Finding(f"mostly in another script than {main}", other, len(rows), (), advice)
    for name, count in others:
        yield Finding(f"mostly in {name}", count, len(rows))
    if found.get(NONE):
        yield Finding("without letters", found[NONE], len(rows))


def _tokens(counts: Mapping[str, int], rows: int, max_length: int | None) -> Iterator[Finding]:
    for reason, count in counts.items():
        if reason == "truncated":
            advice = "answers are cut: raise train.max_length, or drop these rows (too_long: drop)"
            yield Finding(f"beyond {max_length} tokens", count, rows, (), advice if count else None)
        elif reason != "kept":
            yield Finding(
                reason, count, rows, (), "these rows are not used: mend them, or choose another base or length"
            )
