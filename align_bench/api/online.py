"""Methods that learn from answers that the policy writes itself, and the decorator that declares them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from align_bench.api.algorithms import Algorithm, checked_rate, checked_rates, documentation, joined
from align_bench.api.declaring import checked_function, declaring, in_short
from align_bench.api.loss import Loss, checked_loss
from align_bench.api.readings import agreed, batch_type, names_a_record
from align_bench.api.rollouts import (
    Advantages,
    CriticAdvantages,
    CriticExperience,
    CriticRollouts,
    Experience,
    Rollouts,
    RolloutSettings,
)
from align_bench.api.signatures import named_by, parameters_of, settings_from, settings_parameters
from align_bench.errors import PluginError
from align_bench.records import Parameters, Scalar

AdvantageFunction: TypeAlias = Callable[..., Advantages]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineAlgorithm(Algorithm):
    """A method whose loss reads answers that the policy wrote, and the advantages that it made of them.

    Attributes:
        function: the loss.
        advantage: from an `Experience` to its `Advantages`.
        critic: whether a value head is trained beside the policy, which both of them read.
    """

    function: Callable[..., object]
    advantage: AdvantageFunction
    critic: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the loss's arguments, then those of the advantage function's hyper-parameters."""
        return (*inspect.signature(self.function).parameters, *list(inspect.signature(self.advantage).parameters)[1:])

    def settings(self, parameters: Parameters) -> RolloutSettings:
        """How it gathers its answers, from all of its hyper-parameters."""
        return settings_from(RolloutSettings, parameters)

    def advantages(self, experience: Experience, parameters: Parameters) -> Advantages:
        """What it makes of a batch of answers, with a `CriticExperience` `CriticAdvantages`.

        Args:
            experience: the answers.
            parameters: all of its hyper-parameters.

        Raises:
            PluginError: when it is not what the contract asks for.
        """
        found = self.advantage(experience, **named_by(self.advantage, parameters))
        expected = CriticAdvantages if self.critic else Advantages
        if not isinstance(found, Advantages):
            made = type(found).__name__
            raise PluginError(
                f"{self.name}: its advantage returned {made}, expected align_bench.api.{expected.__name__}"
            )
        if isinstance(found, CriticAdvantages) != self.critic:
            raise PluginError(
                f"{self.name}: its advantage {'lacks' if self.critic else 'has'} returns",
                fix=f"return {expected.__name__}",
            )
        tensors = {"advantages": found.advantages}
        if isinstance(found, CriticAdvantages):
            tensors["returns"] = found.returns
        for name, tensor in tensors.items():
            if tensor.shape != experience.mask.shape:
                raise PluginError(
                    f"{self.name}: its advantage returned {name} of shape {tuple(tensor.shape)}, "
                    f"expected one per token: {tuple(experience.mask.shape)}"
                )
        return found

    def __call__(self, batch: Rollouts, **parameters: Scalar) -> Loss:
        """The loss of one micro-batch; of its hyper-parameters it takes those that it names.

        Raises:
            PluginError: when it is not what the contract asks for.
        """
        found = self.function(batch, **named_by(self.function, parameters))
        return checked_loss(found, self.name, len(batch), self.data, self.reward_fields)


@declaring
def online(
    *,
    paper: str,
    learning_rate: float,
    advantage: AdvantageFunction,
    learning_rate_range: tuple[float, float] | None = None,
    critic: bool | None = None,
    rollout: RolloutSettings | None = None,
) -> Callable[[Callable[..., Loss]], OnlineAlgorithm]:
    """Declare a loss on the policy's own answers as a method of the benchmark.

    Its hyper-parameters are those in its signature, those in the advantage function's, and `RolloutSettings`. With a
    first argument of type `CriticRollouts` a value head is trained beside the policy. The method implies no reward of a
    pair; s̄ stands for it in the tables.

    Args:
        paper: citation, such as `arXiv:2402.14740`.
        learning_rate: default peak learning rate for LoRA adapters.
        advantage: a function from an `Experience` to its `Advantages`, called once for each batch of answers; with a
            critic, from a `CriticExperience` to `CriticAdvantages`.
        learning_rate_range: lowest and highest one that suit LoRA adapters; outside of them a run warns.
        critic: whether there is a value head, where the batch has no annotation that tells it.
        rollout: defaults of the rollout settings that suit the method.

    Returns:
        A decorator that turns the function into an `OnlineAlgorithm`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., Loss]) -> OnlineAlgorithm:
        name, doc = function.__name__, documentation(function)
        rate = checked_rate(name, learning_rate)
        checked_function(name, "advantage", advantage)
        if critic not in (True, False, None):
            raise PluginError(f"{name}: critic={in_short(critic)}, expected True, False or None")
        with_critic = _critic(function, advantage, critic)
        settings = RolloutSettings() if rollout is None else rollout
        if not isinstance(settings, RolloutSettings):
            raise PluginError(f"{name}: rollout={in_short(rollout)}, expected RolloutSettings(…)")
        shared = settings_parameters(settings, name)
        gathered = joined(name, parameters_of(advantage, doc), shared, whose="the rollout settings")
        parameters = joined(
            name, parameters_of(function, doc), gathered, whose="its advantage or of the rollout settings"
        )
        return OnlineAlgorithm(
            name=name,
            function=function,
            data="rollouts",
            reference=True,
            paper=paper,
            learning_rate=rate,
            reward="s̄",
            parameters=parameters,
            doc=doc,
            advantage=advantage,
            critic=with_critic,
            learning_rate_range=checked_rates(name, rate, learning_rate_range),
        )

    return declare


def _critic(function: Callable[..., object], advantage: AdvantageFunction, said: bool | None) -> bool:
    """Whether there is a critic, by the types that loss and advantage read, or as declared where those tell nothing."""
    name = function.__name__
    batches = {Rollouts: False, CriticRollouts: True, Experience: False, CriticExperience: True}
    for batch in (batch_type(function), batch_type(advantage)):
        found = batches.get(batch) if isinstance(batch, type) else None
        if found is None and names_a_record(batch):
            raise PluginError(
                f"{name}: it reads {getattr(batch, '__name__', batch)}, which is no record of answers that the policy "
                "writes",
                fix="annotate Rollouts (the loss) and Experience (the advantage), or those of a critic",
            )
        if found is not None:
            known = "CriticRollouts and CriticExperience" if said else "Rollouts and Experience"
            agreed(name, batch, known=known, what="critic", read=found, said=said)
            said = found
    return bool(said)
