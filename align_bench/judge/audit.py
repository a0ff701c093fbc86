"""The texts of a judge's audit: validation pairs as they are, under other prompts, and with edited answers."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from align_bench.judge.edits import EDITS
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.records import Conversation, Message, no_update

if TYPE_CHECKING:
    from align_bench.judge.reward_model import Scorer
    from align_bench.records import Preference, Update

SIDES = ("chosen", "rejected")
LEAST_PROMPTS = 200


@dataclass(frozen=True, slots=True)
class Audited:
    """Scores of one answer of a validation pair.

    Attributes:
        pair: the pair.
        side: `chosen` or `rejected`.
        scores: `plain`, `shuffled`, `empty` and the names of `EDITS` → score; None where an edit changes nothing or the
            text cannot be scored.
    """

    pair: int
    side: str
    scores: dict[str, float | None]


def audit(
    scorer: Scorer, pairs: Sequence[Preference], *, seed: int, max_tokens: int, update: Update = no_update
) -> list[Audited]:
    """Score every answer as it is, under another prompt, under an empty one, and after each edit.

    Args:
        scorer: the judge or reward model.
        pairs: validation pairs, both answers present.
        seed: of the shuffled prompts; both answers of a pair get the same other prompt.
        max_tokens, update: as a `Scorer` takes them.

    Returns:
        Two per pair, in order.
    """
    others = other_prompts([pair.prompt for pair in pairs], seed)
    asked: list[tuple[int, str, Conversation]] = []
    for number, pair in enumerate(pairs):
        for place, answer in enumerate((pair.chosen or "", pair.rejected or "")):
            plain = Conversation(pair.prompt, answer)
            versions = {"plain": plain, "empty": replace(plain, prompt=(Message("user", ""),))}
            if (other := others[number]) is not None:
                versions["shuffled"] = replace(plain, prompt=other)
            for name, edit in EDITS.items():
                if (edited := edit(answer)) != answer:
                    versions[name] = replace(plain, answer=edited)
            asked += [(2 * number + place, name, version) for name, version in versions.items()]
    values, _ = scorer([version for _, _, version in asked], max_tokens=max_tokens, update=update)
    found = [Audited(pair.pair, side, dict.fromkeys(VERSIONS)) for pair in pairs for side in SIDES]
    for (place, name, _), value in zip(asked, values, strict=True):
        found[place].scores[name] = value if math.isfinite(value) else None
    return found


def drawn(prompts: Sequence[Hashable], pairs: int, seed: int) -> list[int]:
    """Which pairs are audited: all of each drawn prompt, so that what they say holds for the prompts of the data.

    Prompts are drawn at random until `pairs` pairs and `LEAST_PROMPTS` prompts are in, or all that there are. The first
    pairs of a file would not do: files are often sorted, by topic or by prompt.

    Args:
        prompts: the prompt of each pair.
        pairs: at least this many, where there are as many.
        seed: of the draw.

    Returns:
        Places of the pairs, in order.
    """
    sizes = Counter(prompts)
    order = list(sizes)
    random.Random(f"audit/pairs/{seed}").shuffle(order)
    kept: set[Hashable] = set()
    count = 0
    for prompt in order:
        if count >= pairs and len(kept) >= LEAST_PROMPTS:
            break
        kept.add(prompt)
        count += sizes[prompt]
    return [place for place, prompt in enumerate(prompts) if prompt in kept]


def expected(pairs: int, rows: int, prompts: int) -> int:
    """About how many pairs `drawn` gives of `rows` pairs of `prompts` prompts."""
    return min(rows, max(pairs, LEAST_PROMPTS * rows // max(1, prompts)))


def other_prompts(prompts: Sequence[tuple[Message, ...]], seed: int) -> list[tuple[Message, ...] | None]:
    """For each prompt another one: the next in a shuffled circle of the distinct ones; None where there is one only."""
    circle = list(dict.fromkeys(prompts))
    random.Random(f"audit/{seed}").shuffle(circle)
    if len(circle) < 2:
        return [None] * len(prompts)
    following = {prompt: circle[(place + 1) % len(circle)] for place, prompt in enumerate(circle)}
    return [following[prompt] for prompt in prompts]
