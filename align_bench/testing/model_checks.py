"""Checks of the way from token rows to the loss, through a small model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from align_bench.api import CriticExperience, Experience, OnlineAlgorithm
from align_bench.models.micro_batches import shares
from align_bench.testing.narrowed import narrowed
from align_bench.testing.specimens import read_by
from align_bench.testing.subject import Subject, Verdict, failed, not_applicable, passed, shown
from align_bench.testing.written_batches import experience

SHARED = "shared by two processes"


def feed(subject: Subject) -> Verdict:
    expected = subject.kind.by_definition(subject.bench)
    with torch.no_grad(), subject.fed() as (model, feed):
        examples = range(len(feed.lengths))
        feed.begin(model, examples, max_tokens=64)
        record = feed.record(model, examples)
    read = {field.name for field in fields(read_by(subject.algorithm, subject.parameters))}  # type: ignore[arg-type]
    given = {field.name: getattr(expected, field.name) for field in fields(expected)}
    names = [name for name, value in given.items() if name in read and isinstance(value, Tensor)]
    batch = getattr(record, "batch", record)  # all rows are the whole batch
    for name, holder in [(name, holder) for holder in (record, batch) for name in names]:
        found, wanted = (getattr(each, name).double() for each in (holder, expected))
        wrong = ~torch.isclose(found, wanted, rtol=1e-4, atol=1e-4)
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            return failed(
                f"{name} of example {at[0]} is {found[at]:.5g}, over the response's tokens alone {wanted[at]:.5g}",
                "this is the benchmark's part, not the plugin's: a span, a mask or a count is off; please report it",
            )
    return passed(f"{', '.join(names)} of {len(examples)} examples equal a plain recomputation over response tokens")


def batches(subject: Subject) -> Verdict:
    with subject.fed() as (_, feed):
        examples = list(range(len(feed.lengths)))
        shared = shares(examples, feed.lengths, 2)
    shuffled = random.Random(0).sample(examples, len(examples))
    whole = _by_example(subject, [examples])
    for how, parts in {
        "alone, without padding": [[example] for example in examples],
        "in micro-batches of three": [examples[start : start + 3] for start in examples[::3]],
        "in another order": [shuffled],
        SHARED: shared,
    }.items():
        found = _by_example(subject, parts, apart=how == SHARED)
        wrong = ~torch.isclose(found, whole, rtol=1e-3, atol=1e-4).all(1)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            return failed(
                f"{how}, example {row} has a loss (and rewards) of {shown(found[row])}; in the whole batch "
                f"{shown(whole[row])}",
                "let a row read its own numbers only: no mean, max or sum over the batch's rows, and nothing of the "
                "padding",
            )
    return passed(
        f"{len(examples)} examples keep loss and rewards alone, in threes, in another order, shared by two processes"
    )


def _by_example(subject: Subject, parts: Sequence[Sequence[int]], *, apart: bool = False) -> Tensor:
    """Loss and rewards of each example of the bench, in its order, when one effective batch is cut into these parts.

    Args:
        subject: the method.
        parts: numbers of examples.
        apart: whether each part has a feed of its own, as each of several processes has.
    """
    batch = [example for part in parts for example in part]
    losses = []
    with torch.no_grad():
        for some in [[part] for part in parts] if apart else [parts]:
            with subject.fed() as (model, feed):
                feed.begin(model, batch, max_tokens=64)
                losses += [subject.loss(feed.record(model, part)) for part in some]
        found = torch.cat([torch.stack([loss.values, *subject.rewards(loss).values()], 1) for loss in losses])
    return found[torch.tensor(batch).argsort()]


def advantages(subject: Subject) -> Verdict:
    algorithm = subject.algorithm
    if not isinstance(algorithm, OnlineAlgorithm):
        return not_applicable("only online methods have an advantage")
    kind = CriticExperience if algorithm.critic else Experience

    def advantages_of(order: Sequence[int] = range(6), padding: int = 0) -> Tensor:
        written = narrowed(experience(torch.float64, order, padding), kind)
        return algorithm.advantages(written, subject.parameters).advantages

    given, made = experience(torch.float64), advantages_of()
    if not made.isfinite().all() or made[~given.mask].any():
        return failed(f"advantages are {shown(made)}", "keep them finite, and 0 beyond the mask")
    last = made[torch.arange(len(made)), given.mask.sum(1) - 1]
    for group in sorted(set(given.group.tolist())):
        rows = (given.group == group).nonzero().flatten()
        if not torch.equal(last[rows].argsort(), given.rewards[rows].argsort()):
            return failed(
                f"rewards {shown(given.rewards[rows])} of one prompt's answers give advantages {shown(last[rows])} at "
                "their last tokens",
                "a better answer has the higher advantage: look for a flipped sign or a wrong group",
            )
    order = [4, 2, 0, 5, 1, 3]
    shuffled = advantages_of(order)
    padded = advantages_of(padding=3)
    changes = {"in another order": (shuffled, made[order]), "with more padding": (padded[:, : made.shape[1]], made)}
    for how, (found, wanted) in changes.items():
        if not torch.allclose(found, wanted, rtol=1e-9, atol=1e-12) or padded[:, made.shape[1] :].any():
            return failed(f"{how}, advantages go from {shown(wanted)} to {shown(found)}", "average over the mask only")
    return passed(f"better answers have the higher ones: {shown(last)} for rewards {shown(given.rewards)}")
