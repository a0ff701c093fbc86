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


def number_of(value: object) -> float | None:
    """The finite number that a cell holds or writes; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


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
# Roles as public sets write them, in any case; a role that is not here is left to the chat template.
_ROLES = {
    "user": "user",
    "human": "user",
    "system": "system",
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = ("tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
_TURN_KEYS = (("role", "content"), ("from", "value"))
_PLAIN_TURN = set(_TURN_KEYS[0])  # most turns have no other keys, and need no closer look
TOOL_CALLS = "tool calls"


def is_filled(value: object) -> bool:
    """Whether a cell says something: a text that is not blank, `[]`, `{}` or `null`, a list that is not empty, …"""
    if value is None:
        return False
    if isinstance(value, bool | int | float):
        return not math.isnan(value)
    return value.strip() not in ("", "[]", "{}", "null") if isinstance(value, str) else bool(value)


def _transcript(text: str) -> Turns | None:
    """The turns of an hh-rlhf transcript; None when the text is not one."""
    text = text.strip()
    if not text.startswith("Human:") or "\n\nAssistant:" not in text:
        return None
    _, *parts = _SPEAKER.split(text)
    return tuple(
        Message(_ROLES[who.casefold()], _text(said).strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)
    )


def _turns(value: object) -> Turns | None:
    """The turns of a list of messages, of one message or of a transcript; None when the value is none of these."""
    if isinstance(value, Mapping):
        return tuple(_message(each) for each in _rows_of(value))
    if isinstance(value, list | tuple):
        return tuple(_message(each) for each in value)
    return _transcript(value) if isinstance(value, str) else None


def _rows_of(value: Mapping[object, object]) -> list[object]:
    """The messages of one message, or of a message whose fields are lists, as `datasets` stores a sequence of them."""
    for role, content in _TURN_KEYS:
        roles, contents = value.get(role), value.get(content)
        if isinstance(roles, list | tuple) and isinstance(contents, list | tuple):
            if len(roles) != len(contents):
                raise DropError("turn without role and content")
            # What stands beside them must not get lost: a turn may call a tool.
            others = {key: each for key, each in value.items() if isinstance(each, list | tuple)}
            return [
                {key: each[place] if place < len(each) else None for key, each in others.items()}
                for place in range(len(roles))
            ]
    return [value]


def _message(value: object) -> Message:
    if not isinstance(value, Mapping):
        raise DropError("turn without role and content")
    if value.keys() == _PLAIN_TURN:
        return Message(_role(value["role"]), _content(value["content"]))
    present = [keys for keys in _TURN_KEYS if all(key in value for key in keys)]
    if not present:
        raise DropError("turn without role and content")
    role, content = next((keys for keys in present if value[keys[0]] is not None), present[0])
    if any(is_filled(value.get(key)) for key in _TOOL_KEYS):
        raise DropError(TOOL_CALLS)
    return Message(_role(value[role]), _content(value[content]))


def _role(value: object) -> str:
    who = _text(value)
    name = who.strip().casefold()
    if name in _TOOL_ROLES:
        raise DropError(TOOL_CALLS)
    return _ROLES.get(name, who)


def _content(value: object) -> str:
    """A turn's text, also of a list of parts of which each is a text."""
    return "".join(_part(each) for each in value) if isinstance(value, list | tuple) else _text(value)


def _part(value: object) -> str:
    if not isinstance(value, Mapping):
        return _text(value)
    kind = str(value.get("type") or "text")
    if kind in ("text", "input_text", "output_text"):
        return _text(value.get("text"))
    # image, image_url, input_image, … are all images to a reader of counts.
    raise DropError(next((each for each in ("image", "video", "audio") if each in kind), f"content part {kind!r}"))


def unread_keys(value: object) -> set[str]:
    """Keys of a cell's turns that say something and are not read."""
    turns = value if isinstance(value, list | tuple) else [value]
    known = {key for keys in _TURN_KEYS for key in keys} | set(_TOOL_KEYS)
    return {
        str(key)
        for turn in turns
        if isinstance(turn, Mapping) and turn.keys() != _PLAIN_TURN
        for key, each in turn.items()
        if key not in known and is_filled(each)
    }


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
