"""Methods that train nothing: of several answers of the base, or of a start, they pick one by a reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from align_bench.api.algorithms import Algorithm, documentation, joined
from align_bench.api.declaring import checked_function, declaring, in_short, is_number
from align_bench.api.hyperparameters import Range
from align_bench.api.signatures import named_by, parameters_of, settings_from, settings_parameters
from align_bench.errors import PluginError
from align_bench.records import SMALLEST_TEMPERATURE

if TYPE_CHECKING:
    from torch import Tensor

    from align_bench.records import Parameters


@dataclass(frozen=True, slots=True)
class CandidateSettings:
    """How every selection gathers what it picks among; the suite's `generate:` says the rest.

    Attributes:
        reward: a reward method of the same suite, or one of its cells, or gold.
        n: candidates, answers of the base, or of the policy that `start_from` names, to one prompt.
        temperature: of sampling them, no unit; the KL bound is against that model as sampled at it.
    """

    reward: str = "rm"
    n: Annotated[int, Ge(1), Range(4, 64)] = 8
    temperature: Annotated[float, Ge(SMALLEST_TEMPERATURE)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Algorithm):
    """A method that trains nothing: of several answers of the base, or of its start, it picks one by a reward.

    Attributes:
        function: takes the rewards of the candidates, shape [prompts, n], and its own hyper-parameters; returns the
            place of each prompt's pick, integer tensor of shape [prompts].
        kl_bound: from the hyper-parameters, by keyword, to a bound of the KL divergence of its answers from those that
            it picks among, in nats per prompt.
    """

    function: Callable[..., object]
    kl_bound: Callable[..., float]

    @property
    def without_loss(self) -> str:
        """Why it has no loss, in words."""
        return "a selection trains nothing"

    def remarks(self, parameters: Parameters, start: str = "the base") -> tuple[str, ...]:
        """How it picks, and how far that takes it from what wrote the candidates."""
        candidates = self.settings(parameters)
        return (
            f"picks each answer by {candidates.reward} among {candidates.n} of {start}, sampled at temperature "
            f"{candidates.temperature:g}; its KL divergence from that is at most {self.bound(parameters):.3f} nats "
            "per prompt; pairs have no log-probability under it",
        )

    def settings(self, parameters: Parameters) -> CandidateSettings:
        """How it gathers its candidates, from all of its hyper-parameters."""
        return settings_from(CandidateSettings, parameters)

    def bound(self, parameters: Parameters) -> float:
        """The bound of the KL divergence of its answers from those that it picks among, in nats per prompt."""
        try:
            found = self.kl_bound(**named_by(self.kl_bound, parameters))
        except Exception as error:  # a plugin may raise anything
            raise PluginError(f"{self.name}: its kl_bound failed: {type(error).__name__}: {error}") from error
        if not is_number(found) or found < 0:
            raise PluginError(f"{self.name}: its kl_bound returned {in_short(found)}, expected a number of nats ≥ 0")
        return found

    def obstacle_here(self) -> str | None:
        """Nothing; asks for the bound at the defaults, so that a broken one is found before any work."""
        self.bound(self.resolve({}))
        return None

    def pick(self, rewards: Tensor, parameters: Parameters) -> list[int]:
        """The place of each prompt's pick.

        Args:
            rewards: of the candidates, shape [prompts, n], in the reward's unit.
            parameters: all of its hyper-parameters.

        Raises:
            PluginError: when it returned something else than a place for each prompt.
        """
        from torch import Tensor

        found = self.function(rewards, **named_by(self.function, parameters))
        prompts, n = rewards.shape
        places = found.tolist() if isinstance(found, Tensor) and tuple(found.shape) == (prompts,) else None
        if places is None or not all(isinstance(place, int) and 0 <= place < n for place in places):
            raise PluginError(
                f"{self.name} returned {found!r}, expected an integer tensor of shape ({prompts},) below {n}",
                fix="return the place of the picked candidate of each row, such as rewards.argmax(1)",
            )
        return places


@declaring
def selection(*, paper: str, kl_bound: Callable[..., float]) -> Callable[[Callable[..., object]], Selection]:
    """Declare a function that picks among answers of a model as a method. It has no adapter and no learning rate.

    The model is the base, or the policy that a suite's `start_from` names. Beside its own hyper-parameters the method
    has `CandidateSettings`: which reward, how many candidates, how they are sampled.
    What it writes to a pair's answers has no log-probability of its own, so that all measures of pairs are undefined
    for it.

    Args:
        paper: citation, such as `arXiv:2112.09332`.
        kl_bound: a function of the hyper-parameters that it names, by keyword, that returns a bound of the KL
            divergence of its answers from those of that model, in nats per prompt; the report states it.

    Returns:
        A decorator that turns the function into a `Selection`.

    Raises:
        PluginError: when the declaration or the signature cannot be used.
    """

    def declare(function: Callable[..., object]) -> Selection:
        name, doc = function.__name__, documentation(function)
        checked_function(name, "kl_bound", kl_bound)
        shared = settings_parameters(CandidateSettings(), name)
        return Selection(
            name=name,
            function=function,
            data="candidates",
            paper=paper,
            parameters=joined(name, parameters_of(function, doc), shared, whose="those of every selection"),
            doc=doc,
            kl_bound=kl_bound,
        )

    return declare
