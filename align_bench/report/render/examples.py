"""What the page's browser of examples holds: prompts with every cell's answers and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align_bench.records import CellId, Generation, Json
from align_bench.report.cells import Cell
from align_bench.report.labels import short_names
from align_bench.suite.names import GOLD

# What the page holds of the answers, in characters: enough for every example of a usual run, and never a page that a
# browser cannot open. The rest is in generations.jsonl.
MAX_TEXT = 3_000_000
MAX_ANSWER = 20_000


@dataclass(frozen=True, slots=True)
class Examples:
    """What the page is made from.

    Attributes:
        policies, cells, judges: what its lists offer, the selected one first.
        data: what its script reads: `judges` and how gold is called among them, `cells`, `ids` (in the data) and texts
            of the prompts with their right answers, and `answers` by cell and prompt.
        remark: how many prompts it holds.
    """

    policies: Sequence[str]
    cells: Sequence[str]
    judges: Sequence[str]
    data: Mapping[str, Json]
    remark: str


def examples_of(
    cells: Sequence[Cell],
    against: tuple[CellId, CellId] | None = None,
    main: str | None = None,
    gold: Mapping[int, str] | None = None,
) -> Examples | None:
    """The prompts with every cell's answers and their scores, as far as `MAX_TEXT` allows; None without answers.

    The page gets whole prompts, in the order of the data. An answer longer than `MAX_ANSWER` is cut, which is said.

    Args:
        cells: every cell with its rows.
        against: the two cells that are selected at first; by default the first policy, and the base.
        main: the main judge, which is selected at first.
        gold: prompt → its right answer, where it is known.
    """
    answering = sorted((cell for cell in cells if cell.generations), key=lambda cell: cell.outcome.kind != "base")
    if not answering:
        return None
    prompts: dict[int, str] = {}
    answers: dict[CellId, dict[int, list[Generation]]] = {cell.id: {} for cell in answering}
    for cell in answering:
        for answer in cell.generations:
            prompts.setdefault(answer.prompt_id, answer.prompt)
            answers[cell.id].setdefault(answer.prompt_id, []).append(answer)
    kept = _kept(prompts, list(answers.values()))
    names, labels, right = [cell.name for cell in answering], short_names(cell.id for cell in cells), gold or {}
    scorers = _scorers(answering, main)
    policies = [cell.name for cell in answering if cell.outcome.kind != "base"] or names[:1]
    selected = names
    if against is not None and set(against) <= answers.keys():  # the first option of each list is the selected one
        policies, selected = _first(str(against[0]), policies), _first(str(against[1]), names)
    return Examples(
        policies=policies,
        cells=selected,
        judges=scorers,
        data={
            "judges": scorers,
            "gold_judge": GOLD,
            "cells": [{"name": cell.name, "label": labels[cell.id]} for cell in answering],
            "ids": kept,
            "prompts": [prompts[prompt][:MAX_ANSWER] for prompt in kept],
            "right": [right[prompt][:MAX_ANSWER] if prompt in right else None for prompt in kept],
            "answers": {
                str(cell): [[_answer(answer, scorers) for answer in own.get(prompt, [])] for prompt in kept]
                for cell, own in answers.items()
            },
        },
        remark=f"{len(kept)} prompts, all that were answered."
        if len(kept) == len(prompts)
        else f"The first {len(kept)} of {len(prompts)} prompts; the others are in generations.jsonl.",
    )


def _kept(prompts: Mapping[int, str], answers: Sequence[Mapping[int, Sequence[Generation]]]) -> list[int]:
    """The first prompts, as many as there is room for with all their answers; one at least."""
    kept: list[int] = []
    size = 0
    for prompt in sorted(prompts):
        texts = [prompts[prompt], *(answer.text for own in answers for answer in own.get(prompt, ()))]
        size += sum(len(text[:MAX_ANSWER]) for text in texts)
        if size > MAX_TEXT and kept:
            break
        kept.append(prompt)
    return kept


def _scorers(cells: Sequence[Cell], main: str | None) -> list[str]:
    """The judges, and the reward models that policies learned from or picked by; the main judge first, gold last."""
    found = dict.fromkeys(name for cell in cells for answer in cell.generations for name in _scores(answer))
    return sorted(found, key=lambda name: (name != main, name == GOLD))


def _scores(answer: Generation) -> dict[str, float]:
    """All scores of an answer, by what the page calls who gave them."""
    return {**answer.scores, **{f"reward: {reward}": score for reward, score in answer.proxies.items()}}


def _answer(answer: Generation, scorers: Sequence[str]) -> dict[str, Json]:
    scores, left = _scores(answer), len(answer.text) - MAX_ANSWER
    return {
        "text": answer.text[:MAX_ANSWER],
        "tokens": answer.tokens,
        "finished": answer.finished,
        "scores": [scores.get(name) for name in scorers],
        **({"left": left} if left > 0 else {}),
    }


def _first(name: str, names: Sequence[str]) -> list[str]:
    return [name, *(other for other in names if other != name)]
