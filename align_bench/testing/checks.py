"""The conformance kit's checks, in the order in which a reader should mend what failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch

from align_bench.api import Algorithm, OfflineAlgorithm, OnlineAlgorithm
from align_bench.errors import PluginError
from align_bench.records import Parameters, Scalar
from align_bench.testing.batch_checks import terms, whole_batch
from align_bench.testing.declaration_checks import bounds, documentation
from align_bench.testing.loss_checks import (
    closed_form,
    edges,
    extremes,
    gradients,
    kl_estimate,
    length,
    margin,
    rewards,
    runs,
    signs,
    start,
)
from align_bench.testing.model_checks import advantages, batches, feed
from align_bench.testing.specimens import KINDS
from align_bench.testing.subject import Status, Subject, Verdict, guarded
from align_bench.testing.training_checks import moving_reference

QUICK = ("contract", "signs", "extremes", "rewards")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what, in a word or two.
        expected: what keeps the contract.
        status: `passed`, `failed`, `not applicable` (this method has no such property), or `unchecked` (the kit cannot
            tell).
        found: what was found, with numbers; the reason where nothing was checked.
        hint: what to do about it; empty when it passed.
    """

    name: str
    expected: str
    status: Status
    found: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All checks of one method.

    Attributes:
        method: its name.
        parameters: the hyper-parameters that it was checked at.
        checks: in the order in which a reader should mend what failed.
    """

    method: str
    parameters: Parameters
    checks: tuple[Check, ...]

    def having(self, status: Status) -> tuple[Check, ...]:
        """The checks of that status."""
        return tuple(check for check in self.checks if check.status == status)

    def raise_for_failures(self) -> None:
        """Fail a test unless every check passed or does not apply; what is unchecked is warned of.

        Raises:
            AssertionError: names each failed check with what was found, what was expected and what to do.
        """
        if failed := self.having("failed"):
            raise AssertionError(
                f"{self.method} fails {len(failed)} of {len(self.checks)} checks at {dict(self.parameters)}\n"
                + "\n".join(
                    f"- {check.name}: {check.found}\n  expected: {check.expected}\n  → {check.hint}" for check in failed
                )
            )
        if unchecked := self.having("unchecked"):
            names = ", ".join(check.name for check in unchecked)
            warnings.warn(f"{self.method} is unchecked in: {names}; {unchecked[0].found}", stacklevel=2)


def check_algorithm(algorithm: Algorithm, **parameters: Scalar) -> CheckReport:
    """Hold a method's loss to the contract of its data kind, at these hyper-parameters (else its defaults).

    Takes a second or two, on the CPU, without network.

    Raises:
        PluginError: when a hyper-parameter is unknown or out of bounds.
    """
    try:
        resolved = algorithm.resolve(parameters)
    except ValueError as error:
        raise PluginError(str(error)) from error
    declared = (
        Check(name, expected, *check(algorithm, resolved)) for name, expected, check in _CHECKS_OF_THE_DECLARATION
    )
    return CheckReport(algorithm.name, resolved, (*_loss_checks(algorithm, resolved), *declared))


def quick_checks(algorithm: Algorithm, parameters: Parameters) -> tuple[Check, ...]:
    """The checks that a method is held to before it trains: `contract`, `signs`, `extremes` and `rewards`.

    Takes milliseconds and no model, and leaves torch's seed as it was.

    Args:
        algorithm: the method; without a loss that the kit can read, every check is `unchecked`.
        parameters: all its hyper-parameters, resolved.
    """
    with torch.random.fork_rng(devices=[]):
        return tuple(_loss_checks(algorithm, parameters, QUICK))


def _loss_checks(algorithm: Algorithm, parameters: Parameters, names: Collection[str] = ()) -> Iterator[Check]:
    """All of them, or those of these names."""
    kind = KINDS.get(algorithm.data)
    subject, obstacle = None, ""
    if kind is not None and isinstance(algorithm, OfflineAlgorithm | OnlineAlgorithm):
        subject = Subject(algorithm, parameters, kind)
    elif algorithm.without_loss:
        obstacle = f"{algorithm.without_loss} and has no loss to check"
    else:
        obstacle = f"the kit has no checks for the data kind {algorithm.data!r} yet"
    for name, expected, check in _CHECKS_OF_THE_LOSS:
        if names and name not in names:
            continue
        if subject is None or obstacle:
            yield Check(name, expected, "unchecked", obstacle)
            continue
        verdict = guarded(check, subject)
        yield Check(name, expected, *verdict)
        if check is runs and verdict.status == "failed":
            obstacle = "the loss has to run first"


_CHECKS_OF_THE_LOSS: tuple[tuple[str, str, Callable[[Subject], Verdict]], ...] = (
    ("contract", "a Loss with a finite value and reward for each row, with gradient", runs),
    ("closed form", "the declared loss where the policy equals the reference (or both scores are 0)", closed_form),
    (
        "signs",
        "near the reference, more of a chosen answer lowers the loss, more of a rejected one raises it",
        signs,
    ),
    ("gradients", "autograd's derivatives equal finite differences, in float64", gradients),
    ("extremes", "finite values, rewards and gradients at extreme margins, in float32", extremes),
    ("rewards", "an answer's reward rises with its log-probability (or score), and with nothing dropped", rewards),
    ("start", "where the policy equals the reference, as at step 0 of start_from, rewards do not depend on it", start),
    ("margin", "near the reference, a larger margin of the data raises the loss; it moves no reward", margin),
    ("length", "answers' lengths count as declared", length),
    ("KL estimate", "from mismatched answers alone, without gradient; online, it draws to the reference", kl_estimate),
    ("whole batch", "its statistics are the effective batch's, whatever its order and however it is cut", whole_batch),
    ("terms", "a sum has the value and the gradient of its terms, each alone, times their weights", terms),
    ("range ends", "finite values and gradients at each bound that a range includes", edges),
    ("responses", "what the loss reads covers the response's tokens and no prompt token", feed),
    ("batches", "padding, micro-batches, row order and processes that share a batch change nothing", batches),
    ("moving reference", "it is the policy as it was when it last moved, killed and resumed or not", moving_reference),
    ("advantages", "a better answer gets the higher advantage; row order and padding change nothing", advantages),
)
_CHECKS_OF_THE_DECLARATION: tuple[tuple[str, str, Callable[[Algorithm, Parameters], Verdict]], ...] = (
    ("bounds", "values outside a hyper-parameter's range are refused, defaults are inside", bounds),
    ("documentation", "Equation, Args with units, Returns, Source, Differs from the source", documentation),
)
