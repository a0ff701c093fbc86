"""Bold text of Markdown, found in one pass over the text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

_OPENS = re.compile(r"(\*\*|__)(?=\S)")
_CLOSES = {"**": re.compile(r"(?<=\S)(?=\*\*)"), "__": re.compile(r"(?<=\S)(?=__)")}


def bold_spans(text: str) -> Iterator[tuple[int, int]]:
    r"""Where bold text begins and ends, without its marks, from left to right.

    The matches of `(\*\*|__)(?=\S)(.+?)(?<=\S)\1`, whose search from every opening mark takes time that grows with the
    square of the length where none of them is closed.

    >>> [slice(*span) for span in bold_spans("**a b** c")]
    [slice(2, 5, None)]
    """
    closes = {mark: [found.start() for found in pattern.finditer(text)] for mark, pattern in _CLOSES.items()}
    start = 0
    while found := _OPENS.search(text, start):
        places, begin = closes[found[1]], found.end()
        number = bisect_left(places, begin + 1)
        if number < len(places):
            yield begin, places[number]
            start = places[number] + 2
        else:
            start = found.start() + 1
