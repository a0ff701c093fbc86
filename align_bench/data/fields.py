"""Fields of a row, read as texts, conversations, labels and gold answers; a row that cannot be used says why."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from align_bench.errors import DataError
from align_bench.records import Message

Turns = tuple[Message, ...]


class DropError(Exception):
    """This row cannot be used, for a reason that is counted."""


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DropError("null cell")
    if not isinstance(value, str):
        raise DropError("cell is neither text nor a list of turns")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DropError("text is not valid Unicode") from None
    return value


def answer_text(value: object) -> str:
    """The text of an answer, which is not blank."""
    text = _text(value)
    if not text.strip():
        raise DropError("empty response")
    return text


def choice_number(value: object) -> int:
    """1 or 2: which of two answers is preferred."""
    number = _number(value)
    if number not in (1, 2):
        raise DropError("choice not 1 or 2")
    return int(number)


def label_value(value: object) -> bool:
    """Whether a single answer is desirable."""
    if isinstance(value, bool):
        return value
    words = {"true": 1.0, "false": 0.0}
    number = words.get(value.strip().lower()) if isinstance(value, str) else None
    number = _number(value) if number is None else number
    if number not in (0, 1):
        raise DropError("label not true or false")
    return bool(number)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def gold_answer(value: object) -> str | None:
    """The right answer; None where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value) if str(value).strip() else None


def gold_candidates(value: object) -> tuple[str, ...]:
    """Rival answers, of a list or of its JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    return tuple(str(each) for each in value) if isinstance(value, list | tuple) else ()


_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _transcript(text: str) -> Turns | None:
    """The turns of an hh-rlhf transcript; None when the text is not one."""
    text = text.strip()
    if not text.startswith("Human:") or "\n\nAssistant:" not in text:
        return None
    _, *parts = _SPEAKER.split(text)
    return tuple(Message(_ROLES[who], _text(said).strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))


def _turns(value: object) -> Turns | None:
    """The turns of a list of messages or of a transcript; None when the value is neither."""
    if isinstance(value, list | tuple):
        return tuple(_message(each) for each in value)
    return _transcript(value) if isinstance(value, str) else None


def _message(value: object) -> Message:
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise DropError("turn without role and content")
    return Message(_text(value["role"]), _text(value["content"]))


def prompt_turns(value: object) -> Turns:
    """The turns of a prompt: a text, a list of turns or a transcript; the last one is the user's."""
    turns = _turns(value)
    if turns is None:
        turns = (Message("user", _text(value)),)
    if turns and turns[-1] == Message("assistant", ""):
        turns = turns[:-1]
    return _usable(turns)


def _usable(prompt: Turns) -> Turns:
    if not prompt or not prompt[-1].content.strip():
        raise DropError("empty prompt")
    if prompt[-1].role != "user":
        raise DropError("prompt does not end with a user turn")
    return prompt


def _split_answer(turns: Turns) -> tuple[Turns, str]:
    if not turns:
        raise DropError("empty response")
    if turns[-1].role != "assistant":
        raise DropError("last turn is not the assistant's")
    return turns[:-1], answer_text(turns[-1].content)


def whole_conversation(value: object) -> tuple[Turns, str]:
    """Prompt and answer of a whole conversation."""
    turns = _turns(value)
    if turns is not None:
        return _split_answer(turns)
    _text(value)
    raise DataError(
        "there is no `prompt` column, and `chosen` or `rejected` is plain text, so the prompt is unknown.",
        fix="add a `prompt` column (or name it: `columns: {prompt: COLUMN}`), or give whole conversations as lists of "
        "{role, content} turns or as `\\n\\nHuman: … \\n\\nAssistant: …` transcripts",
    )


def continued_answer(value: object, prompt: Turns) -> tuple[Turns, str]:
    """Prompt and answer of a cell beside a prompt column: a text, the answer's turn, or the whole conversation."""
    turns = _turns(value)
    is_text = isinstance(value, str) and not (turns and _holds(turns[:-1], prompt))
    if turns is None or is_text:
        return prompt, answer_text(value)
    before, answer = _split_answer(turns)
    if not before or before[0].role == "assistant":
        return prompt + before, answer
    if _holds(prompt, before):
        return prompt, answer
    if _holds(before, prompt):
        return before, answer
    raise DropError("answer to another prompt")


def _holds(turns: Turns, part: Turns) -> bool:
    """Whether `part` is a run of `turns`, blanks around the contents aside."""
    whole, run = ([(turn.role, turn.content.strip()) for turn in each] for each in (turns, part))
    return any(whole[start : start + len(run)] == run for start in range(len(whole) - len(run) + 1))


def with_shared_prompt(chosen: tuple[Turns, str], rejected: tuple[Turns, str]) -> tuple[Turns, str, str]:
    """The prompt that two conversations share, and both answers."""
    if chosen[0] != rejected[0]:
        raise DropError("answers differ before the last turn")
    return _usable(chosen[0]), chosen[1], rejected[1]
