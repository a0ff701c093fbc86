"""What a user writes into a suite or after `--set`: read as YAML, within limits that the messages state.

Plain values only: text, numbers, true and false, null, days, lists and mappings. Whatever the text is, reading it ends
soon: its size, its depth, and what its aliases come to are counted as it is read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from align_bench.errors import SuiteError
from align_bench.records import Json

MOST_BYTES = 512 * 1024  # of a suite's file
MOST_SET_BYTES = 64 * 1024  # of a value after --set
MOST_DEPTH = 32  # lists and mappings in each other
MOST_VALUES = 100_000  # of a file, each as often as aliases repeat it
MOST_EXTENDED = 16  # files of a suite that extend each other
_SHOWN = 120  # characters of a value in a message


class _Loader(yaml.SafeLoader):
    """Safe YAML of plain values, in which 5e-4 is a number (YAML 1.1 reads it as text) and a key occurs only once."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values: dict[int, int] = {}  # of each node that is complete

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _refused(f"lists and mappings are nested deeper than {MOST_DEPTH} levels", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._values:
            raise _refused("an alias is a part of what it repeats", mark)
        if node is not None and id(node) not in self._values:
            self._values[id(node)] = self._count(node, mark)
        return node

    def _count(self, node: yaml.Node, mark: yaml.Mark) -> int:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        count = 1 + sum(self._values[id(part)] for part in inside)
        if count > MOST_VALUES:
            raise _refused(
                f"it holds more than {MOST_VALUES:,} values, those that aliases repeat counted each time", mark
            )
        return count

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > 64:
            raise _refused(f"a whole number of {len(node.value):,} characters; expected fewer than 64", node.start_mark)
        found: int = super().construct_yaml_int(node)
        return found


def _refused(what: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise _refused("a key must be plain text", key_node.start_mark)
        if key in seen:
            raise _refused(f"key {in_short(key)} occurs twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _other_tag(loader: _Loader, node: yaml.Node) -> None:
    raise _refused(f"{node.tag} is not read; expected text, numbers, lists and mappings", node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _tag in ("binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _other_tag)


def parsed(text: str, where: str, most_bytes: int = MOST_BYTES) -> Json:
    """The value of a YAML text.

    Args:
        text: the text.
        where: what messages call it.
        most_bytes: the longest text that is read.

    Raises:
        SuiteError: it is too long, no YAML, holds something else than plain values, or comes to too many of them.
    """
    if len(text) > most_bytes:
        raise SuiteError(f"{where}: got {len(text):,} characters, expected at most {most_bytes:,}")
    try:
        found: Json = yaml.load(text, Loader=_Loader)  # nosec B506 - a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # a day that does not exist
        said = str(error).replace('in "<unicode string>", line', "at line")
        raise SuiteError(f"{where} is not valid YAML: {said}") from None
    return found


def text_of(path: Path) -> str:
    """The text of a suite's file.

    Raises:
        SuiteError: it is no regular file, too large, cannot be read, or is not UTF-8.
    """
    try:
        # A pipe without a writer would be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SuiteError(f"{path}: got a pipe, device or folder, expected a file")
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SuiteError(f"{path}: got a file of more than {MOST_BYTES:,} bytes, expected a suite")
        return content.decode("utf-8").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path} cannot be read: {error}") from None


def in_short(value: object) -> str:
    """A value as a message shows it, cut where it is long."""
    text = repr(value[: _SHOWN + 1] if isinstance(value, str | list | bytes) else value)
    return clipped(text)


def clipped(text: str) -> str:
    """A text as a message shows it, cut where it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
