"""Checks of what a method declares: its bounds and its documentation."""

from __future__ import annotations

import re

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt

from align_bench.api import Algorithm
from align_bench.api.docstrings import sections_of
from align_bench.records import Parameters
from align_bench.testing.subject import Verdict, failed, not_applicable, passed

_UNIT = re.compile(
    r"\b(units?|nats?|tokens?|words?|characters|logits?|rows?|pairs?|examples?|answers?|samples?|prompts?|steps?"
    r"|epochs?|probability|share|rate)\b"
)


def bounds(algorithm: Algorithm, parameters: Parameters) -> Verdict:
    refused = []
    for name, parameter in algorithm.parameters.items():
        for value in (beyond for bound in parameter.constraints for beyond in _beyond(bound)):
            try:
                algorithm.resolve({name: parameter.type(value)})
            except ValueError:
                refused.append(f"{name}={value:g}")
            else:
                return failed(f"{name}={value:g} is accepted, expected {parameter.bounds}", "mend its annotation")
        try:
            algorithm.resolve({name: parameter.default})
        except ValueError as error:
            return failed(f"the default is refused: {error}", "mend the default or its range")
    if not refused:
        return not_applicable("no hyper-parameter has a range")
    return passed(f"refused: {', '.join(refused)}; the defaults are inside")


def _beyond(bound: BaseMetadata) -> tuple[float, ...]:
    match bound:
        case Gt(gt=int() | float() as low):
            return low - 1, low
        case Ge(ge=int() | float() as low):
            return (low - 1,)
        case Lt(lt=int() | float() as high):
            return high + 1, high
        case Le(le=int() | float() as high):
            return (high + 1,)
    return ()


def documentation(algorithm: Algorithm, parameters: Parameters) -> Verdict:
    given = sections_of(algorithm.doc)
    missing = [f"no section `{section}:`" for section in algorithm.sections if section not in given]
    described = algorithm.descriptions
    numbers = {name for name, parameter in algorithm.parameters.items() if parameter.type in (int, float)}
    for name in algorithm.arguments:
        if not described.get(name):
            missing.append(f"no line in Args for {name}")
        elif name in numbers and not _UNIT.search(described[name]):
            missing.append(f"no unit in Args for {name}")
    if missing:
        return failed(
            "; ".join(missing),
            "write the docstring as align-bench new does; a unit reads `per nat`, `tokens` or `no unit`",
        )
    return passed(f"{', '.join(algorithm.sections)}; {', '.join(described)} described")
