"""What a suite asks for, against what its base and its device have: said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.errors import SuiteError

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.suite.models import Suite

MOST_CUT = 0.05  # of the answered prompts, may leave less room than `generate.max_new_tokens` asks for


def graphs_words(device: str) -> str:
    """A `cuda_graphs: true` as it is on a device."""
    return "true" if device == "cuda" else f"true, without effect on {device}"


def ignored_graphs(suite: Suite, device: str) -> list[str]:
    """A line for each `cuda_graphs: true` that the device makes nothing of."""
    asked = {"train.cuda_graphs": suite.train.cuda_graphs, "generate.cuda_graphs": suite.generate.cuda_graphs}
    return [f"{key}: {graphs_words(device)}" for key, wanted in asked.items() if wanted and device != "cuda"]


def within_positions(suite: Suite, base: Base) -> Suite:
    """The suite with a `train.max_length` that its base can read.

    Args:
        suite: as written.
        base: its base.

    Returns:
        The suite; where it does not set `train.max_length`, the default is lowered to the base's positions.

    Raises:
        SuiteError: `train.max_length` is set to more tokens than the base has positions.
    """
    limit, wanted = base.positions, suite.train.max_length
    if limit is None or wanted <= limit.tokens:
        return suite
    if "max_length" not in suite.train.model_fields_set:
        return suite.model_copy(update={"train": suite.train.model_copy(update={"max_length": limit.tokens})})
    raise SuiteError(
        f"train.max_length: got {wanted:,} tokens, but the base {base.name} has {limit.tokens:,} positions "
        f"({limit.source} in its config.json), and cannot read more",
        fix=f"set train.max_length: {limit.tokens} or less, or choose a base with more positions",
    )


@dataclass(frozen=True, slots=True)
class CutAnswers:
    """Prompts so long that their answers end at the base's last position, before `generate.max_new_tokens`.

    Attributes:
        message, fix: what is wrong, and what to set.
        share: of the prompts that are answered.
    """

    message: str
    fix: str
    share: float

    @property
    def too_many(self) -> bool:
        """Whether they are more than a run accepts."""
        return self.share > MOST_CUT


def cut_answers(suite: Suite, base: Base, prompts: Sequence[int]) -> CutAnswers | None:
    """Which answers would end at the base's last position.

    Args:
        suite: with its `generate.max_new_tokens`.
        base: its base.
        prompts: tokens of each prompt that is answered.

    Returns:
        None where every prompt leaves room, or the base has no limit.
    """
    limit, wanted = base.positions, suite.generate.max_new_tokens
    if limit is None or not (cut := [tokens for tokens in prompts if tokens + wanted > limit.tokens]):
        return None
    longest = max(cut)
    return CutAnswers(
        f"generate.max_new_tokens: got {wanted:,}, but {len(cut):,} of {len(prompts):,} prompts leave less room for an "
        f"answer: the longest has {longest:,} tokens, and the base {base.name} has {limit.tokens:,} positions "
        f"({limit.source} in its config.json). Such an answer ends at the last position and counts as unfinished",
        f"set generate.max_new_tokens: {max(1, limit.tokens - longest)} or less, or leave out long prompts by a lower "
        "train.max_length",
        len(cut) / len(prompts),
    )
