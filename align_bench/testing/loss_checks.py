"""Checks of a loss by itself, on batches made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from annotated_types import BaseMetadata, Ge, Le
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from align_bench.api import OfflineAlgorithm, OnlineAlgorithm
from align_bench.api.batches import fields_of
from align_bench.api.readings import as_record
from align_bench.testing.specimens import for_method
from align_bench.testing.subject import Subject, Verdict, failed, not_applicable, passed, shown
from align_bench.testing.written_batches import drifted

# What a text says that means log-probabilities divided by tokens.
_MEAN_OF_TOKENS = re.compile(r"\b(means?|averages?)\b[^.;]{0,60}\btokens?\b|\blength-normali[sz]ed\b", re.IGNORECASE)

_NO_SUM = re.compile("margin|confidence")  # fields that are not summed over tokens


def runs(subject: Subject) -> Verdict:
    record = subject.batch(subject.kind.moderate)
    loss = subject.loss(replace(record, **subject.inputs(record)))
    if not loss.values.requires_grad:
        return failed(
            "the values carry no gradient", "compute them from the batch's tensors, without .detach() or .item()"
        )
    tensors = {"values": loss.values, **subject.rewards(loss)}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            return failed(
                f"{name} are {shown(tensor)} at moderate log-probabilities", "look for a log, exp or division"
            )
    return passed(f"{', '.join(tensors)} of shape [{len(loss.values)}], finite")


def closed_form(subject: Subject) -> Verdict:
    algorithm = subject.algorithm
    form = None if isinstance(algorithm, OnlineAlgorithm) else algorithm.closed_form(subject.parameters)
    if form is None:
        return not_applicable("no closed form is declared; @algorithm(at_reference=…) declares one")
    record = subject.batch(subject.kind.at_reference)
    values = subject.loss(record).values
    if isinstance(form, tuple):
        desirable, undesirable = (torch.full_like(values, value) for value in form)
        expected = torch.where(subject.kind.rejected(record, subject.kind.trained[0]), undesirable, desirable)
    else:
        expected = torch.full_like(values, form)
    found = f"{shown(values)}, declared {shown(expected)}"
    if not torch.allclose(values, expected, rtol=1e-9, atol=1e-12):
        apart = float((values - expected).abs().max())
        return failed(
            f"{found} (up to {apart:.1e} apart)",
            "check the equation against its source, or correct at_reference; give it as an expression, such as "
            "math.log(2), not rounded",
        )
    return passed(found)


def signs(subject: Subject) -> Verdict:
    falls_with = subject.falls_with
    if falls_with == "nothing":
        return not_applicable("by its declaration (falls_with), the loss need not fall with the margin")
    places = {"near": subject.kind.near_reference}
    if subject.algorithm.reference or subject.algorithm.online or subject.algorithm.kind == "reward":
        places = {"at": subject.kind.at_reference, **places}
    spans: dict[str, list[float]] = {}
    for where, make in places.items():
        record = subject.batch(make)
        found = subject.gradients(record)[1]
        if falls_with == "margin":
            found = {"the margin": found["chosen"] - found["rejected"], "rejected": found["rejected"]}
        for name, slopes in found.items():
            rejected, wanted = subject.kind.rejected(record, name), subject.wanted(record, name)
            read = record.mask if subject.algorithm.online else torch.ones_like(slopes)
            for place in read.nonzero().tolist():
                at = tuple(place)
                slope, sign = float(slopes[at]), int(wanted[at])
                side = f"{name} of a rejected answer" if rejected[at] and len(subject.kind.trained) == 1 else name
                if (slope > 0) - (slope < 0) != sign:
                    return failed(
                        f"{where} the reference, row {', token '.join(map(str, at))}: ∂loss/∂{side} = {slope:.3g}, "
                        f"expected { {0: '0', 1: 'above 0', -1: 'below 0'}[sign] }",
                        "look for a flipped sign or swapped sides; online, for a clip that holds where the policy went "
                        "astray; a method that rejected answers do not move declares @algorithm(uses_rejected=…)",
                    )
                spans.setdefault(side, []).append(slope)
    return passed("; ".join(f"∂loss/∂{side} {min(span):.3g} to {max(span):.3g}" for side, span in spans.items()))


def gradients(subject: Subject) -> Verdict:
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
        return failed(" ".join(by_name.split()), "look for .detach(), .item(), rounding or a custom backward")
    return passed(f"{' and '.join(f'∂loss/∂{name}' for name in inputs)} equal in every row")


def extremes(subject: Subject) -> Verdict:
    extremes = subject.kind.extreme(torch.float32)
    for what, record in extremes.items():
        loss, slopes = subject.gradients(for_method(record, subject.algorithm, subject.parameters))
        named = {"the values": loss.values, **{f"∂loss/∂{name}": slope for name, slope in slopes.items()}}
        for name, tensor in {**named, **subject.rewards(loss)}.items():
            if not tensor.isfinite().all():
                return failed(
                    f"at {what}, {name}: {shown(tensor)}",
                    "use logsigmoid, softplus, expm1 or log1p in place of their spelt-out forms, and keep off poles "
                    "(clamp what goes into log)",
                )
    return passed(f"all finite at {', '.join(extremes)}")


def rewards(subject: Subject) -> Verdict:
    if subject.algorithm.online:
        return not_applicable("an online method is given its reward, and returns none")
    record = subject.batch(subject.kind.moderate)
    before = subject.rewards(subject.loss(record))
    rises = []
    for name, reward in zip(subject.kind.trained, before, strict=True):
        after = subject.rewards(subject.loss(replace(record, **{name: getattr(record, name) + 1})))
        rise = after[reward] - before[reward]
        if not rise.any() and not subject.uses_rejected:
            return not_applicable("by its declaration, these hyper-parameters leave no preference to reward")
        if not (rise > 0).all():
            return failed(
                f"{reward} change by {shown(rise)} when {name} rises by 1", "return the rewards that the loss compares"
            )
        rises.append(f"{reward} rise by {shown(rise)} when {name} rises by 1")
    for name in subject.inputs(record).keys() - set(subject.kind.trained):
        after = subject.rewards(subject.loss(replace(record, **{name: getattr(record, name) + 1})))
        for reward, values in after.items():
            if not torch.equal(values, before[reward]):
                return failed(
                    f"{reward} change by {shown(values - before[reward])} when {name} rises by 1, which is not "
                    "measured after training",
                    "return the scores of the model that is kept, or log-probabilities of whole answers",
                )
    return passed("; ".join(rises))


def start(subject: Subject) -> Verdict:
    """Whether a policy that has not left its reference, as at step 0 of `start_from`, has the same rewards at any."""
    if subject.algorithm.online or not subject.algorithm.reference:
        return not_applicable("it returns no reward against a reference")
    record = subject.batch(subject.kind.at_reference)
    less = {name: 3.0 * place for place, name in enumerate(subject.kind.trained, start=1)}  # nats
    other = {field: getattr(record, field) - by for name, by in less.items() for field in (name, f"ref_{name}")}
    found, after = (subject.rewards(subject.loss(one)) for one in (record, replace(record, **other)))
    for name, values in found.items():
        if not torch.allclose(values, after[name], rtol=0, atol=1e-9):
            return failed(
                f"{name} go from {shown(values)} to {shown(after[name])} when policy and reference both find the "
                "answers less likely",
                "take each answer's log-probability under the reference off the policy's, as sums or as means both",
            )
    return passed(f"{' and '.join(found)} are {' and '.join(map(shown, found.values()))} at any reference")


def margin(subject: Subject) -> Verdict:
    if not isinstance(subject.algorithm, OfflineAlgorithm) or not subject.algorithm.reading.margin:
        return not_applicable("it reads no margin")
    record = subject.batch(subject.kind.near_reference)
    before, after = (subject.loss(replace(record, margin=record.margin + more)) for more in (0, 1))
    rise = after.values - before.values
    if not (rise > 0).all():
        return failed(
            f"the loss changes by {shown(rise)} when the margin rises by 1",
            "look for a flipped sign, or for a margin that is not read",
        )
    given = subject.rewards(before)
    for name, values in subject.rewards(after).items():
        if not torch.equal(values, given[name]):
            return failed(
                f"{name} change by {shown(values - given[name])} when the margin rises by 1",
                "keep the margin out of the rewards: pairs that are measured need not have one",
            )
    return passed(f"the loss rises by {shown(rise)} when the margin rises by 1, and the rewards stay")


def length(subject: Subject) -> Verdict:
    algorithm, counts = subject.algorithm, subject.kind.counts
    normalised = None if isinstance(algorithm, OnlineAlgorithm) else algorithm.normalised
    if not counts:
        return not_applicable(f"{subject.algorithm.data} carry no token counts")
    if normalised is None:
        return _undeclared_length(subject)
    record = subject.batch(subject.kind.moderate)
    before = subject.loss(record).values
    what = "answers twice as long at the same s̄" if normalised else "twice the token counts at the same sums"
    for side in (
        "",
        *(counts if len(counts) > 1 else ()),
    ):  # a count of the other side is of equal use where both double
        after = subject.loss(_longer(record, subject, sums=normalised, side=side.removesuffix("_tokens"))).values
        if not torch.allclose(before, after, rtol=1e-9, atol=1e-12):
            who = f"{side.removesuffix('_tokens')} " if side else ""
            return failed(
                f"{who}{what} move the loss from {shown(before)} to {shown(after)}",
                "divide by each answer's own token count" if normalised else "declare normalised=True, or leave it out",
            )
    return passed(f"{what} leave it at {shown(before)}{', of one side too' if len(counts) > 1 else ''}")


def _longer(record: Any, subject: Subject, *, sums: bool, side: str = "") -> Any:
    """A batch with twice the token counts; with `sums` also twice the log-probabilities, so that each s̄ stays.

    Args:
        record: the batch.
        subject: whose it is.
        sums: whether to double sums.
        side: `chosen` or `rejected`, if only the answers of one are to be longer.
    """
    assert isinstance(subject.algorithm, OfflineAlgorithm), "the others carry no counts"
    rows: Any = as_record(subject.algorithm.reading.of_rows, fields_of(record))
    given = {name: value for name, value in fields_of(rows).items() if isinstance(value, Tensor)}
    summed = [name for name, value in given.items() if value.is_floating_point() and not _NO_SUM.search(name)]
    both = (*subject.kind.counts, *(summed if sums else ()))
    doubled = [name for name in both if side in name and name not in subject.kind.per_batch]
    longer = replace(rows, **{name: 2 * given[name] for name in doubled})
    return subject.algorithm.of_one_batch(longer, subject.parameters)


def _undeclared_length(subject: Subject) -> Verdict:
    """Whether a loss that declares nothing counts lengths, and whether that is what its text says."""
    record = subject.batch(subject.kind.moderate)
    before, after = subject.loss(record).values, subject.loss(_longer(record, subject, sums=True)).values
    if torch.allclose(before, after, rtol=1e-9, atol=1e-12):
        return not_applicable("nothing is declared; answers of any length at the same s̄ have the same loss")
    found = f"its loss depends on length: answers twice as long at the same s̄ move it {shown(before)} → {shown(after)}"
    claim = _MEAN_OF_TOKENS.search(subject.algorithm.doc)
    # Where other hyper-parameters divide by tokens, what the text says may be of a term that is switched off here.
    default = replace(subject, parameters=subject.algorithm.resolve({}))
    counted = _longer(record, subject, sums=False)
    if claim and all(torch.equal(one.loss(record).values, one.loss(counted).values) for one in (subject, default)):
        said = " ".join(claim[0].split())
        return failed(
            f"{found}, but its text says {said!r}",
            "divide by each answer's own token count; or, if sums are meant, declare normalised=False",
        )
    return not_applicable(f"nothing is declared (normalised=True or False would be); {found}")


def kl_estimate(subject: Subject) -> Verdict:
    if isinstance(subject.algorithm, OnlineAlgorithm):
        return _drift(subject)
    if not subject.kind.per_batch:
        return not_applicable(f"{subject.algorithm.data} bring no mismatched answers")
    if not subject.algorithm.reference:
        return not_applicable("without a reference there is no KL estimate")
    if not subject.algorithm.reading.mismatched:
        return not_applicable("it reads no mismatched answers")
    record = subject.batch(subject.kind.moderate)
    before = subject.loss(record).values
    if torch.equal(before, subject.loss(replace(record, mismatched=record.mismatched + 3)).values):
        return failed(
            "mismatched answers 3 nats more likely leave the loss alone",
            "estimate z0 as max(0, mean of mismatched − ref_mismatched); or, if there is to be none, annotate "
            "MatchedUnpairedLogps, which needs no pass over mismatched answers",
        )
    others = torch.arange(len(before)) > 0
    given = {name: getattr(record, name) for name in subject.kind.trained}
    farther = {name: torch.where(others, value + 5, value) for name, value in given.items()}
    moved = subject.loss(replace(record, **farther)).values
    if moved[0] != before[0]:
        return failed(
            f"row 0 goes from {before[0]:.4g} to {moved[0]:.4g} when the other rows' own answers change",
            "estimate z0 from mismatched, not from the rows' own answers",
        )
    mismatched = record.mismatched.clone().requires_grad_()
    values = subject.loss(replace(record, **subject.inputs(record), mismatched=mismatched)).values
    (slopes,) = torch.autograd.grad(values.sum(), [mismatched], allow_unused=True, materialize_grads=True)
    if slopes.any():
        return failed(f"∂loss/∂mismatched = {shown(slopes)}", "detach the KL estimate")
    return passed("moves with mismatched − ref_mismatched alone, without gradient")


def _drift(subject: Subject) -> Verdict:
    """Whether a loss that reads the reference draws the policy back to it, token by token."""
    record = drifted(torch.float64)
    _, slopes = subject.gradients(for_method(record, subject.algorithm, subject.parameters))
    pull, away = slopes["logps"][record.mask], (record.logps - record.ref_logps)[record.mask]
    if not pull.any():
        return not_applicable("a drift from the reference does not move the loss; the reward may pay for it")
    if not torch.equal(pull.sign(), away.sign()):
        return failed(
            f"tokens {shown(away)} nats from the reference have ∂loss/∂logps {shown(pull)}",
            "a token likelier than under the reference is to become less likely: look for a flipped sign",
        )
    return passed(f"tokens {shown(away)} nats from the reference have ∂loss/∂logps {shown(pull)}")


def edges(subject: Subject) -> Verdict:
    tried = []
    for name, parameter in subject.algorithm.parameters.items():
        for value in (edge for bound in parameter.constraints for edge in _edge(bound)):
            at_edge = replace(subject, parameters={**subject.parameters, name: parameter.parse(value)})
            loss, slopes = at_edge.gradients(subject.batch(subject.kind.moderate))
            if not all(tensor.isfinite().all() for tensor in (loss.values, *slopes.values())):
                return failed(
                    f"at {name}={value:g}, which its range allows, the loss is {shown(loss.values)}",
                    "leave the bound out of the range: Gt for Ge, Lt for Le",
                )
            tried.append(f"{name}={value:g}")
    return passed(f"finite at {', '.join(tried)}") if tried else not_applicable("no range includes its bound")


def _edge(bound: BaseMetadata) -> tuple[float, ...]:
    match bound:
        case Ge(ge=int() | float() as edge) | Le(le=int() | float() as edge):
            return (edge,)
    return ()
