"""From a plugin's signature, or a record of settings, to its hyper-parameters; and back, when it is called."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, fields, replace
from functools import cache
from typing import TypeVar

import annotated_types
from pydantic import TypeAdapter

from align_bench.api.declaring import checked_name, in_short, is_number
from align_bench.api.docstrings import described
from align_bench.api.hyperparameters import Parameter, Range, Value
from align_bench.errors import PluginError
from align_bench.records import OWN_SETTINGS, START_SETTINGS, Parameters

S = TypeVar("S")

_SYMBOLS: Mapping[type, tuple[str, str]] = {
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Ge: ("ge", "≥"),
    annotated_types.Lt: ("lt", "<"),
    annotated_types.Le: ("le", "≤"),
}


def hints_of(function: Callable[..., object]) -> dict[str, typing.Any]:
    """The annotations of a function, evaluated.

    Raises:
        PluginError: when one names what is not there at run time.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise PluginError(
            f"{function.__name__}: its annotations cannot be read: {error}",
            fix="import the name at the top of the file, and not for type checkers only",
        ) from error


def parameters_of(function: Callable[..., object], doc: str) -> dict[str, Parameter]:
    """The keyword-only arguments of a function, as hyper-parameters: name → parameter.

    Args:
        function: its first argument is the batch.
        doc: the docstring whose `Args` describe them.

    Raises:
        PluginError: when the signature cannot be used.
    """
    name = function.__name__
    signature = list(inspect.signature(function).parameters.values())
    if not signature or signature[0].kind not in (signature[0].POSITIONAL_ONLY, signature[0].POSITIONAL_OR_KEYWORD):
        raise PluginError(f"{name}: its first argument must be the batch", fix="write def name(batch, *, …)")
    hints, descriptions = hints_of(function), described(doc)
    found = {}
    for each in signature[1:]:
        where = f"{name}: parameter {checked_name(name, each.name)!r}"
        if each.name == "learning_rate":
            raise PluginError(f"{where} is every method's own", fix="give its default to @algorithm(learning_rate=…)")
        if each.name in (*OWN_SETTINGS, *START_SETTINGS):
            raise PluginError(f"{where} is a training setting, which suites set for every method", fix="rename it")
        if each.kind is not inspect.Parameter.KEYWORD_ONLY or each.default is inspect.Parameter.empty:
            raise PluginError(f"{where} must be keyword-only with a default", fix="write *, name: float = 0.1")
        found[each.name] = _parameter(
            name, each.name, hints.get(each.name), each.default, descriptions.get(each.name, "")
        )
    return found


def settings_parameters(settings: object, method: str) -> dict[str, Parameter]:
    """The fields of a record of settings, as hyper-parameters; its values are their defaults.

    Args:
        settings: a dataclass, such as `RolloutSettings()`.
        method: whose they are.

    Raises:
        PluginError: when a value is of another type, or out of bounds.
    """
    kind = type(settings)
    hints, descriptions = typing.get_type_hints(kind, include_extras=True), described(inspect.getdoc(kind) or "")
    names = [each.name for each in _fields(kind)]
    return {name: _parameter(method, name, hints[name], getattr(settings, name), descriptions[name]) for name in names}


def settings_from(kind: type[S], parameters: Parameters) -> S:
    """A record of settings from all of a method's hyper-parameters."""
    key: typing.Any = kind  # mypy takes classes for unhashable
    adapter: TypeAdapter[S] = _adapter(key)
    return adapter.validate_python({each.name: parameters[each.name] for each in _fields(kind)})


def named_by(function: Callable[..., object], parameters: Parameters) -> dict[str, typing.Any]:
    """Those hyper-parameters that the function names; all of them where it takes any keyword."""
    named = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in named.values()):
        return dict(parameters)
    return {name: parameters[name] for name in named if name in parameters}


@cache
def _adapter(kind: typing.Any) -> TypeAdapter[typing.Any]:
    return TypeAdapter(kind)


def _fields(kind: type) -> tuple[Field[object], ...]:
    return fields(kind)


def _parameter(function: str, name: str, hint: object, default: object, description: str) -> Parameter:
    where = f"{function}: parameter {name!r}"
    base, constraints, ranges = hint, tuple[annotated_types.BaseMetadata, ...](), list[Range]()
    if typing.get_origin(hint) is typing.Annotated:
        base, *metadata = typing.get_args(hint)
        constraints = tuple(_bounds(metadata, where))
        ranges = [item for item in metadata if isinstance(item, Range)]
    choices = _choices(base)
    kind: type[Value] | None = next(
        (each for each in (float, int, bool, str) if each is base), str if choices else None
    )
    if kind is None:
        raise PluginError(f"{where} has type {base!r}, expected float, int, bool or str, or a Literal of texts")
    bounds = f"one of {', '.join(choices)}" if choices else ", ".join(map(_in_words, constraints))
    declared = Parameter(name, kind, "", bounds, constraints, description, choices=choices)
    try:
        declared = replace(declared, default=declared.parse(default))
    except ValueError as error:
        raise PluginError(f"{function}: the default breaks its own schema: {error}") from error
    return replace(declared, range=_range(ranges, declared, where))


def _choices(hint: object) -> tuple[str, ...]:
    """The texts of a `Literal`; none for any other type."""
    found = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return found if all(isinstance(each, str) for each in found) else ()


def _range(ranges: Sequence[Range], declared: Parameter, where: str) -> Range | None:
    """The parameter's range, checked against its type, bounds and default."""
    if not ranges:
        return None
    if len(ranges) > 1 or declared.type not in (float, int):
        raise PluginError(f"{where} has {', '.join(map(repr, ranges))}, expected one on a float or int")
    try:
        low, high = declared.parse(ranges[0].low), declared.parse(ranges[0].high)
    except ValueError as error:
        raise PluginError(f"{where}: its range breaks its own schema: {error}") from error
    assert not isinstance(low, str) and not isinstance(high, str) and not isinstance(declared.default, str)  # noqa: PT018
    found = Range(low, high)
    if declared.default not in found:
        raise PluginError(f"{where}: the default {declared.default:g} is outside its range {found}")
    return found


def _bounds(metadata: Sequence[object], where: str) -> Iterator[annotated_types.BaseMetadata]:
    """The bounds among the metadata; one such as Interval stands for several."""
    for item in metadata:
        if isinstance(item, type) and issubclass(item, annotated_types.BaseMetadata | Range):
            raise PluginError(f"{where}: {item.__name__} is no bound", fix=f"write a value, such as {item.__name__}(0)")
        if isinstance(item, annotated_types.GroupedMetadata):
            yield from _bounds(list(item), where)
        elif isinstance(item, annotated_types.BaseMetadata):
            if type(item) not in _SYMBOLS:
                raise PluginError(
                    f"{where}: bound {item!r} is not one of Gt, Ge, Lt, Le",
                    fix="use one bound per side, such as Gt(0), Lt(1)",
                )
            attribute, _ = _SYMBOLS[type(item)]
            if not is_number(getattr(item, attribute)):
                raise PluginError(
                    f"{where}: {type(item).__name__}({in_short(getattr(item, attribute))}): expected a number"
                )
            yield item


def _in_words(constraint: annotated_types.BaseMetadata) -> str:
    attribute, symbol = _SYMBOLS[type(constraint)]
    return f"{symbol} {getattr(constraint, attribute):g}"
