"""Conversations as texts: the tokenizer's chat template, and where in its text the answer begins.

The border between prompt and answer is a place in the text, never a number of tokens. The prompt is what the template
writes with its answer header (`add_generation_prompt`), as in generation. Where the whole conversation begins with it,
the answer is what follows. Where it does not (templates that write the system text into the last user turn while that
is the last one, or that open a thinking block in the header alone), the prompt stays as it is, and the answer follows
as the template writes it. An answer runs through the template's end of turn.

A tokenizer without a chat template gets the plain form: the turns joined by newlines, a newline, the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.data.dropped import AROUND, REFUSED, REMOVED, UnusableRowError
from align_bench.errors import DataError, ModelError
from align_bench.records import Message

if TYPE_CHECKING:
    from align_bench.records import Preference

_PROMPT, _ANSWER = "Zqxpromptxqz", "Zqxanswerxqz"  # texts that no template knows
_MESSAGE_CHARACTERS = 120

Turns = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as texts.

    Attributes:
        prompt: up to the answer, its header included.
        answers: chosen, then rejected, of those there are: what follows the prompt, through the end of turn.
    """

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Style:
    """How a tokenizer's conversations look around an answer, whatever the turns say.

    Attributes:
        template: whether a chat template writes them.
        header: what follows the last user's text in a prompt.
        lead: what comes between the header and an answer that is there.
        ending: what follows an answer, through its end-of-turn token; empty where the template writes none.
        footer: what follows that, and is cut.
    """

    template: bool
    header: str
    lead: str = ""
    ending: str = ""
    footer: str = ""


def style_of(tokenizer: Any, rows: Sequence[Preference]) -> Style:
    """Find out how a tokenizer writes conversations, by one whose texts are known.

    Args:
        tokenizer: a Hugging Face tokenizer.
        rows: whose turns are tried where the template refuses a single user's turn.

    Raises:
        DataError: the template refuses whatever it is given.
        ModelError: it is no template: Jinja cannot read it.
    """
    if not getattr(tokenizer, "chat_template", None):
        return Style(template=False, header="\n")
    tried: dict[tuple[str, ...], UnusableRowError] = {}
    for turns in ((), *(row.prompt for row in rows)):
        roles = tuple(turn.role for turn in turns)
        if roles in tried:
            continue
        known = (*turns[:-1], Message("user", _PROMPT))
        prompt, whole = (*_render(tokenizer, [known], header=True), *_render(tokenizer, [_answered(known, _ANSWER)]))
        if isinstance(prompt, str) and isinstance(whole, str):
            return _style(tokenizer, prompt, whole)
        tried[roles] = next(found for found in (prompt, whole) if isinstance(found, UnusableRowError))
    raise DataError(
        f"the chat template refuses every conversation, such as {', '.join([*roles, 'assistant'])}: "
        f"{str(tried[()]).removeprefix(REFUSED).lstrip(': ')}",
        fix="use a base whose template takes these roles, or other rows",
    )


def _style(tokenizer: Any, prompt: str, whole: str) -> Style:
    header = prompt.rpartition(_PROMPT)[2]
    before, _, after = whole.rpartition(_ANSWER)
    answered = before.rpartition(_PROMPT)[2]
    lead = answered.removeprefix(header) if answered.startswith(header) else ""
    end = _end_of_turn(tokenizer, after)
    cut = after.find(end) + len(end) if end in after else 0
    return Style(True, header, lead, after[:cut], after[cut:])


def _end_of_turn(tokenizer: Any, suffix: str) -> str:
    """The first token of what follows an answer that is no ordinary text; empty where there is none."""
    added: dict[int, str] = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    added |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    (ids,) = tokenizer([suffix], add_special_tokens=False, verbose=False)["input_ids"]
    return next((added[token] for token in ids if token in added), "")


def render_rows(
    tokenizer: Any, style: Style, rows: Sequence[Preference]
) -> list[tuple[Preference, Rendered | UnusableRowError]]:
    """Write rows as texts, each prompt once and each answer once; a row that cannot be used comes with the reason."""
    prompts = _render(tokenizer, [row.prompt for row in rows], header=True)
    wholes = iter(_render(tokenizer, [_answered(row.prompt, answer) for row in rows for answer in _answers(row)]))
    found: list[tuple[Preference, Rendered | UnusableRowError]] = []
    for row, prompt in zip(rows, prompts, strict=True):
        texts = (prompt, *(next(wholes) for _ in _answers(row)))
        try:
            found.append((row, _divided(tokenizer, style, row, _usable(texts))))
        except UnusableRowError as reason:
            found.append((row, reason))
    return found


def whole_conversations(tokenizer: Any, conversations: Sequence[tuple[Turns, str]]) -> list[str | UnusableRowError]:
    """Write conversations whole, as a chat template does; for one that it refuses, the reason."""
    return _render(tokenizer, [_answered(turns, answer) for turns, answer in conversations])


def _answered(turns: Turns, answer: str) -> Turns:
    return (*turns, Message("assistant", answer))


def _answers(row: Preference) -> list[str]:
    return [answer for answer in (row.chosen, row.rejected) if answer is not None]


def _usable(texts: Sequence[str | UnusableRowError]) -> list[str]:
    for text in texts:
        if isinstance(text, UnusableRowError):
            raise text
    return [text for text in texts if isinstance(text, str)]


def _divided(tokenizer: Any, style: Style, row: Preference, texts: Sequence[str]) -> Rendered:
    """The prompt, and what follows it.

    Nearly all rows are their prompt, their answers and a fixed text around them. Others are looked at closer: the same
    conversation with a known answer shows where the template writes it.
    """
    prompt, *wholes = texts
    answers = _answers(row)
    if len(wholes) == 2 and wholes[0] == wholes[1]:
        raise UnusableRowError(REMOVED)
    suffix = style.ending + style.footer
    if all(whole == f"{prompt}{style.lead}{answer}{suffix}" for whole, answer in zip(wholes, answers, strict=True)):
        return Rendered(prompt, tuple(f"{style.lead}{answer}{style.ending}" for answer in answers))
    (known,) = _usable(_render(tokenizer, [_answered(row.prompt, _ANSWER)]))
    before, _, after = known.rpartition(_ANSWER)
    return Rendered(prompt, tuple(_following(style, prompt, whole, before, after) for whole in wholes))


def _following(style: Style, prompt: str, whole: str, before: str, after: str) -> str:
    """What follows the prompt: the answer as the template writes it, through its end of turn.

    Args:
        style: the fixed text around answers.
        prompt: the rendered prompt.
        whole: the rendered conversation.
        before, after: what the template writes around a known answer to the same prompt.
    """
    room = len(whole) - len(after)
    if not (after.startswith(style.ending) and whole.endswith(after)):
        raise UnusableRowError(AROUND)
    if before.startswith(prompt) and whole.startswith(prompt) and len(prompt) <= room:
        if before[len(prompt) :] != style.lead:
            raise UnusableRowError(AROUND)
        return whole[len(prompt) : room] + style.ending
    if not before.startswith(prompt) and whole.startswith(before) and len(before) <= room:
        return style.lead + whole[len(before) : room] + style.ending
    raise UnusableRowError(AROUND)


def _render(tokenizer: Any, conversations: Sequence[Turns], *, header: bool = False) -> list[str | UnusableRowError]:
    """Each conversation as text; of one that the template refuses, why.

    With `header` they end with the header of an answer.

    Raises:
        ModelError: the template cannot be read.
    """
    if not getattr(tokenizer, "chat_template", None):
        return ["\n".join(turn.content for turn in turns) + ("\n" if header else "") for turns in conversations]
    messages = [[{"role": turn.role, "content": turn.content} for turn in turns] for turns in conversations]
    if not messages:
        return []
    # Templates are programs that may raise anything.
    try:
        found = tokenizer.apply_chat_template(messages, add_generation_prompt=header, tokenize=False)
        return [str(text) for text in found]
    except Exception:
        return [_render_one(tokenizer, one, header) for one in messages]


def _render_one(tokenizer: Any, messages: list[dict[str, str]], header: bool) -> str | UnusableRowError:
    from jinja2 import TemplateSyntaxError  # transformers has imported it for any template

    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=header, tokenize=False))
    except TemplateSyntaxError as error:
        raise ModelError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: its chat template cannot be read: line {error.lineno}: "
            f"{error.message}; expected a Jinja template",
            fix="mend it: chat_template.jinja in the model's folder, or chat_template in its tokenizer_config.json",
        ) from None
    except Exception as error:
        words = " ".join(f"{error}".split()) or type(error).__name__
        short = words if len(words) <= _MESSAGE_CHARACTERS else f"{words[: _MESSAGE_CHARACTERS - 1]}…"
        return UnusableRowError(f"{REFUSED}: {short}")
