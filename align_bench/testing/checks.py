"""The checks of the conformance kit, each on the records and the model of `specimens`."""

from __future__ import annotations

import inspect
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from align_bench.api import Algorithm, BiasExpert, Loss, Recipe, Record, Selection
from align_bench.errors import AlignBenchError, PluginError
from align_bench.testing.specimens import KINDS, Bench, Kind, RolloutFeed, bench, drifted, experience, for_method
from align_bench.train.auxiliary import attach
from align_bench.train.feeds import FEEDS, Feed

Status = Literal["passed", "failed", "not applicable", "unchecked"]
_RETURNS, _DIFFERS = "Returns", "Differs from the source"
SECTIONS = ("Equation", "Args", _RETURNS, "Source", _DIFFERS)
_UNIT = re.compile(
    r"\b(units?|nats?|tokens?|words?|characters|logits?|rows?|pairs?|examples?|answers?|samples?|prompts?|steps?"
    r"|epochs?|probability|share|rate)\b"
)


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
    parameters: Mapping[str, Any]
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


def check_algorithm(algorithm: Algorithm, **parameters: Any) -> CheckReport:
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


def _loss_checks(algorithm: Algorithm, parameters: Mapping[str, Any]) -> Iterator[Check]:
    kind = None if isinstance(algorithm, Recipe) else KINDS.get(algorithm.data)
    obstacle = "" if kind else _why_unchecked(algorithm)
    for name, expected, check in _CHECKS_OF_THE_LOSS:
        if kind is None or obstacle:
            yield Check(name, expected, "unchecked", obstacle)
            continue
        verdict = _guarded(check, _Subject(algorithm, parameters, kind))
        yield Check(name, expected, *verdict)
        if check is _runs and verdict.status == "failed":
            obstacle = "the loss has to run first"


def _why_unchecked(algorithm: Algorithm) -> str:
    if isinstance(algorithm, Recipe):
        return "a recipe takes the whole training and has no loss to check"
    if isinstance(algorithm, Selection):
        return "a selection trains nothing and has no loss to check"
    return f"the kit has no checks for the data kind {algorithm.data!r} yet"


class _Verdict(NamedTuple):
    status: Status
    found: str
    hint: str = ""


def _passed(found: str) -> _Verdict:
    return _Verdict("passed", found)


def _failed(found: str, hint: str) -> _Verdict:
    return _Verdict("failed", found, hint)


def _not_applicable(reason: str) -> _Verdict:
    return _Verdict("not applicable", reason)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A method with its hyper-parameters and the kind of data it reads."""

    algorithm: Algorithm
    parameters: Mapping[str, Any]
    kind: Kind

    def batch(self, make: Callable[[torch.dtype], Record]) -> Any:
        """A batch as this method would get it, in float64."""
        return for_method(make(torch.float64), self.algorithm, self.parameters)

    def loss(self, record: Record) -> Loss:
        return self.algorithm(record, **self.parameters)

    def gradients(self, record: Any) -> tuple[Loss, dict[str, Tensor]]:
        """The loss, and the derivative of its sum by each trained field; rows do not mix, so these are by row."""
        inputs = self.inputs(record)
        loss = self.loss(replace(record, **inputs))
        found = torch.autograd.grad(loss.values.sum(), list(inputs.values()), allow_unused=True, materialize_grads=True)
        return loss, dict(zip(inputs, found, strict=True))

    def inputs(self, record: Any) -> dict[str, Tensor]:
        """The trained fields that the method reads, as leaves of a graph."""
        names = (*self.kind.trained, *self.kind.beside)
        given = {name: getattr(record, name) for name in names}
        return {name: value.clone().requires_grad_() for name, value in given.items() if value is not None}

    def rewards(self, loss: Loss) -> dict[str, Tensor]:
        return {name: getattr(loss, name) for name in self.algorithm.reward_fields}

    def wanted(self, record: Any, name: str) -> Tensor:
        """The sign that ∂loss/∂field is to have: −1, 0 or 1 in each place."""
        if self.kind.slopes is not None:
            return self.kind.slopes(record, name)
        rejected = self.kind.rejected(record, name)
        return torch.where(rejected, int(self.uses_rejected), -1)

    @property
    def uses_rejected(self) -> bool:
        declared = self.algorithm.uses_rejected
        return declared(**self.parameters) if callable(declared) else declared

    @property
    def bench(self) -> Bench:
        return bench(scalar_head=self.algorithm.kind == "reward")

    @contextmanager
    def fed(self) -> Iterator[tuple[Any, Feed | RolloutFeed]]:
        """The bench's model with the scorer that the method declares beside it, and its rows as training feeds them.

        A bias expert's noise is left out: no two passes share it.
        """
        model, rows, algorithm = self.bench.model, self.bench.rows, self.algorithm
        if algorithm.online:
            yield model, RolloutFeed(rows, self.bench.reference_model)
            return
        feed = FEEDS[algorithm.data](rows, self.bench.reference if algorithm.reference else None)
        if algorithm.auxiliary is None:
            yield model, feed
            return
        declared = algorithm.auxiliary(self.parameters)
        with torch.random.fork_rng(devices=[]):
            attach(model, replace(declared, noise=0.0) if isinstance(declared, BiasExpert) else declared, seed=0)
        try:
            yield model, feed
        finally:
            del model.companion


def _guarded(check: Callable[[_Subject], _Verdict], subject: _Subject) -> _Verdict:
    """The verdict, where a plugin may raise anything."""
    try:
        return check(subject)
    except AlignBenchError as error:
        return _failed(error.message, error.fix or "see the contract in align_bench.api")
    except NotImplementedError as error:
        return _failed(f"there is no loss yet: {error}", f"write it at {_place(error, subject.algorithm)}")
    except Exception as error:
        hint = f"see {_place(error, subject.algorithm)}"
        if "NoneType" in str(error) and subject.algorithm.kind == "policy" and not subject.algorithm.reference:
            hint += "; declare reference=True if the loss reads reference log-probabilities"
        return _failed(f"raised {type(error).__name__}: {error}", hint)


def _place(error: Exception, algorithm: Algorithm) -> str:
    """Where in the plugin's file the error comes from."""
    file = algorithm.function.__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1] if lines else algorithm.function.__code__.co_firstlineno}"


# The loss by itself.


def _runs(subject: _Subject) -> _Verdict:
    record = subject.batch(subject.kind.moderate)
    loss = subject.loss(replace(record, **subject.inputs(record)))
    if not loss.values.requires_grad:
        return _failed(
            "the values carry no gradient", "compute them from the batch's tensors, without .detach() or .item()"
        )
    tensors = {"values": loss.values, **subject.rewards(loss)}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            return _failed(
                f"{name} are {_list(tensor)} at moderate log-probabilities", "look for a log, exp or division"
            )
    return _passed(f"{', '.join(tensors)} of shape [{len(loss.values)}], finite")


def _closed_form(subject: _Subject) -> _Verdict:
    declared = subject.algorithm.at_reference
    if declared is None:
        return _not_applicable("no closed form is declared; @algorithm(at_reference=…) declares one")
    record = subject.batch(subject.kind.at_reference)
    form = declared(**subject.parameters) if callable(declared) else declared
    values = subject.loss(record).values
    if isinstance(form, tuple):
        desirable, undesirable = (torch.full_like(values, value) for value in form)
        expected = torch.where(subject.kind.rejected(record, subject.kind.trained[0]), undesirable, desirable)
    else:
        expected = torch.full_like(values, form)
    found = f"{_list(values)}, declared {_list(expected)}"
    if not torch.allclose(values, expected, rtol=1e-9, atol=1e-12):
        return _failed(found, "check the equation against its source, or mend at_reference")
    return _passed(found)


def _signs(subject: _Subject) -> _Verdict:
    places = {"near": subject.kind.near_reference}
    if subject.algorithm.reference or subject.algorithm.online or subject.algorithm.kind == "reward":
        places = {"at": subject.kind.at_reference, **places}
    spans: dict[str, list[float]] = {}
    for where, make in places.items():
        record = subject.batch(make)
        for name, slopes in subject.gradients(record)[1].items():
            rejected, wanted = subject.kind.rejected(record, name), subject.wanted(record, name)
            read = record.mask if subject.algorithm.online else torch.ones_like(slopes)
            for place in read.nonzero().tolist():
                at = tuple(place)
                slope, sign = float(slopes[at]), int(wanted[at])
                side = f"{name} of a rejected answer" if rejected[at] and len(subject.kind.trained) == 1 else name
                if (slope > 0) - (slope < 0) != sign:
                    return _failed(
                        f"{where} the reference, row {', token '.join(map(str, at))}: ∂loss/∂{side} = {slope:.3g}, "
                        f"expected { {0: '0', 1: 'above 0', -1: 'below 0'}[sign] }",
                        "look for a flipped sign or swapped sides; online, for a clip that holds where the policy went "
                        "astray; a method that rejected answers do not move declares @algorithm(uses_rejected=…)",
                    )
                spans.setdefault(side, []).append(slope)
    return _passed("; ".join(f"∂loss/∂{side} {min(span):.3g} to {max(span):.3g}" for side, span in spans.items()))


def _gradients(subject: _Subject) -> _Verdict:
    record = subject.batch(subject.kind.moderate)
    inputs = subject.inputs(record)

    def values(*given: Tensor) -> Tensor:
        return subject.loss(replace(record, **dict(zip(inputs, given, strict=True)))).values

    try:
        gradcheck(values, list(inputs.values()))
    except GradcheckError as error:
        # It numbers the inputs and then prints both Jacobians.
        by_name = re.sub(
            r"output 0 with respect to input (\d)", lambda at: f"∂loss/∂{list(inputs)[int(at[1])]}", str(error)
        )
        return _failed(" ".join(by_name.split()), "look for .detach(), .item(), rounding or a custom backward")
    return _passed(f"{' and '.join(f'∂loss/∂{name}' for name in inputs)} equal in every row")


def _extremes(subject: _Subject) -> _Verdict:
    extremes = subject.kind.extreme(torch.float32)
    for what, record in extremes.items():
        loss, slopes = subject.gradients(for_method(record, subject.algorithm, subject.parameters))
        named = {"the values": loss.values, **{f"∂loss/∂{name}": slope for name, slope in slopes.items()}}
        for name, tensor in {**named, **subject.rewards(loss)}.items():
            if not tensor.isfinite().all():
                return _failed(
                    f"at {what}, {name}: {_list(tensor)}",
                    "use logsigmoid, softplus, expm1 or log1p in place of their spelt-out forms, and keep off poles "
                    "(clamp what goes into log)",
                )
    return _passed(f"all finite at {', '.join(extremes)}")


def _rewards(subject: _Subject) -> _Verdict:
    if subject.algorithm.online:
        return _not_applicable("an online method is given its reward, and returns none")
    record = subject.batch(subject.kind.moderate)
    before = subject.rewards(subject.loss(record))
    rises = []
    for name, reward in zip(subject.kind.trained, before, strict=True):
        after = subject.rewards(subject.loss(replace(record, **{name: getattr(record, name) + 1})))
        rise = after[reward] - before[reward]
        if not rise.any() and not subject.uses_rejected:
            return _not_applicable("by its declaration, these hyper-parameters leave no preference to reward")
        if not (rise > 0).all():
            return _failed(
                f"{reward} change by {_list(rise)} when {name} rises by 1", "return the rewards that the loss compares"
            )
        rises.append(f"{reward} rise by {_list(rise)} when {name} rises by 1")
    for name in subject.inputs(record).keys() - set(subject.kind.trained):
        after = subject.rewards(subject.loss(replace(record, **{name: getattr(record, name) + 1})))
        for reward, values in after.items():
            if not torch.equal(values, before[reward]):
                return _failed(
                    f"{reward} change by {_list(values - before[reward])} when {name} rises by 1, which is dropped "
                    "after training",
                    "return the scores of the model that is kept",
                )
    return _passed("; ".join(rises))


def _length(subject: _Subject) -> _Verdict:
    normalised, counts = subject.algorithm.normalised, subject.kind.counts
    if not counts:
        return _not_applicable(f"{subject.algorithm.data} carry no token counts")
    if normalised is None:
        return _not_applicable("nothing is declared; @algorithm(normalised=True or False) declares it")
    record = subject.batch(subject.kind.moderate)
    given = {field.name: getattr(record, field.name) for field in fields(record)}
    sums = [name for name, value in given.items() if value is not None and value.is_floating_point()]
    doubled = [name for name in (*counts, *(sums if normalised else ())) if name not in subject.kind.per_batch]
    before = subject.loss(record).values
    after = subject.loss(replace(record, **{name: 2 * given[name] for name in doubled})).values
    what = "answers twice as long at the same s̄" if normalised else "twice the token counts at the same sums"
    if not torch.allclose(before, after, rtol=1e-9, atol=1e-12):
        return _failed(
            f"{what} move the loss from {_list(before)} to {_list(after)}",
            "divide by each answer's own token count" if normalised else "declare normalised=True, or leave it out",
        )
    return _passed(f"{what} leave it at {_list(before)}")


def _kl_estimate(subject: _Subject) -> _Verdict:
    if subject.algorithm.online:
        return _drift(subject)
    if not subject.kind.per_batch:
        return _not_applicable(f"{subject.algorithm.data} bring no mismatched answers")
    if not subject.algorithm.reference:
        return _not_applicable("without a reference there is no KL estimate")
    record = subject.batch(subject.kind.moderate)
    before = subject.loss(record).values
    if torch.equal(before, subject.loss(replace(record, mismatched=record.mismatched + 3)).values):
        return _failed(
            "mismatched answers 3 nats more likely leave the loss alone",
            "estimate z0 as max(0, mean of mismatched − ref_mismatched)",
        )
    others = torch.arange(len(before)) > 0
    moved = subject.loss(replace(record, logps=torch.where(others, record.logps + 5, record.logps))).values
    if moved[0] != before[0]:
        return _failed(
            f"row 0 goes from {before[0]:.4g} to {moved[0]:.4g} when the other rows' own answers change",
            "estimate z0 from mismatched, not from the rows' own answers",
        )
    mismatched = record.mismatched.clone().requires_grad_()
    logps = record.logps.clone().requires_grad_()
    values = subject.loss(replace(record, logps=logps, mismatched=mismatched)).values
    (slopes,) = torch.autograd.grad(values.sum(), [mismatched], allow_unused=True, materialize_grads=True)
    if slopes.any():
        return _failed(f"∂loss/∂mismatched = {_list(slopes)}", "detach the KL estimate")
    return _passed("moves with mismatched − ref_mismatched alone, without gradient")


def _drift(subject: _Subject) -> _Verdict:
    """Whether a loss that reads the reference draws the policy back to it, token by token."""
    record = drifted(torch.float64)
    _, slopes = subject.gradients(for_method(record, subject.algorithm, subject.parameters))
    pull, away = slopes["logps"][record.mask], (record.logps - record.ref_logps)[record.mask]
    if not pull.any():
        return _not_applicable("a drift from the reference does not move the loss; the reward may pay for it")
    if not torch.equal(pull.sign(), away.sign()):
        return _failed(
            f"tokens {_list(away)} nats from the reference have ∂loss/∂logps {_list(pull)}",
            "a token likelier than under the reference is to become less likely: look for a flipped sign",
        )
    return _passed(f"tokens {_list(away)} nats from the reference have ∂loss/∂logps {_list(pull)}")


def _edges(subject: _Subject) -> _Verdict:
    tried = []
    for name, parameter in subject.algorithm.parameters.items():
        for value in (edge for bound in parameter.constraints for edge in _edge(bound)):
            at_edge = replace(subject, parameters={**subject.parameters, name: parameter.parse(value)})
            loss, slopes = at_edge.gradients(subject.batch(subject.kind.moderate))
            if not all(tensor.isfinite().all() for tensor in (loss.values, *slopes.values())):
                return _failed(
                    f"at {name}={value:g}, which its range allows, the loss is {_list(loss.values)}",
                    "leave the bound out of the range: Gt for Ge, Lt for Le",
                )
            tried.append(f"{name}={value:g}")
    return _passed(f"finite at {', '.join(tried)}") if tried else _not_applicable("no range includes its bound")


# The way from token rows to the loss.


def _feed(subject: _Subject) -> _Verdict:
    expected: Any = for_method(subject.kind.by_definition(subject.bench), subject.algorithm, subject.parameters)
    with torch.no_grad(), subject.fed() as (model, feed):
        examples = range(len(feed.lengths))
        feed.begin(model, examples, max_tokens=64)
        record = feed.record(model, examples)
    given = {field.name: getattr(expected, field.name) for field in fields(expected)}
    names = [name for name, value in given.items() if isinstance(value, Tensor)]
    for name in names:
        found, wanted = (getattr(each, name).double() for each in (record, expected))
        wrong = ~torch.isclose(found, wanted, rtol=1e-4, atol=1e-4)
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            return _failed(
                f"{name} of example {at[0]} is {found[at]:.5g}, over the response's tokens alone {wanted[at]:.5g}",
                "this is the benchmark's part, not the plugin's: a span, a mask or a count is off; please report it",
            )
    return _passed(f"{', '.join(names)} of {len(examples)} examples equal a plain recomputation over response tokens")


def _batches(subject: _Subject) -> _Verdict:
    with subject.fed() as (_, feed):
        examples = list(range(len(feed.lengths)))
    shuffled = random.Random(0).sample(examples, len(examples))
    whole = _by_example(subject, [examples])
    for how, parts in {
        "alone, without padding": [[example] for example in examples],
        "in micro-batches of three": [examples[start : start + 3] for start in examples[::3]],
        "in another order": [shuffled],
    }.items():
        found = _by_example(subject, parts)
        wrong = ~torch.isclose(found, whole, rtol=1e-3, atol=1e-4).all(1)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            return _failed(
                f"{how}, example {row} has a loss (and rewards) of {_list(found[row])}; in the whole batch "
                f"{_list(whole[row])}",
                "let a row read its own numbers only: no mean, max or sum over the batch's rows, and nothing of the "
                "padding",
            )
    return _passed(f"{len(examples)} examples keep loss and rewards alone, in threes, in another order")


def _by_example(subject: _Subject, parts: Sequence[Sequence[int]]) -> Tensor:
    """Loss and rewards of each example of the bench, in its order, when one effective batch is cut into these parts."""
    batch = [example for part in parts for example in part]
    with torch.no_grad(), subject.fed() as (model, feed):
        feed.begin(model, batch, max_tokens=64)
        losses = [subject.loss(feed.record(model, part)) for part in parts]
        found = torch.cat([torch.stack([loss.values, *subject.rewards(loss).values()], 1) for loss in losses])
    return found[torch.tensor(batch).argsort()]


def _advantages(subject: _Subject) -> _Verdict:
    algorithm = subject.algorithm
    if not algorithm.online:
        return _not_applicable("only online methods have an advantage")
    given = experience(torch.float64)
    made = algorithm.advantages(given, subject.parameters).advantages
    if not made.isfinite().all() or made[~given.mask].any():
        return _failed(f"advantages are {_list(made)}", "keep them finite, and 0 beyond the mask")
    last = made[torch.arange(len(made)), given.mask.sum(1) - 1]
    for group in sorted(set(given.group.tolist())):
        rows = (given.group == group).nonzero().flatten()
        if not torch.equal(last[rows].argsort(), given.rewards[rows].argsort()):
            return _failed(
                f"rewards {_list(given.rewards[rows])} of one prompt's answers give advantages {_list(last[rows])} at "
                "their last tokens",
                "a better answer has the higher advantage: look for a flipped sign or a wrong group",
            )
    order = [4, 2, 0, 5, 1, 3]
    shuffled = algorithm.advantages(experience(torch.float64, order), subject.parameters).advantages
    padded = algorithm.advantages(experience(torch.float64, padding=3), subject.parameters).advantages
    changes = {"in another order": (shuffled, made[order]), "with more padding": (padded[:, : made.shape[1]], made)}
    for how, (found, wanted) in changes.items():
        if not torch.allclose(found, wanted, rtol=1e-9, atol=1e-12) or padded[:, made.shape[1] :].any():
            return _failed(f"{how}, advantages go from {_list(wanted)} to {_list(found)}", "average over the mask only")
    return _passed(f"better answers have the higher ones: {_list(last)} for rewards {_list(given.rewards)}")


# The declaration.


def _bounds(algorithm: Algorithm, parameters: Mapping[str, Any]) -> _Verdict:
    refused = []
    for name, parameter in algorithm.parameters.items():
        for value in (beyond for bound in parameter.constraints for beyond in _beyond(bound)):
            try:
                algorithm.resolve({name: parameter.type(value)})
            except ValueError:
                refused.append(f"{name}={value:g}")
            else:
                return _failed(f"{name}={value:g} is accepted, expected {parameter.bounds}", "mend its annotation")
        try:
            algorithm.resolve({name: parameter.default})
        except ValueError as error:
            return _failed(f"the default is refused: {error}", "mend the default or its range")
    if not refused:
        return _not_applicable("no hyper-parameter has a range")
    return _passed(f"refused: {', '.join(refused)}; the defaults are inside")


def _beyond(bound: BaseMetadata) -> tuple[Any, ...]:
    match bound:
        case Gt(gt=low):
            return low - 1, low  # type: ignore[operator]
        case Ge(ge=low):
            return (low - 1,)  # type: ignore[operator]
        case Lt(lt=high):
            return high + 1, high  # type: ignore[operator]
        case Le(le=high):
            return (high + 1,)  # type: ignore[operator]
    return ()


def _edge(bound: BaseMetadata) -> tuple[Any, ...]:
    match bound:
        case Ge(ge=edge) | Le(le=edge):
            return (edge,)
    return ()


def _documentation(algorithm: Algorithm, parameters: Mapping[str, Any]) -> _Verdict:
    # A recipe returns nothing, and may rather differ from the method that it repeats.
    recipe = isinstance(algorithm, Recipe)
    sections = [section for section in SECTIONS if not (recipe and section in (_RETURNS, _DIFFERS))]
    missing = [
        f"no section `{section}:`" for section in sections if not re.search(rf"^{section}:$", algorithm.doc, re.M)
    ]
    described = _arguments(algorithm.doc)
    numbers = {name for name, parameter in algorithm.parameters.items() if parameter.type in (int, float)}
    own = [*inspect.signature(algorithm.function).parameters]
    own += [*inspect.signature(algorithm.advantage).parameters][1:] if algorithm.advantage else []
    for name in own:
        if not described.get(name):
            missing.append(f"no line in Args for {name}")
        elif name in numbers and not _UNIT.search(described[name]):
            missing.append(f"no unit in Args for {name}")
    if missing:
        return _failed(
            "; ".join(missing),
            "write the docstring as align-bench new does; a unit reads `per nat`, `tokens` or `no unit`",
        )
    return _passed(f"{', '.join(sections)}; {', '.join(described)} described")


def _arguments(doc: str) -> dict[str, str]:
    """Name → description, from the docstring's `Args`; continuation lines are indented further."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)+)", doc + "\n", re.M)
    entries = re.findall(r"^ {4}(\w+): *((?:.*\n)(?: {5,}.*\n)*)", section[1] if section else "", re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def _list(tensor: Tensor) -> str:
    """At most six numbers; one where all are the same."""
    numbers = [f"{value:.5g}" for value in tensor.detach().flatten().tolist()]
    if len(set(numbers)) == 1:
        return numbers[0]
    return f"[{', '.join(numbers[:6])}{', …' if len(numbers) > 6 else ''}]"


_CHECKS_OF_THE_LOSS: tuple[tuple[str, str, Callable[[_Subject], _Verdict]], ...] = (
    ("contract", "a Loss with a finite value and reward for each row, with gradient", _runs),
    ("closed form", "the declared loss where the policy equals the reference (or both scores are 0)", _closed_form),
    (
        "signs",
        "near the reference, more of a chosen answer lowers the loss, more of a rejected one raises it",
        _signs,
    ),
    ("gradients", "autograd's derivatives equal finite differences, in float64", _gradients),
    ("extremes", "finite values, rewards and gradients at extreme margins, in float32", _extremes),
    ("rewards", "an answer's reward rises with its log-probability (or score), and with nothing dropped", _rewards),
    ("length", "answers' lengths count as declared", _length),
    ("KL estimate", "from mismatched answers alone, without gradient; online, it draws to the reference", _kl_estimate),
    ("range ends", "finite values and gradients at each bound that a range includes", _edges),
    ("responses", "what the loss reads covers the response's tokens and no prompt token", _feed),
    ("batches", "padding, micro-batches and row order change nothing", _batches),
    ("advantages", "a better answer gets the higher advantage; row order and padding change nothing", _advantages),
)
_CHECKS_OF_THE_DECLARATION: tuple[tuple[str, str, Callable[[Algorithm, Mapping[str, Any]], _Verdict]], ...] = (
    ("bounds", "values outside a hyper-parameter's range are refused, defaults are inside", _bounds),
    ("documentation", "Equation, Args with units, Returns, Source, Differs from the source", _documentation),
)
