"""Docstrings in Google's style, with the sections of our own (`Equation`, `Source`, …)."""

from __future__ import annotations

import itertools
import re
import textwrap

from docstring_parser import ParseError
from docstring_parser.google import GoogleParser, Section, SectionType

# What a method's docstring is to have; a recipe's returns nothing, and says what it repeats in a heading of its own.
SECTIONS = ("Equation", "Args", "Returns", "Source", "Differs from the source")

_HEADING = re.compile(r"^([A-Z][\w ,'’-]*):[ \t]*$", re.MULTILINE)
_PLACE = re.compile(r"(?:`[^`]*`|(?![;:.] |, the same |, over ).)+")  # up to what is said of it; code is left whole
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


def section(doc: str, heading: str) -> str:
    """What a dedented docstring says under a heading, dedented; empty where it has none."""
    lines = doc.splitlines()
    if f"{heading}:" not in lines:
        return ""
    rest = lines[lines.index(f"{heading}:") + 1 :]
    own = list(itertools.takewhile(lambda line: not line or line[0] == " ", rest))
    return textwrap.dedent("\n".join(own)).strip()


def elsewhere(doc: str) -> str:
    """Where else a method exists, by the lines `In TRL: …` and `Also in …` of its `Source`; empty where it has none."""
    found = []
    for paragraph in map(_in_a_line, section(doc, "Source").split("\n\n")):
        if paragraph.startswith("In TRL: "):
            found.append("TRL: " + _PLACE.findall(paragraph.removeprefix("In TRL: "))[0].rstrip("."))
        elif paragraph.startswith("Also in "):
            found.append(paragraph.removeprefix("Also in ").rstrip("."))
    return "; ".join(found)


def held_equal(doc: str) -> str:
    """What tests hold a method to, by the sentence `Tests hold …` of its `Source`; empty where it has none."""
    found = re.search(r"Tests hold (?:it to |both equal in )(.+?)\.(?: |$)", _in_a_line(section(doc, "Source")))
    if found is None:
        return ""
    return f"TRL, in {found[1]}" if "both equal in" in found[0] else found[1]


def _in_a_line(text: str) -> str:
    return " ".join(text.split())
