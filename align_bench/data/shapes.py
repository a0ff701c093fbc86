"""What a row of each shape says: a prompt and its answers, from cells under the standard names of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from align_bench.data.fields import (
    TOOL_CALLS,
    DropError,
    Turns,
    answer_text,
    continued_answer,
    is_filled,
    number_of,
    prompt_turns,
    whole_conversation,
    with_shared_prompt,
)
from align_bench.data.tables import Cells
from align_bench.records import Message

CHOICE, LABEL = "overall_response", "label"
ANSWERS = ("response_1", "response_2", "chosen", "rejected", "completion")
PREFERRED = "preferred"  # the cell under which a reader finds what a choice or label stands for: `a` or `b`
STRENGTH = "strength"  # and how strongly
MEDIA = {"images": "image", "videos": "video", "audios": "audio"}
# What any shape may have beside its own columns.
OPTIONAL = (
    "gold", "candidates", "system", "input", "history", "tools", *MEDIA, "margin", "score_chosen", "score_rejected",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with its answers.

    Attributes:
        prompt: the turns before the answer.
        chosen, rejected: the answers; one is None where there is only one.
        chosen_first: whether the chosen answer is the first of two that the row numbers; None where it does not.
        margin: how much better the chosen answer is, where the row says so.
    """

    prompt: Turns
    chosen: str | None
    rejected: str | None
    chosen_first: bool | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Shape:
    """A kind of row.

    Attributes:
        words: what it is called.
        columns: the standard names that it needs.
        read: reads a row's cells; a row whose cells hold several answers makes several pairs, or the reason why one of
            them cannot be used. What it raises is a `DropError` of the whole row.
    """

    words: str
    columns: tuple[str, ...]
    read: Callable[[Cells], Iterator[Answered | DropError]]

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of two numbered answers, if it has them."""
        return tuple(name for name in self.columns if name in ("response_1", "response_2"))

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The names of all its answers."""
        return tuple(name for name in self.columns if name in ANSWERS)

    @property
    def prompt(self) -> str | None:
        """The name of its prompt, if it has one."""
        return next((name for name in self.columns if name in ("question", "prompt")), None)


def _choice(cells: Cells) -> Iterator[Answered]:
    yield from _preferred(cells, *responses_to(cells["question"], cells["response_1"], cells["response_2"]))


def responses_to(question: object, *responses: object) -> list[tuple[Turns, str]]:
    """Prompt and answer of each of a question's responses, or of lists of as many responses as there are questions.

    Raises:
        DropError: a cell cannot be used.
    """
    if are_texts(question):
        return [whole_conversation(_interleaved(question, each)) for each in responses]
    prompt = prompt_turns(question)
    # A text is the answer itself, even one that looks like a transcript.
    return [
        (prompt, answer_text(each)) if isinstance(each, str) else continued_answer(each, prompt) for each in responses
    ]


def _choice_implied(cells: Cells) -> Iterator[Answered]:
    yield from _preferred(cells, *(whole_conversation(cells[name]) for name in ("response_1", "response_2")))


def _scored(cells: Cells) -> Iterator[Answered]:
    scores = number_of(cells["score_1"]), number_of(cells["score_2"])
    if scores[0] is None or scores[1] is None:
        raise DropError("score is not a number")
    if scores[0] == scores[1]:
        raise DropError("tie")
    side = "a" if scores[0] > scores[1] else "b"
    yield from _choice({**cells, PREFERRED: side, STRENGTH: abs(scores[0] - scores[1])})


def _preferred(cells: Cells, first: tuple[Turns, str], second: tuple[Turns, str]) -> Iterator[Answered]:
    is_first = cells[PREFERRED] == "a"
    prompt, chosen, rejected = with_shared_prompt(*((first, second) if is_first else (second, first)))
    strength = number_of(cells.get(STRENGTH))
    yield Answered(prompt, chosen, rejected, is_first, strength)


def _pair(cells: Cells) -> Iterator[Answered | DropError]:
    prompt = prompt_turns(cells["prompt"])
    # Several answers in a cell: each chosen one is paired with each rejected one, all under the same prompt.
    for chosen, rejected in product(_several(cells["chosen"]), _several(cells["rejected"])):
        try:
            yield Answered(*with_shared_prompt(continued_answer(chosen, prompt), continued_answer(rejected, prompt)))
        except DropError as drop:
            yield drop


def _unpaired(cells: Cells) -> Iterator[Answered]:
    prompt, answer = continued_answer(cells["completion"], prompt_turns(cells["prompt"]))
    yield Answered(prompt, answer, None) if cells[PREFERRED] == "a" else Answered(prompt, None, answer)


def _implied(cells: Cells) -> Iterator[Answered]:
    yield Answered(*with_shared_prompt(*(whole_conversation(cells[name]) for name in ("chosen", "rejected"))))


def _several(value: object) -> Sequence[object]:
    """The answers of a cell: those of a list of texts, or the one that it holds."""
    return value if isinstance(value, list | tuple) and are_texts(value) else [value]


def are_texts(value: object) -> bool:
    """Whether a cell is a list of texts: several answers, or the questions of a conversation."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, str) for each in value)


def _interleaved(questions: object, answers: object) -> object:
    """The conversation of a list of questions and a list of as many answers."""
    assert isinstance(questions, list | tuple)
    if not isinstance(answers, list | tuple):
        raise DropError("null cell" if answers is None else "cell is neither text nor a list of turns")
    if len(answers) != len(questions):
        raise DropError("not as many answers as questions")
    turns = [("user", "assistant"), *zip(questions, answers, strict=True)]
    return [{"role": role, "content": text} for pair in turns[1:] for role, text in zip(turns[0], pair, strict=True)]


QUESTION_SHAPE = Shape(
    "question + response_1/2 + overall_response", ("question", "response_1", "response_2", CHOICE), _choice
)
PAIR_SHAPE = Shape("prompt + chosen + rejected", ("prompt", "chosen", "rejected"), _pair)
UNPAIRED_SHAPE = Shape("prompt + completion + label (unpaired)", ("prompt", "completion", LABEL), _unpaired)
IMPLIED_SHAPE = Shape("chosen + rejected, prompt implied", ("chosen", "rejected"), _implied)
SCORED_SHAPE = Shape(
    "question + response_1/2 + score_1/2", ("question", "response_1", "response_2", "score_1", "score_2"), _scored
)
IMPLIED_CHOICE_SHAPE = Shape(
    "response_1/2 + overall_response, prompt implied", ("response_1", "response_2", CHOICE), _choice_implied
)
# By columns alone, in this order; the shape of two whole conversations with a choice has to be asked for.
SHAPES = (QUESTION_SHAPE, PAIR_SHAPE, UNPAIRED_SHAPE, IMPLIED_SHAPE, SCORED_SHAPE)
CANONICAL = tuple(
    dict.fromkeys([name for shape in (*SHAPES, IMPLIED_CHOICE_SHAPE) for name in shape.columns] + list(OPTIONAL))
)


def answered(shape: Shape, cells: Cells) -> Iterator[Answered | DropError]:
    """The pairs (or the one labelled answer) of a row, with all that stands beside them.

    Args:
        shape: of the row.
        cells: standard name → cell; `PREFERRED` in place of a choice or label.

    Raises:
        DropError: the row, or what is left of it, cannot be used.
    """
    check_readable(cells)
    margin = _margin(cells)
    for each in shape.read(cells):
        if isinstance(each, DropError):
            yield each
            continue
        prompt = with_context(each.prompt, cells)
        yield Answered(prompt, each.chosen, each.rejected, each.chosen_first, each.margin if margin is None else margin)


def check_readable(cells: Cells) -> None:
    """Refuse a row that a text model cannot read whole.

    Raises:
        DropError: it has an image, a video, a sound, or tools.
    """
    for name, reason in MEDIA.items():
        if is_filled(cells.get(name)):
            raise DropError(reason)
    if is_filled(cells.get("tools")):
        raise DropError(TOOL_CALLS)


def with_context(prompt: Turns, cells: Cells) -> Turns:
    """The prompt with what stands beside it: earlier turns, an input, a system text.

    Raises:
        DropError: the prompt has another system text already, or a cell is none of these.
    """
    if is_filled(cells.get("input")):
        *before, last = prompt
        # As LLaMA-Factory and Alpaca's own code do it: the instruction, then its input on a line of its own.
        prompt = (*before, Message("user", f"{last.content}\n{answer_text(cells['input'])}"))
    if is_filled(cells.get("history")):
        prompt = (*_history(cells["history"]), *prompt)
    if not is_filled(cells.get("system")):
        return prompt
    system = Message("system", answer_text(cells["system"]))
    if prompt[0].role != "system":
        return (system, *prompt)
    if prompt[0] != system:
        raise DropError("two system texts")
    return prompt


def _history(value: object) -> Turns:
    """Earlier turns, as LLaMA-Factory writes them: a list of pairs of a question and its answer."""
    if not isinstance(value, list | tuple) or not all(are_texts(pair) and len(pair) == 2 for pair in value):
        raise DropError("history is no list of pairs")
    return tuple(Message(role, text) for pair in value for role, text in zip(("user", "assistant"), pair, strict=True))


def _margin(cells: Cells) -> float | None:
    """The row's margin, or the difference of its answers' scores.

    Raises:
        DropError: a cell of them is no number, or the scores are equal.
    """
    if is_filled(cells.get("margin")):
        return _number(cells, "margin")
    if not (is_filled(cells.get("score_chosen")) and is_filled(cells.get("score_rejected"))):
        return None
    difference = _number(cells, "score_chosen") - _number(cells, "score_rejected")
    if difference == 0:
        raise DropError("tie")
    return difference


def _number(cells: Cells, name: str) -> float:
    number = number_of(cells[name])
    if number is None:
        raise DropError("score is not a number")
    return number


def choice_column(shape: Shape) -> str | None:
    """The standard name of the column whose values are looked at before they are believed."""
    return next((name for name in (CHOICE, LABEL) if name in shape.columns), None)


def used_beside(names: Mapping[str, str], columns: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """The optional columns that are read; `input` and `history` only beside an instruction, or where they are asked.

    Args:
        names: standard name → the file's column, of the shape's own.
        columns: all of the file's.
        asked: the user's own `columns:`.
    """
    taken = set(names.values())
    instructed = "instruction" in (names.get("prompt"), names.get("question"))
    found = {name: name for name in OPTIONAL if name in columns and name not in taken}
    if not instructed:
        found = {name: column for name, column in found.items() if name not in ("input", "history")}
    return found | {name: column for name, column in asked.items() if name in OPTIONAL}
