"""The records of online methods: answers that the policy writes itself, without a critic and with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from align_bench.api.declaring import declared_record
from align_bench.records import SMALLEST_TEMPERATURE

if TYPE_CHECKING:
    from torch import Tensor


@declared_record
@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How an online method gathers its answers. Each of these is a hyper-parameter of every online method.

    Attributes:
        reward: a reward method of the same suite, or one of its cells, or gold.
        samples: answers to each prompt of a batch.
        updates: optimizer steps on each batch of answers; more than one makes it partly off-policy.
        max_new_tokens: longest answer, in tokens.
        temperature: of sampling, no unit; log-probabilities are read at 1.
        missing_eos_penalty: taken off the reward of an answer without end of turn, in the reward's unit.
    """

    reward: str = "rm"
    samples: Annotated[int, Ge(1)] = 4
    updates: Annotated[int, Ge(1)] = 1
    max_new_tokens: Annotated[int, Ge(1)] = 64
    temperature: Annotated[float, Ge(SMALLEST_TEMPERATURE)] = 1.0
    missing_eos_penalty: Annotated[float, Ge(0)] = 1.0


@dataclass(frozen=True, slots=True)
class Experience:
    """All answers that the policy wrote for one batch of prompts, judged by the reward; no tensor has a gradient.

    Attributes:
        rewards: of each answer, shape [rows], in the reward's unit; an answer that never ended has paid its penalty.
        group: number of each answer's prompt, integer tensor of shape [rows].
        mask: True at response tokens (end of turn included), shape [rows, time].
        logps: log π(y_t | x, y_<t) when the answers were written, nats, shape [rows, time]; 0 beyond the mask.
        ref_logps: the same under the reference.
    """

    rewards: Tensor
    group: Tensor
    mask: Tensor
    logps: Tensor
    ref_logps: Tensor


@dataclass(frozen=True, slots=True)
class CriticExperience(Experience):
    """Answers with what the value head expected of them.

    Attributes:
        values: the value head's predictions before each token, in the reward's unit, shape [rows, time].
    """

    values: Tensor


@dataclass(frozen=True, slots=True)
class Advantages:
    """What a method makes of an `Experience`.

    Attributes:
        advantages: of each token over what was expected, shape [rows, time].
    """

    advantages: Tensor


@dataclass(frozen=True, slots=True)
class CriticAdvantages(Advantages):
    """What a method makes of a `CriticExperience`.

    Attributes:
        returns: targets of the value head, in the reward's unit, shape [rows, time].
    """

    returns: Tensor


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Answers that the policy wrote, token by token, as a micro-batch of an update.

    Attributes:
        logps: log π(y_t | x, y_<t) under the policy as it is now, nats, shape [rows, time], with gradient.
        old_logps: the same when the answers were written, no gradient.
        ref_logps: the same under the reference, no gradient.
        mask: True at response tokens, shape [rows, time]; all else is 0 beyond it.
        advantages: what the method's own advantage function made of the whole batch, shape [rows, time].
        mean_tokens: response tokens of an answer, on average over the whole batch: a row's sum over tokens divided by
            it gives, in the mean over rows, the mean over all tokens.
    """

    logps: Tensor
    old_logps: Tensor
    ref_logps: Tensor
    mask: Tensor
    advantages: Tensor
    mean_tokens: float

    def __len__(self) -> int:
        return len(self.logps)


@dataclass(frozen=True, slots=True)
class CriticRollouts(Rollouts):
    """Rollouts with what the value head says of them.

    Attributes:
        values: the value head's predictions now, with gradient, in the reward's unit, shape [rows, time].
        old_values: the same when the answers were written, no gradient.
        returns: what the value head is to predict, by the method's own advantage function, shape [rows, time].
    """

    values: Tensor
    old_values: Tensor
    returns: Tensor
