"""What may learn, or act, beside a reward model during its training; each brings a record of `batches` of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from align_bench.api.declaring import declared_record, in_short, is_number
from align_bench.errors import PluginError

MOST_WIDTH = 2**16


@declared_record
@dataclass(frozen=True, slots=True)
class BiasExpert:
    """A small second scorer, trained beside the reward model and dropped after training: see `BiasExpertScores`.

    Attributes:
        length_only: True for a network that reads the answer's token count and nothing else; False for a recurrent
            network over the frozen input embeddings of prompt and answer.
        noise: standard deviation of the Gaussian noise on those embeddings, in units of their root mean square.
        width: hidden units.
        learning_rate_factor: its learning rate, × that of the reward model.
    """

    length_only: bool = False
    noise: float = 0.0
    width: int = 32
    learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        _number("BiasExpert", "noise", self.noise)
        _number("BiasExpert", "learning_rate_factor", self.learning_rate_factor)
        if not isinstance(self.width, int) or not 1 <= self.width <= MOST_WIDTH:
            raise PluginError(
                f"BiasExpert: width={in_short(self.width)}, expected a whole number from 1 to {MOST_WIDTH:,}"
            )


@declared_record
@dataclass(frozen=True, slots=True)
class Adversary:
    """One normalised-gradient step on an answer's input embeddings `e`, against its label: see `AdversaryScores`.

    Attributes:
        epsilon: norm of the step over prompt and answer, × ‖e‖.
    """

    epsilon: float

    def __post_init__(self) -> None:
        _number("Adversary", "epsilon", self.epsilon)


@dataclass(frozen=True, slots=True)
class LengthHead:
    """A second linear head on the reward model's last hidden state, dropped after training: see `LengthHeadScores`."""


def _number(record: str, name: str, value: object) -> None:
    if not is_number(value) or value < 0:  # type: ignore[operator]
        raise PluginError(f"{record}: {name}={in_short(value)}, expected a number ≥ 0")


Auxiliary: TypeAlias = BiasExpert | Adversary | LengthHead
