"""What of an answer is said to the user: the text after its thinking block."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


def without_thinking(text: str) -> str:
    """An answer without the thinking block that it begins with.

    Args:
        text: the answer. The block's opening tag may be in the prompt. A block that is never closed is all of the
            answer.

    Returns:
        What follows the block, without leading space; the text itself where it begins with none.

    >>> without_thinking("<think>Two and two.</think>\\n\\nFour.")
    'Four.'
    """
    before, close, after = text.partition(_CLOSE)
    opened = before.lstrip().startswith(_OPEN)
    if not close:
        return "" if opened else text
    # A tag that is opened further on is a word of the answer.
    return after.lstrip() if opened or _OPEN not in before else text
