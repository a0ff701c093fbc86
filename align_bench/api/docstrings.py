"""Docstrings in Google's style, with the sections of our own (`Equation`, `Source`, …)."""

from __future__ import annotations

import re

from docstring_parser import ParseError
from docstring_parser.google import GoogleParser, Section, SectionType

# What a method's docstring is to have; a recipe's returns nothing, and says what it repeats in a heading of its own.
SECTIONS = ("Equation", "Args", "Returns", "Source", "Differs from the source")

_HEADING = re.compile(r"^([A-Z][\w ,'’-]*):[ \t]*$", re.MULTILINE)
_NAMED = {"Args": "param", "Arguments": "param", "Attributes": "attribute"}


def described(doc: str) -> dict[str, str]:
    """The arguments (or attributes) that a dedented docstring describes: name → its whole description, in one line.

    Several names before one colon share a description. What cannot be parsed describes nothing.
    """
    headings = dict.fromkeys(_HEADING.findall(doc))
    sections = [
        Section(title, _NAMED.get(title, "other"), SectionType.MULTIPLE if title in _NAMED else SectionType.SINGULAR)
        for title in headings
    ]
    if not any(section.type is SectionType.MULTIPLE for section in sections):
        return {}
    try:
        parsed = GoogleParser(sections).parse(doc)
    except ParseError:
        return {}
    return {
        name.strip(): " ".join((entry.description or "").split())
        for entry in parsed.params
        for name in entry.arg_name.split(",")
    }


def sections_of(doc: str) -> tuple[str, ...]:
    """The headings of a dedented docstring, in order, without their colons."""
    return tuple(_HEADING.findall(doc))
